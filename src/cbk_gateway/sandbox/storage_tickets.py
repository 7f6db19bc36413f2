"""Presigned URLs: the uploads and downloads that clients make at the storage itself, past the API.

A ticket in the URL is the only credential, as with any presigned URL.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from cbk_gateway.sandbox.answers import Answer, ApiError
from cbk_gateway.sandbox.blobs import Blob, BlobWriter
from cbk_gateway.sandbox.calls import World

OCTETS: Final = "application/octet-stream"


def ticket_url(world: World, key: str, content_type: str = "", name: str = "") -> str:
    """A presigned URL for some stored bytes, present or to come."""
    return f"{world.base_url}/_sandbox/storage/{world.blobs.issue(key, content_type, name)}"


async def answer_ticket(world: World, request: web.BaseRequest, ticket_name: str) -> Answer:
    """Take the bytes of a PUT, or give those of a GET.

    Raises:
        ApiError: 404 for an unknown ticket, 405 for another method.
    """
    ticket = world.blobs.ticket(ticket_name)
    if ticket is None:
        raise ApiError(404)
    if request.method == "PUT":
        content_type = ticket.content_type or request.headers.get("Content-Type", OCTETS)
        writer = await receive_bytes(world, request)
        keep_blob(world, ticket.key, writer.finish(content_type, ticket.name))
        return Answer()
    if request.method != "GET":
        raise ApiError(405)
    blob = world.blobs.get(ticket.key)
    if blob is None:
        raise ApiError(404)
    return blob_answer(blob)


async def receive_bytes(world: World, request: web.BaseRequest) -> BlobWriter:
    """Take in a body of any size, piece by piece."""
    writer = world.blobs.writer()
    try:
        async for piece in request.content.iter_any():
            writer.write(piece)
    except BaseException:
        writer.abandon()
        raise
    return writer


def keep_blob(world: World, key: str, blob: Blob) -> None:
    """Keep bytes under a key, and note them in the row of that id, if there is one."""
    world.blobs.put(key, blob)
    row = world.store.get(key)
    if row is not None:
        meta = {**(row.body.get("meta") or {}), "contentType": blob.content_type}
        kept = {"file": blob.file_name, "type": blob.content_type, "name": blob.name}
        world.store.change(row, {"meta": meta}, {"blob": kept})


def blob_answer(blob: Blob) -> Answer:
    """The bytes, streamed, as an attachment."""
    name = blob.name.replace('"', "") or "file"
    return Answer(
        content_type=blob.content_type or OCTETS,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
        stream=blob.chunks(),
        length=blob.size_bytes,
    )

"""Files and attachments: upload in its three forms, download as bytes or as a presigned URL.

The bytes themselves are kept by `blobs`; the URLs past the API are answered by `storage_tickets`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from cbk_gateway.sandbox.answers import JSON, Answer, ApiError, JsonObject, bad_request, json_answer
from cbk_gateway.sandbox.blobs import Blob
from cbk_gateway.sandbox.calls import Call, Routes, media_type
from cbk_gateway.sandbox.crud import add_row
from cbk_gateway.sandbox.schema import COUNT, NAME, OBJECT, Field, Fields, check_body, record, required
from cbk_gateway.sandbox.storage_tickets import OCTETS, blob_answer, keep_blob, receive_bytes, ticket_url

MULTIPART_LIMIT_BYTES: Final = 64 * 1024 * 1024
_DATA_URL: Final = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),(.*)", re.DOTALL)
_PLANNED: Final[Fields] = {"file": record(type=required(NAME), size=required(COUNT), name=NAME, meta=OBJECT)}
_UPLOAD: Final[Fields] = {"file": Field("any", required=True)}
_PART_NAME: Final = re.compile(rb'[; ]name="([^"]*)"')
_PART_FILE: Final = re.compile(rb'filename="([^"]*)"')
_PART_TYPE: Final = re.compile(rb"content-type:[ \t]*([^\r\n]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Planned:
    """An upload that the client will make at the storage itself."""

    content_type: str
    name: str
    size_bytes: int


async def receive_upload(call: Call) -> Blob | Planned:
    """What an upload call brings: bytes, or the plan to bring them later.

    Raises:
        ApiError: 400 for a body in none of the three forms, 413 for a form that is too large.
    """
    kind = media_type(call.request)
    if kind == JSON:
        check_body(_UPLOAD, call.body)
        return _read_json_upload(call)
    writer = await receive_bytes(call.world, call.request)
    call.record.note_body(writer.size_bytes, writer.sha256)
    if kind != "multipart/form-data":
        return writer.finish(kind or OCTETS, "")
    blob = writer.finish(kind, "")
    try:
        if blob.size_bytes > MULTIPART_LIMIT_BYTES:
            raise ApiError(413)
        content, content_type, name = read_form_file(
            blob.read(), call.request.headers.get("Content-Type", "")
        )
    finally:
        call.world.blobs.discard(blob)
    return _stored(call, content, content_type, name)


def _stored(call: Call, content: bytes, content_type: str, name: str) -> Blob:
    writer = call.world.blobs.writer()
    writer.write(content)
    return writer.finish(content_type, name)


def _read_json_upload(call: Call) -> Blob | Planned:
    file = call.body["file"]
    if isinstance(file, dict):
        check_body(_PLANNED, call.body)
        return Planned(file["type"], file.get("name") or "", file["size"])
    if not isinstance(file, str):
        raise bad_request('"file" must be a URL or an object')
    content, content_type = read_data_url(file)
    return _stored(call, content, content_type, "")


def read_data_url(url: str) -> tuple[bytes, str]:
    """The bytes and media type in a data URL (RFC 2397).

    Raises:
        ApiError: 400 for anything else; the sandbox does not fetch from other hosts.
    """
    found = _DATA_URL.fullmatch(url)
    if found is None:
        raise bad_request('"file" must be a data URL; the sandbox does not fetch from elsewhere')
    content_type, parameters, payload = found.groups()
    try:
        content = (
            base64.b64decode(unquote_to_bytes(payload), validate=True)
            if parameters.endswith(";base64")
            else unquote_to_bytes(payload)
        )
    except (binascii.Error, ValueError) as error:
        raise bad_request('"file" is not a valid data URL') from error
    return content, content_type or "text/plain"


def read_form_file(body: bytes, content_type: str) -> tuple[bytes, str, str]:
    """Content, media type and file name of the field `file` of a form (RFC 7578).

    Raises:
        ApiError: 400 when there is no such field.
    """
    found = re.search(r'boundary="?([^";,]+)"?', content_type)
    if found is None:
        raise bad_request("The form has no boundary")
    for part in (b"\r\n" + body).split(b"\r\n--" + found.group(1).encode())[1:]:
        head, gap, content = part.partition(b"\r\n\r\n")
        name = _PART_NAME.search(head)
        if gap and name is not None and name.group(1) == b"file":
            file_name, kind = _PART_FILE.search(head), _PART_TYPE.search(head)
            return (
                content,
                kind.group(1).decode("latin-1").strip() if kind else OCTETS,
                file_name.group(1).decode("utf-8", "replace") if file_name else "",
            )
    raise bad_request('"file" is required')


def upload_answer(call: Call, key: str, brought: Blob | Planned, shape: Mapping[str, object]) -> Answer:
    """Keep what was brought under a key, or hand out the URL to bring it to."""
    if isinstance(brought, Blob):
        keep_blob(call.world, key, brought)
        return json_answer(shape)
    url = ticket_url(call.world, key, brought.content_type, brought.name)
    upload_request = {"method": "PUT", "url": url, "headers": {"Content-Type": brought.content_type}}
    return json_answer({**shape, "uploadRequest": upload_request})


def download_answer(call: Call, key: str, shape: JsonObject) -> Answer:
    """The bytes under a key, or a presigned URL to them for a client that accepts JSON only."""
    blob = call.world.blobs.get(key)
    if call.request.headers.get("Accept", "").partition(",")[0].strip().lower() == JSON:
        return json_answer({**shape, "url": ticket_url(call.world, key)})
    return Answer(status=204) if blob is None else blob_answer(blob)


async def upload_file(call: Call) -> Answer:
    """Bring the content of a file."""
    row = call.item()
    brought = await receive_upload(call)
    return upload_answer(call, row.id, brought, {"id": row.id})


async def download_file(call: Call) -> Answer:
    """The content of a file; 204 when it has none yet."""
    row = call.item()
    if call.world.blobs.get(row.id) is None:
        return Answer(status=204)
    return download_answer(call, row.id, {})


async def download_rendition(call: Call) -> Answer:
    """A smaller picture of a file, which is the file itself here."""
    row = call.parent()
    blob = call.world.blobs.get(row.id)
    return Answer(status=204) if blob is None else blob_answer(blob)


async def upload_attachment(call: Call) -> Answer:
    """A new attachment of a conversation."""
    conversation = call.parent()
    brought = await receive_upload(call)
    row = add_row(call, "conversation/attachment", {"name": brought.name}, conversation.id)
    return upload_answer(call, row.id, brought, {"id": row.id, "name": brought.name})


async def download_attachment(call: Call) -> Answer:
    """A redirect to the content of an attachment."""
    row = call.item()
    if call.world.blobs.get(row.id) is None:
        raise ApiError(404)
    return Answer(status=302, headers={"Location": ticket_url(call.world, row.id)})


ROUTES: Final[Routes] = {
    ("file", True, "upload"): upload_file,
    ("file", True, "download"): download_file,
    ("file/portrait", False, "download"): download_rendition,
    ("file/thumbnail", False, "download"): download_rendition,
    ("conversation/attachment", False, "upload"): upload_attachment,
    ("conversation/attachment", True, "download"): download_attachment,
}

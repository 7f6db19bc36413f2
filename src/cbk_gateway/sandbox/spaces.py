"""The storage of a space: a small tree of paths under `space/{id}/storage/{action}/{path...}`.

Each stored path is a hidden row of the space, and its bytes a blob; folders exist where something is in them.
"""

from __future__ import annotations

from typing import Final

from cbk_gateway.sandbox.answers import Answer, ApiError, JsonObject, bad_request, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.files import download_answer, receive_upload, upload_answer
from cbk_gateway.sandbox.schema import FLAG, TEXT, check_body, required
from cbk_gateway.sandbox.store import Row

OBJECT_KIND: Final = "space/object"
_DESTINATION: Final = {"destinationPath": required(TEXT)}


def _space(call: Call) -> Row:
    return call.lookup("space", call.target.ids[0])


def _clean(path: str) -> str:
    """The path without outer slashes; refuses steps upwards, which no storage has."""
    steps = [step for step in path.split("/") if step]
    if any(step in (".", "..") for step in steps):
        raise bad_request('"path" must not contain "." or ".."')
    return "/".join(steps)


def _asked_path(call: Call) -> str:
    path = _clean(call.target.tail)
    if not path:
        raise bad_request('"path" is required')
    return path


def _objects(call: Call, space: Row) -> dict[str, Row]:
    """The stored paths that have content, in order."""
    rows = call.world.store.rows(call.owner, OBJECT_KIND, space.id).values()
    present = {row.body["path"]: row for row in rows if call.world.blobs.get(row.id) is not None}
    return dict(sorted(present.items()))


def _object_at(call: Call, space: Row, path: str) -> Row:
    found = _objects(call, space).get(path)
    if found is None:
        raise ApiError(404)
    return found


def _make_object(call: Call, space: Row, path: str) -> Row:
    for row in call.world.store.rows(call.owner, OBJECT_KIND, space.id).values():
        if row.body["path"] == path:
            return row
    return call.world.store.add(call.owner, OBJECT_KIND, {"path": path}, parent=space.id)


async def list_storage(call: Call) -> Answer:
    """What is in a folder; everything below it with `recursive`."""
    folder = _clean(call.target.tail)
    head = f"{folder}/" if folder else ""
    is_recursive = call.query.get("recursive", "").lower() in ("true", "1")
    items: dict[str, JsonObject] = {}
    for path, row in _objects(call, _space(call)).items():
        if not path.startswith(head):
            continue
        name, slash, _ = path[len(head) :].partition("/")
        if slash and not is_recursive:
            items[head + name] = {"path": head + name, "isDirectory": True}
            continue
        blob = call.world.blobs.get(row.id)
        size = blob.size_bytes if blob is not None else 0
        items[path] = {
            "id": row.id,
            "path": path,
            "size": size,
            "updatedAt": row.updated,
            "isDirectory": False,
        }
    return json_answer({"items": list(items.values())})


async def upload(call: Call) -> Answer:
    """Bring the content of a path."""
    space, path = _space(call), _asked_path(call)
    brought = await receive_upload(call)
    row = _make_object(call, space, path)
    return upload_answer(call, row.id, brought, {"id": row.id, "path": path})


async def download(call: Call) -> Answer:
    """The content of a path."""
    row = _object_at(call, _space(call), _asked_path(call))
    return download_answer(call, row.id, {"id": row.id})


async def delete(call: Call) -> Answer:
    """Remove a path; with `recursive`, everything below it."""
    check_body({"recursive": FLAG}, call.body)
    path = _asked_path(call)
    is_recursive = bool(call.body.get("recursive"))
    doomed = [
        row
        for found, row in _objects(call, _space(call)).items()
        if found == path or (is_recursive and found.startswith(f"{path}/"))
    ]
    if not doomed:
        raise ApiError(404)
    for row in doomed:
        call.world.store.remove(row)
    return json_answer({"path": path})


async def copy(call: Call) -> Answer:
    """The same content at a second path."""
    source, _, path = _transferred(call)
    return json_answer({"id": source.id, "path": path})


async def move(call: Call) -> Answer:
    """The content at another path."""
    source, destination, path = _transferred(call)
    if destination.id != source.id:
        call.world.store.remove(source)
    return json_answer({"id": destination.id, "path": path})


def _transferred(call: Call) -> tuple[Row, Row, str]:
    check_body(_DESTINATION, call.body)
    space = _space(call)
    source, path = _object_at(call, space, _asked_path(call)), _clean(call.body["destinationPath"])
    blob = call.world.blobs.get(source.id)
    if blob is None or not path:
        raise bad_request('"destinationPath" is required')
    destination = _make_object(call, space, path)
    if destination.id != source.id:
        call.world.blobs.put_bytes(destination.id, blob.read(), blob.content_type, blob.name)
    return source, destination, path


ROUTES: Final[Routes] = {
    ("space/storage", False, "list"): list_storage,
    ("space/storage", False, "upload"): upload,
    ("space/storage", False, "download"): download,
    ("space/storage", False, "delete"): delete,
    ("space/storage", False, "copy"): copy,
    ("space/storage", False, "move"): move,
}

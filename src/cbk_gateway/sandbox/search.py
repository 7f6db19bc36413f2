"""Search over records and memories, by shared words, and the files attached to datasets.

A score is the share of the searched words that a text holds; no index, no vectors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from cbk_gateway.sandbox.answers import Answer, JsonObject, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.lists import list_answer
from cbk_gateway.sandbox.query import read_page
from cbk_gateway.sandbox.schema import FLAG, OBJECT, Field, Fields, check_body, choice, ref
from cbk_gateway.sandbox.store import Row
from cbk_gateway.sandbox.work import synced_later

_TEXT: Final = Field("string", required=True, nullable=False, min_length=1)
_SEARCH: Final[Fields] = {"search": _TEXT}
_SEARCH_DATASET: Final[Fields] = {"search": _TEXT, "filter": OBJECT}
_SEARCH_MEMORY: Final[Fields] = {"search": _TEXT, "contactId": ref("contact"), "botId": ref("bot")}
_ATTACHMENT: Final = "dataset/attachment"
_WORD: Final = re.compile(r"\w+")
_COMPARE: Final = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")


def score(wanted: str, text: str) -> float:
    """How much of the searched words a text holds, from 0 to 1."""
    words = {word.lower() for word in _WORD.findall(wanted)}
    held = {word.lower() for word in _WORD.findall(text)}
    return len(words & held) / len(words) if words else 0.0


def fits(meta: Mapping[str, object], conditions: Mapping[str, object]) -> bool:
    """Whether the metadata meets all conditions: plain values, or one comparison each."""
    return all(_meets(meta.get(name), condition) for name, condition in conditions.items())


def _meets(value: object, condition: object) -> bool:
    if not isinstance(condition, dict):
        return value == condition
    for sign, bound in condition.items():
        if sign == "$eq" and value != bound:
            return False
        if sign == "$ne" and value == bound:
            return False
        if sign in _COMPARE[2:] and not _compares(value, sign, bound):
            return False
    return True


def _compares(value: object, sign: str, bound: object) -> bool:
    if not isinstance(value, int | float) or not isinstance(bound, int | float):
        return False
    return {"$gt": value > bound, "$gte": value >= bound, "$lt": value < bound, "$lte": value <= bound}[sign]


def _found(rows: Iterable[Row], wanted: str) -> list[tuple[float, Row]]:
    scored = [(score(wanted, str(row.body.get("text") or "")), row) for row in rows]
    return sorted(((points, row) for points, row in scored if points > 0), key=lambda pair: -pair[0])


def _excerpt(row: Row) -> JsonObject:
    return {name: row.view[name] for name in ("id", "text", "source", "meta") if name in row.view}


async def search_dataset(call: Call) -> Answer:
    """The records of a dataset that share words with the search, best first."""
    check_body(_SEARCH_DATASET, call.body)
    dataset = call.item()
    conditions = call.body.get("filter") or {}
    rows = call.world.store.rows(call.owner, "dataset/record", dataset.id).values()
    fitting = [row for row in rows if fits(row.body.get("meta") or {}, conditions)]
    records = [{**_excerpt(row), "score": points} for points, row in _found(fitting, call.body["search"])]
    most = int(dataset.body.get("searchMaxRecords") or 10)
    return json_answer({"id": dataset.id, "records": records[:most]})


async def search_memory(call: Call) -> Answer:
    """The account's memories that share words with the search."""
    check_body(_SEARCH_MEMORY, call.body)
    picked = {name: call.body[name] for name in ("contactId", "botId") if call.body.get(name)}
    return _memories(call, call.resolve(_SEARCH_MEMORY, picked))


async def search_memory_of(call: Call) -> Answer:
    """The memories of one contact or bot that share words with the search."""
    check_body(_SEARCH, call.body)
    parent = call.parent()
    return _memories(call, {f"{parent.kind}Id": parent.id})


def _memories(call: Call, picked: JsonObject) -> Answer:
    rows = call.world.store.rows(call.owner, "memory").values()
    fitting = [row for row in rows if all(row.body.get(name) == value for name, value in picked.items())]
    return json_answer({"items": [_excerpt(row) for _, row in _found(fitting, call.body["search"])]})


def _attachments(call: Call, dataset: Row) -> dict[str, Row]:
    rows = call.world.store.rows(call.owner, _ATTACHMENT, dataset.id).values()
    return {row.body["fileId"]: row for row in rows if row.body.get("fileId")}


async def list_dataset_files(call: Call) -> Answer:
    """The files attached to a dataset."""
    dataset = call.parent()
    store = call.world.store
    files = {file_id: store.get(file_id) for file_id in _attachments(call, dataset)}
    rows = {file_id: row for file_id, row in files.items() if row is not None}
    return list_answer(call.accept, rows, read_page(call.query, {}, ascending=False))


async def attach(call: Call) -> Answer:
    """Attach a file to a dataset; once is enough."""
    check_body({"type": choice("source")}, call.body)
    dataset, file = call.parent(), call.lookup("file", call.target.ids[-1])
    if file.id not in _attachments(call, dataset):
        call.world.store.add(call.owner, _ATTACHMENT, {"fileId": file.id}, parent=dataset.id)
    return json_answer({"id": file.id})


async def detach(call: Call) -> Answer:
    """Detach a file, and remove the records that came from it where asked."""
    check_body({"deleteRecords": FLAG}, call.body)
    dataset, file = call.parent(), call.lookup("file", call.target.ids[-1])
    store = call.world.store
    attachment = _attachments(call, dataset).get(file.id)
    if attachment is not None:
        store.remove(attachment)
    if call.body.get("deleteRecords"):
        for row in list(store.rows(call.owner, "dataset/record", dataset.id).values()):
            if row.body.get("source") == file.id:
                store.remove(row)
    return json_answer({"id": file.id})


async def sync_file(call: Call) -> Answer:
    """Turn the lines of an attached file into records, later."""
    check_body({}, call.body, open_ended=True)
    dataset, file = call.parent(), call.lookup("file", call.target.ids[-1])
    world, owner = call.world, call.owner

    def finish() -> None:
        blob = world.blobs.get(file.id)
        if blob is None or world.store.get(dataset.id) is None:
            return
        for line in blob.read().decode("utf-8", "replace").splitlines():
            if line.strip():
                values = {"text": line.strip(), "source": file.id}
                world.store.add(owner, "dataset/record", values, parent=dataset.id)

    synced_later(call, finish)
    return json_answer({"id": file.id})


ROUTES: Final[Routes] = {
    ("dataset", True, "search"): search_dataset,
    ("memory", False, "search"): search_memory,
    ("bot/memory", False, "search"): search_memory_of,
    ("contact/memory", False, "search"): search_memory_of,
    ("dataset/file", False, "list"): list_dataset_files,
    ("dataset/file", True, "attach"): attach,
    ("dataset/file", True, "detach"): detach,
    ("dataset/file", True, "sync"): sync_file,
}

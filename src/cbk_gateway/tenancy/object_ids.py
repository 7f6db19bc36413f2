"""Which ids a request and a list speak of: the pure half of object ownership.

Ids stand in the path, in `...Id` members of queries and bodies, and as `id` of a list's items. What is known
about them is `ownership.py`'s business; what the answer to a write names comes from outside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

import orjson

from cbk_gateway.operation import Operation

MAX_BODY_IDS: Final = 1000
"""Ids of one body that are looked at; a body with more is refused where ids matter."""

_WHOLE_ACCOUNT: Final = frozenset(
    {"audit/log", "blueprint/resource", "event/log", "graphql", "partner/user", "platform/report", "team"}
    | {"usage", "user", "partner/user/context", "partner/user/session", "partner/user/token"}
    | {"user/context", "user/session", "user/token"}
)
"""Types that show or change the whole account, whoever made what in it."""

_CREATES: Final = frozenset({"create", "clone", "ensure", "import", "upload", "upsert", "attach"})
_LISTS: Final = frozenset({"list", "search", "export"})
_ID_MEMBER: Final = re.compile(r"(?:^id|Id)s?$")
_MODEL_SELECTOR: Final = re.compile(r"\bid=([^/,\s]+)")
_NOT_OBJECTS: Final = frozenset({"path", "attachmentId", "tokenId", "sessionId"})
_SHARED_NAMES: Final = frozenset({"channel"})


@dataclass(frozen=True, slots=True)
class PathIds:
    """The ids of a path. `top` is the outermost one or None; `below` are the ids nested in it."""

    top: str | None
    below: tuple[str, ...]


def path_ids(operation: Operation) -> PathIds:
    """The object ids of a path: names of stored files and the like are left out."""
    if not operation.route.known:
        # Where ids stand in an unknown path is unknown: the first part is taken for the top one.
        return PathIds(operation.ids[0] if operation.ids else None, operation.ids[1:])
    found = [
        identifier
        for name, identifier in zip(operation.route.params, operation.ids, strict=False)
        if name not in _NOT_OBJECTS
    ]
    return PathIds(found[0] if found else None, tuple(found[1:]))


def reaches_whole_account(operation: Operation) -> bool:
    """Whether an operation shows or changes objects of the account without naming them."""
    return operation.resource in _WHOLE_ACCOUNT


def is_public(operation: Operation) -> bool:
    """Whether an operation is about nobody's objects: the platform's catalogue, the API's description."""
    return operation.resource == "spec" or operation.resource.startswith("platform/")


def is_claimed_by_use(operation: Operation) -> bool:
    """Whether the id is a name that clients make up, so that the first to use it owns it."""
    return operation.resource in _SHARED_NAMES


def creates(operation: Operation) -> bool:
    """Whether the ids in the answer are of objects that this operation made or found for the tenant."""
    return operation.is_write and operation.scope_action in _CREATES


def shows_many(operation: Operation) -> bool:
    """Whether the answer holds objects that were not named: its items have to be filtered."""
    return operation.scope_action in _LISTS and not is_public(operation)


def is_nested(operation: Operation) -> bool:
    """Whether what is listed or made lies below an object named in the path."""
    return path_ids(operation).top is not None


def query_ids(query: str) -> frozenset[str]:
    """Ids that a query names, in members such as `botId` or `botIds`, comma lists included.

    A cursor is not one: it names the last item of a page, which may have been filtered out of it.
    """
    if "Id" not in query and "id" not in query:
        return frozenset()
    found: set[str] = set()
    for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=1000):
        if _ID_MEMBER.search(name.rstrip("[]")):
            found.update(part for part in value.split(",") if part)
    return frozenset(found)


def body_ids(body: bytes) -> frozenset[str] | None:
    """Ids that a JSON body names at any depth, none if it is not JSON; None when they are too many."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return frozenset()
    found: set[str] = set()
    for identifier in _named_ids(document):
        found.add(identifier)
        if len(found) > MAX_BODY_IDS:
            return None
    return frozenset(found)


def listed_ids(body: bytes) -> tuple[str, ...] | None:
    """Ids of the items of a list, JSON or JSONL; None when the body is neither."""
    documents = _documents(body)
    if documents is None:
        return None
    found: list[str] = []
    for document in documents:
        found.extend(_item_ids(document))
    return tuple(found)


def kept_items(body: bytes, keeps: Callable[[str | None], bool]) -> bytes | None:
    """A list's body with only the items that `keeps` says of their id; None when it is no list of ours.

    The cursor stays: the API goes on from it, whatever was left out of the page.
    """
    documents = _documents(body)
    if documents is None:
        return None
    if len(documents) == 1 and _items_member(documents[0]) is not None:
        return orjson.dumps(_kept_page(documents[0], keeps))
    lines = [orjson.dumps(one) for one in documents if _keeps_event(one, keeps)]
    return b"".join(line + b"\n" for line in lines)


def _documents(body: bytes) -> list[dict[str, object]] | None:
    try:
        whole = orjson.loads(body)
        parts = [whole]
    except orjson.JSONDecodeError:
        try:
            parts = [orjson.loads(line) for line in body.splitlines() if line.strip()]
        except orjson.JSONDecodeError:
            return None
    return parts if all(isinstance(part, dict) for part in parts) else None


def _items_member(document: Mapping[str, object]) -> str | None:
    return next((name for name in ("items", "records") if isinstance(document.get(name), list)), None)


def _item_ids(document: Mapping[str, object]) -> Iterator[str]:
    member = _items_member(document)
    items = document[member] if member is not None else [document.get("data")]
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and isinstance(item.get("id"), str):
            yield item["id"]


def _kept_page(document: dict[str, object], keeps: Callable[[str | None], bool]) -> dict[str, object]:
    member = _items_member(document)
    items = document.get(member) if member is not None else None
    if member is None or not isinstance(items, list):
        return document
    return {**document, member: [item for item in items if keeps(_id_of(item))]}


def _keeps_event(document: Mapping[str, object], keeps: Callable[[str | None], bool]) -> bool:
    return document.get("type") != "item" or keeps(_id_of(document.get("data")))


def _id_of(item: object) -> str | None:
    identifier = item.get("id") if isinstance(item, dict) else None
    return identifier if isinstance(identifier, str) else None


def _named_ids(document: object) -> Iterator[str]:
    # A stack, not recursion: depth is the sender's choice.
    stack: list[tuple[str, object]] = [("", document)]
    while stack:
        name, value = stack.pop()
        if isinstance(value, dict):
            stack.extend((str(key), member) for key, member in value.items())
        elif isinstance(value, list):
            stack.extend((name, member) for member in value)
        elif isinstance(value, str) and value:
            if _ID_MEMBER.search(name):
                yield value
            elif name == "model":
                yield from _MODEL_SELECTOR.findall(value)


def unique(identifiers: Iterable[str]) -> tuple[str, ...]:
    """Each id once, in order."""
    return tuple(dict.fromkeys(identifiers))

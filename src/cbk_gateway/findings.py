"""What the upstream's own views say of a write whose answer was lost: done, not done, or not to be told.

Pure. Whoever asks here has fetched the object, or the newest page of the list, and knows when the lost
attempt began. Said is `done` only of what fits in every field that was sent, and `not done` only where
nothing could be it in disguise: references are resolved, secrets hidden and texts trimmed by the API, so a
field that merely looks different proves little. A create that bears a tag is told by the tag alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

import orjson

from cbk_gateway.audit import tag as tags
from cbk_gateway.errors import Refusal
from cbk_gateway.operation import Effect, Operation, understand

PAGE: Final = 50
"""How many of the newest objects are looked at."""

_LONGEST_CERTAIN_TEXT: Final = 200
_REFERENCE_SIGNS: Final = ("@", "(")
_MASK: Final = "********"
"""What the API shows in place of a secret."""


class Finding(StrEnum):
    """What became of the lost write."""

    DONE = "done"
    NOT_DONE = "not_done"
    NOT_KNOWN = "not_known"


class Likeness(StrEnum):
    """Whether an object is the one that a body describes."""

    SAME = "same"
    DIFFERENT = "different"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A finding, and the id of the object it is about when there is one."""

    finding: Finding
    identifier: str | None = None


_NOT_KNOWN: Final = Verdict(Finding.NOT_KNOWN)
_NOT_DONE: Final = Verdict(Finding.NOT_DONE)


def view_of(operation: Operation, tag: str | None = None) -> Operation | None:
    """The read that shows what a write did; None where the grammar has none. `tag` is a create's, if any."""
    action = {"create": "list", "update": "fetch", "delete": "fetch"}.get(operation.route.action)
    if action is None or not operation.route.known:
        return None
    path = operation.path.removesuffix(f"/{operation.route.action}")
    listed = tags.query_for(tag) if tag is not None else f"order=desc&take={PAGE}"
    query = f"?{listed}" if action == "list" else ""
    try:
        view = understand("GET", f"/api/v1{path}/{action}{query}")
    except Refusal:
        return None
    return view if view.route.known and view.effect is Effect.READ and view.action == action else None


def on_update(status: int, view: Mapping[str, Any] | None, sent: Mapping[str, Any]) -> Verdict:
    """Judge an update by the object as it is now.

    What is not seen to be done may be done again: an update sets the same fields to the same values.
    """
    if status != 200 or view is None:
        return _NOT_DONE if status == 404 else _NOT_KNOWN
    identifier = view.get("id")
    if likeness(sent, view) is Likeness.SAME and isinstance(identifier, str):
        return Verdict(Finding.DONE, identifier)
    return _NOT_DONE


def on_delete(status: int, identifier: str) -> Verdict:
    """Judge a delete by whether the object is still there.

    An alias or a name may have stood for something that only the lost answer named.
    """
    if status == 200:
        return _NOT_DONE
    if status != 404 or identifier.startswith(_REFERENCE_SIGNS):
        return _NOT_KNOWN
    return Verdict(Finding.DONE, identifier)


def on_create(
    page: Sequence[Any], sent: Mapping[str, Any], since_ms: float, known: Collection[str]
) -> Verdict:
    """Judge a create by the newest objects of its type.

    Args:
        page: At most `PAGE` items, newest first.
        sent: The body.
        since_ms: When the lost attempt began at the earliest, by the upstream's clock.
        known: Ids that answered creates gave: those objects are somebody's already.
    """
    items = [item for item in page if isinstance(item, dict) and isinstance(item.get("id"), str)]
    times = [item.get("createdAt") for item in items]
    if len(items) != len(page) or not all(isinstance(one, int) for one in times):
        return _NOT_KNOWN
    if times != sorted(times, key=lambda one: one or 0, reverse=True):
        return _NOT_KNOWN
    recent = [item for item in items if item["createdAt"] >= since_ms]
    if len(recent) >= PAGE:
        # There may be more of them on the next page.
        return _NOT_KNOWN
    fresh = [item for item in recent if item["id"] not in known]
    looks = [likeness(sent, item) for item in fresh]
    if Likeness.UNCLEAR in looks or looks.count(Likeness.SAME) > 1:
        return _NOT_KNOWN
    if Likeness.SAME in looks:
        return Verdict(Finding.DONE, fresh[looks.index(Likeness.SAME)]["id"])
    return _NOT_DONE


def on_tagged(page: Sequence[Any], tag: str) -> Verdict:
    """Judge a create by what the list shows when it is asked for the create's tag, the oldest first.

    A copy of the object may bear its tag too, but is younger.
    """
    found = tags.bearers(page, tag)
    if found:
        return Verdict(Finding.DONE, found[0])
    # Anything else on the page means that the list does not look at the tag.
    return _NOT_KNOWN if page else _NOT_DONE


def likeness(sent: Mapping[str, Any], view: Mapping[str, Any]) -> Likeness:
    """Compare all fields of a body with an object; a body without fields is like nothing in particular."""
    found = Likeness.SAME if sent else Likeness.UNCLEAR
    for name, value in sent.items():
        if name in view and type(view[name]) is type(value) and view[name] == value:
            continue
        if name == "meta" and isinstance(value, dict) and isinstance(view.get(name), dict):
            kept = tags.without(view[name])
            if kept == value:
                continue
            if any(_is_opaque(one) and kept.get(key) != one for key, one in value.items()):
                return Likeness.DIFFERENT
        if _is_telling(name, value) and _is_telling(name, view.get(name)):
            return Likeness.DIFFERENT
        found = Likeness.UNCLEAR
    return found


def answer_of(identifier: str) -> bytes:
    """What the API answers to a create, an update or a delete."""
    return orjson.dumps({"id": identifier})


def document_of(body: bytes) -> dict[str, Any] | None:
    """A JSON object, or None."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def upstream_clock_ms(headers: Sequence[tuple[str, str]]) -> int | None:
    """The upstream's time, at the earliest, when it wrote an answer: its `Date` (RFC 9110 section 6.6.1)."""
    text = next((value for name, value in headers if name.lower() == "date"), None)
    if text is None:
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except ValueError:
        return None


def _is_opaque(value: object) -> bool:
    """Whether the API keeps such a value of a `meta`, which it does not look into, as it came."""
    return isinstance(value, bool | int | float) or (isinstance(value, str) and bool(value))


def _is_telling(name: str, value: object) -> bool:
    """Whether the API stores and shows such a value as it came, so that another one means another object."""
    if isinstance(value, bool | int | float):
        return True
    if not isinstance(value, str) or not value or value.strip() != value or value == _MASK:
        return False
    return (
        len(value) <= _LONGEST_CERTAIN_TEXT
        and not name.lower().endswith("id")
        and not value.startswith(_REFERENCE_SIGNS)
    )

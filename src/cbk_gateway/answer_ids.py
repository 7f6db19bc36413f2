"""Which ids the answer to a write names: of a whole body at once, of a long one or a stream while it passes.

Pure: bytes in, ids out, memory bounded by what is put in, nothing raised. Only the places count where the API
names what it made: the `id` of an object, of its `items` or `records`, of an event's `data`. What lies deeper
is about other objects. Whose they are is not known here, and how many of them a record shows is not decided
here.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

MOST_HELD: Final = 2000
"""Ids of one answer that are held on to once it is noted who owns them all: a stream may name any number."""

_LONGEST_ID_BYTES: Final = 512
_PLACES: Final = frozenset({("id",), ("items", "", "id"), ("records", "", "id")})
_EVENT_PLACES: Final = _PLACES | {("data", "id")}
_DEEPEST: Final = 3
_SIGN: Final = re.compile(rb'["{}\[\]:,]')
_QUOTE_OR_ESCAPE: Final = re.compile(rb'["\\]')


def named_in(body: bytes) -> tuple[str, ...]:
    """All ids a whole answer names: its own, and those of its items."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ()
    if not isinstance(document, dict):
        return ()
    found = [document.get("id")]
    for member in ("items", "records"):
        items = document.get(member)
        if isinstance(items, list):
            found += [item.get("id") for item in items if isinstance(item, dict)]
    return tuple(one for one in found if isinstance(one, str) and one)


class PassingIds:
    """Finds ids in JSON that is too long to hold, or in the JSON of events, split anywhere.

    An id is found with the last byte of its text, so a piece that is held back until its ids are noted tells
    nobody an id before.

    Args:
        is_stream: Whether the body is one event after the other (JSONL, or `data` lines of SSE).
    """

    __slots__ = ("_depth", "_is_escaped", "_is_value", "_places", "_steps", "_text", "_word")

    def __init__(self, *, is_stream: bool) -> None:
        self._places = _EVENT_PLACES if is_stream else _PLACES
        self._depth = 0
        # The member or array ("") at each depth that can matter.
        self._steps: list[str] = []
        self._text: bytearray | None = None
        self._is_escaped = False
        self._is_value = False
        self._word = b""

    def feed(self, piece: bytes) -> tuple[str, ...]:
        """The ids that end within the next bytes."""
        found: list[str] = []
        at = 0
        while at < len(piece):
            if self._text is not None:
                at = self._read_text(piece, at, found)
            elif self._depth == 0:
                # Between documents there are line ends, names of events and comments.
                begin = piece.find(b"{", at)
                if begin < 0:
                    break
                at = begin + 1
                self._open("")
            else:
                sign = _SIGN.search(piece, at)
                if sign is None:
                    break
                at = sign.end()
                self._take(sign[0])
        return tuple(found)

    def _take(self, sign: bytes) -> None:
        if sign == b'"':
            self._text = bytearray()
        elif sign == b":":
            self._is_value = True
            if self._depth <= _DEEPEST:
                self._steps[-1] = self._word.decode(errors="replace")
        elif sign in {b"{", b"["}:
            self._open("")
        else:
            self._is_value = False
            if sign != b",":
                self._close()

    def _open(self, step: str) -> None:
        self._is_value = False
        self._depth += 1
        if self._depth <= _DEEPEST:
            self._steps.append(step)

    def _close(self) -> None:
        if self._depth <= _DEEPEST:
            self._steps.pop()
        self._depth -= 1

    def _read_text(self, piece: bytes, at: int, found: list[str]) -> int:
        """Go on in a text; returns where it, or the piece, ends."""
        text = self._text if self._text is not None else bytearray()
        while at < len(piece):
            if self._is_escaped:
                self._is_escaped = False
                end = at + 1
            else:
                sign = _QUOTE_OR_ESCAPE.search(piece, at)
                end = sign.start() if sign is not None else len(piece)
                if sign is not None and end == at:
                    if sign[0] == b'"':
                        self._end_text(bytes(text), found)
                        return at + 1
                    self._is_escaped = True
                    end = at + 1
            if len(text) <= _LONGEST_ID_BYTES:
                text += piece[at : min(end, at + _LONGEST_ID_BYTES + 1)]
            at = end
        return at

    def _end_text(self, text: bytes, found: list[str]) -> None:
        self._text = None
        is_value, self._is_value = self._is_value, False
        if not is_value:
            self._word = text
        elif (
            self._depth <= _DEEPEST and len(text) <= _LONGEST_ID_BYTES and tuple(self._steps) in self._places
        ):
            identifier = _unquoted(text)
            if identifier:
                found.append(identifier)


def _unquoted(text: bytes) -> str:
    try:
        return str(orjson.loads(b'"' + text + b'"'))
    except orjson.JSONDecodeError:
        return ""

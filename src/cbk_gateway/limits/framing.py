"""Where one JSON text of a body ends and the next begins: whole bodies, lines, server-sent events.

Incremental, with bounded memory: a text longer than the bound is skipped to its end and gives nothing. What
the texts mean is `usage.py`'s business. Event streams are split as the HTML standard says (section 9.2.6):
lines end in CR, LF or both, an empty line ends an event.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

MAX_TEXT_BYTES: Final = 1 << 20
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")

Frame = tuple[str, bytes]
"""The event's name, "" when it has none, and a JSON text."""


class Frames(Protocol):
    """Splits a body."""

    def feed(self, chunk: bytes) -> list[Frame]:
        """The texts that end within the next bytes."""

    def rest(self) -> list[Frame]:
        """What would be a text if the body ended here; nothing is consumed."""


class WholeFrame:
    """The whole body is one text."""

    __slots__ = ("_body", "_is_too_long")

    def __init__(self) -> None:
        self._body = bytearray()
        self._is_too_long = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """Nothing ends before the end."""
        if len(self._body) + len(chunk) > MAX_TEXT_BYTES:
            self._is_too_long = True
            self._body.clear()
        if not self._is_too_long:
            self._body += chunk
        return []

    def rest(self) -> list[Frame]:
        """The body."""
        return [("", bytes(self._body))] if self._body else []


class _Lines:
    """Complete lines out of chunks; a line over the bound is dropped."""

    __slots__ = ("_is_skipping", "_parts", "_size", "_was_cr")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._is_skipping = False
        self._was_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        if self._was_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._was_cr = False
        if not chunk:
            return []
        self._was_cr = chunk.endswith(b"\r")
        pieces = _LINE_END.split(chunk)
        lines = []
        for piece in pieces[:-1]:
            self._add(piece)
            lines.append(self._take())
        self._add(pieces[-1])
        return lines

    def pending(self) -> bytes:
        return b"".join(self._parts)

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_TEXT_BYTES:
            self._is_skipping = True
            self._parts.clear()
        elif piece and not self._is_skipping:
            self._parts.append(piece)

    def _take(self) -> bytes:
        line = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._is_skipping = False
        return line


class LineFrames:
    """One text per line."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines = _Lines()

    def feed(self, chunk: bytes) -> list[Frame]:
        """The lines that end here."""
        return [("", line) for line in self._lines.feed(chunk) if line]

    def rest(self) -> list[Frame]:
        """A last line without a line end."""
        line = self._lines.pending()
        return [("", line)] if line else []


class EventFrames:
    """One text per server-sent event: its data lines together."""

    __slots__ = ("_event", "_lines", "_parts", "_size")

    def __init__(self) -> None:
        self._lines = _Lines()
        self._event = ""
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Frame]:
        """The events that end here."""
        frames: list[Frame] = []
        for line in self._lines.feed(chunk):
            if line:
                self._field(line)
                continue
            if self._parts:
                frames.append((self._event, b"\n".join(self._parts)))
            self._event, self._parts, self._size = "", [], 0
        return frames

    def rest(self) -> list[Frame]:
        """An event whose empty line has not come: the standard drops it, a meter does not."""
        parts, pending = list(self._parts), self._lines.pending()
        if pending.startswith(b"data:"):
            parts.append(_value(pending))
        return [(self._event, b"\n".join(parts))] if parts else []

    def _field(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            value = _value(line)
            self._size += len(value)
            if self._size <= MAX_TEXT_BYTES:
                self._parts.append(value)
        elif line.startswith(b"event:"):
            self._event = _value(line).decode(errors="replace")[:64]


def _value(line: bytes) -> bytes:
    """A field's value, without the one space after the colon."""
    value = line.partition(b":")[2]
    return value[1:] if value.startswith(b" ") else value

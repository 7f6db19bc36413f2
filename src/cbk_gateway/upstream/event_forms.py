"""The forms of event streams: where they may be cut, what closes them, how to say ping and error.

Pure functions and small state machines on bytes; waiting, and what to do when a stream breaks, is
`streams.py`'s business. JSONL is one object per line; events are as in the HTML standard, section 9.2
(server-sent events).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import orjson

from cbk_gateway.operation import Dialect, Operation

_EVENT_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LONGEST_EVENT_END: Final = 4
_TYPE_FIRST: Final = re.compile(rb'\s*\{\s*"type"\s*:\s*"([^"\\]{1,64})"')
_MAX_PARSED_BYTES: Final = 65_536


class StreamForm(StrEnum):
    """How events are written."""

    JSONL = "jsonl"
    SSE = "sse"


class Terminal(StrEnum):
    """What must have come for a stream to be whole."""

    NONE = "none"  # lists and subscriptions end when they end
    RESULT = "result"  # a `result` event, or an `error` event
    DONE = "done"  # the OpenAI dialect's `[DONE]`


# The actions whose event stream closes with `result`: the conversation engine's own.
_ENGINE_ACTIONS: Final = frozenset({"complete", "send", "receive"})


def terminal_for(operation: Operation) -> Terminal:
    """What must come before the end of this operation's stream."""
    route = operation.route
    if route.dialect is Dialect.OPENAI:
        return Terminal.DONE
    if route.runs_model and route.resource == "conversation" and route.action in _ENGINE_ACTIONS:
        return Terminal.RESULT
    return Terminal.NONE


class Cutter:
    """Cuts a stream at the ends of lines (JSONL) or events (SSE), holding back what is incomplete.

    Attributes:
        is_between: Whether everything handed out so far ends at a border, so that something of our own
            may be put in.
    """

    __slots__ = ("_form", "_held", "_max_bytes", "is_between")

    def __init__(self, form: StreamForm, max_bytes: int) -> None:
        self._form = form
        self._max_bytes = max_bytes
        self._held = bytearray()
        self.is_between = True

    @property
    def held_bytes(self) -> int:
        """Bytes held back."""
        return len(self._held)

    def feed(self, piece: bytes) -> bytes:
        """Take bytes; returns those that may be written now, possibly none."""
        held = self._held
        if not held and (self._form is StreamForm.JSONL and piece.endswith(b"\n")):
            self.is_between = True
            return piece
        searched_from = max(0, len(held) - _LONGEST_EVENT_END)
        held += piece
        end = self._last_border(searched_from)
        if end == 0 and len(held) > self._max_bytes:
            end = _last_character_end(held)
            self.is_between = False
        elif end:
            self.is_between = True
        ready = bytes(held[:end])
        del held[:end]
        return ready

    def rest(self) -> bytes:
        """What is left when the stream has ended properly; a last line need not have a line end."""
        rest = bytes(self._held)
        self._held.clear()
        return rest

    def _last_border(self, searched_from: int) -> int:
        """Index behind the last complete line or event, 0 when there is none."""
        if self._form is StreamForm.JSONL:
            return self._held.rfind(b"\n") + 1
        end = 0
        for border in _EVENT_END.finditer(self._held, searched_from):
            end = border.end()
        return end


class TerminalWatch:
    """Looks for the event that closes a stream."""

    __slots__ = ("_form", "_terminal", "is_seen")

    def __init__(self, form: StreamForm, terminal: Terminal) -> None:
        self._form = form
        self._terminal = terminal
        self.is_seen = terminal is Terminal.NONE

    def look(self, ready: bytes) -> None:
        """Look at complete lines or events."""
        if self.is_seen:
            return
        if self._terminal is Terminal.DONE:
            self.is_seen = b"[DONE]" in ready and any(
                line.removeprefix(b"data:").strip() == b"[DONE]" for line in ready.splitlines()
            )
        elif b'"result"' in ready or b'"error"' in ready or b"event:" in ready:
            self.is_seen = any(_closes(line) for line in ready.splitlines())


def _closes(line: bytes) -> bool:
    """Whether a JSONL line, or a line of an SSE event, is of type `result` or `error`."""
    if line.startswith(b"event:"):
        return line[6:].strip() in {b"result", b"error"}
    first = _TYPE_FIRST.match(line)
    if first is not None:
        return first[1] in {b"result", b"error"}
    if not line.startswith(b"{") or len(line) > _MAX_PARSED_BYTES:
        return False
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return isinstance(event, dict) and event.get("type") in {"result", "error"}


def heartbeat(form: StreamForm) -> bytes:
    """A sign of life in the stream's own form. Never a blank JSONL line: the Node SDK throws on it."""
    return b'{"type":"ping","data":{}}\n' if form is StreamForm.JSONL else b": ping\n\n"


def error_event(form: StreamForm, terminal: Terminal, message: str, code: str) -> bytes:
    """The last event of a broken stream, in its own form and dialect."""
    if form is StreamForm.JSONL:
        return orjson.dumps({"type": "error", "data": {"message": message, "code": code}}) + b"\n"
    if terminal is Terminal.DONE:
        fault = {"message": message, "type": "server_error", "code": code}
        return b"data: " + orjson.dumps({"error": fault}) + b"\n\n"
    return b"event: error\ndata: " + orjson.dumps({"message": message, "code": code}) + b"\n\n"


def _last_character_end(held: bytearray) -> int:
    """Index behind the last complete UTF-8 character (RFC 3629), for cutting inside a giant line."""
    size = len(held)
    for back in range(1, min(4, size) + 1):
        octet = held[size - back]
        if octet & 0xC0 != 0x80:
            needed = 1 if octet < 0x80 else 2 if octet < 0xE0 else 3 if octet < 0xF0 else 4
            return size if needed <= back else size - back
    return size

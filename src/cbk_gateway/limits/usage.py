"""What an answer spent, and whether a 200 was a failure, read from its body while it passes by.

Pure and incremental: bytes in, numbers out, memory bounded, nothing ever raised. The body itself is never
kept longer than needed, changed or delayed. Which field counts:

- JSON: `usage.token`, one total.
- JSONL and event streams: `usage.token` of the `result` event, which is final and cumulative. While there is
  none (a stream that was cut off), the highest of the `sendResult`/`receiveResult` events, whose objects
  run on, or the sum of the `usage` events (one per model call), whichever is more.
- OpenAI dialect: `usage.total_tokens`, or prompt and completion tokens together.

`token` events carry pieces of text in `data.token`, and some answers a credential of that name: neither is
a number of tokens, and neither is ever kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from cbk_gateway.limits.framing import EventFrames, Frames, LineFrames, WholeFrame
from cbk_gateway.operation import Dialect

_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_UNNAMED: Final = "UNKNOWN"
_RUNNING: Final = frozenset({"sendResult", "receiveResult"})
# A body with one of these is an object of the API, whatever else it is called.
_SIGNS_OF_SUCCESS: Final = frozenset({"items", "id", "records", "usage", "data", "result", "messages", "url"})
_JSON_LINES: Final = frozenset({"application/jsonl", "application/x-ndjson", "application/x-jsonlines"})


@dataclass(slots=True)
class _Tally:
    """Token counts met so far, by how much they are worth."""

    final: int | None = None
    running: int | None = None
    calls: int | None = None
    failure: str | None = field(default=None)

    @property
    def tokens(self) -> int | None:
        if self.final is not None:
            return self.final
        seen = [one for one in (self.running, self.calls) if one is not None]
        return max(seen, default=None)


class UsageReader:
    """Reads one answer.

    Args:
        content_type: The answer's Content-Type; parameters are ignored. Of an unknown type nothing is read.
        dialect: Whose shapes to expect.
    """

    __slots__ = ("_dialect", "_frames", "_is_stream", "_rest", "_tally")

    def __init__(self, content_type: str, dialect: Dialect = Dialect.REST) -> None:
        media = content_type.partition(";")[0].strip().lower()
        self._dialect = dialect
        self._tally = _Tally()
        self._rest: _Tally | None = None
        self._is_stream = True
        self._frames: Frames | None = None
        if media == "text/event-stream":
            self._frames = EventFrames()
        elif media in _JSON_LINES:
            self._frames = LineFrames()
        elif media == "application/json":
            self._frames, self._is_stream = WholeFrame(), False

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes of the body, split anywhere."""
        if self._frames is None:
            return
        self._rest = None
        for event, text in self._frames.feed(chunk):
            _read(self._tally, event, text, self._dialect, is_stream=self._is_stream)

    @property
    def tokens(self) -> int | None:
        """Tokens spent as far as the body says until now; None when it does not."""
        return self._with_rest().tokens

    @property
    def failure(self) -> str | None:
        """The error code, if the body so far says that the request failed in spite of its status."""
        return self._with_rest().failure

    def _with_rest(self) -> _Tally:
        """The tally with what has no end yet: a last line without a line end, a whole JSON body."""
        if self._rest is None:
            tally = self._tally
            self._rest = _Tally(tally.final, tally.running, tally.calls, tally.failure)
            if self._frames is not None:
                for event, text in self._frames.rest():
                    _read(self._rest, event, text, self._dialect, is_stream=self._is_stream)
        return self._rest


def _read(tally: _Tally, event: str, text: bytes, dialect: Dialect, *, is_stream: bool) -> None:
    """Enter one JSON text. The search for words spares the parsing of nearly all of a stream's events."""
    if is_stream and b'"usage"' not in text and b'"error' not in text and event not in {"error", "usage"}:
        return
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    if not isinstance(document, dict):
        return
    if not is_stream or dialect is Dialect.OPENAI:
        _enter_document(tally, document, dialect)
        return
    kind = event or document.get("type")
    inner = document.get("data") if "type" in document and "data" in document else document
    if isinstance(kind, str) and isinstance(inner, dict):
        _enter_event(tally, kind, inner)
    elif not kind:
        _enter_document(tally, document, dialect)


def _enter_document(tally: _Tally, document: dict[str, Any], dialect: Dialect) -> None:
    total = _total(document.get("usage"))
    if total is not None:
        tally.final = total
    if tally.failure is None:
        tally.failure = _failure(document, dialect)


def _enter_event(tally: _Tally, kind: str, payload: dict[str, Any]) -> None:
    if kind == "error":
        tally.failure = tally.failure or _code(payload.get("code"))
    elif kind == "usage":
        spent = _count(payload.get("inputTokensUsed")), _count(payload.get("outputTokensUsed"))
        if spent != (None, None):
            tally.calls = (tally.calls or 0) + (spent[0] or 0) + (spent[1] or 0)
    elif kind == "result":
        total = _total(payload.get("usage"))
        tally.final = total if total is not None else tally.final
    elif kind in _RUNNING:
        total = _total(payload.get("usage"))
        tally.running = max(total, tally.running or 0) if total is not None else tally.running


def _total(usage: object) -> int | None:
    """The total of a `usage` object in either dialect."""
    if not isinstance(usage, dict):
        return None
    for name in ("token", "total_tokens"):
        total = _count(usage.get(name))
        if total is not None:
            return total
    parts = [_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
    known = [one for one in parts if one is not None]
    return sum(known) if known else None


def _count(value: object) -> int | None:
    """A plausible number of tokens. Fractions, which weighted prices may give, are rounded up."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        return None
    whole = int(value)
    return whole if whole == value else whole + 1


def _failure(document: dict[str, Any], dialect: Dialect) -> str | None:
    errors = document.get("errors")
    if dialect is Dialect.GRAPHQL:
        return _graphql_code(errors[0]) if isinstance(errors, list) and errors else None
    if not _SIGNS_OF_SUCCESS.isdisjoint(document) and dialect is Dialect.REST:
        return None
    error = document.get("error")
    if isinstance(error, dict):
        return _code(error.get("code") or error.get("type"))
    if isinstance(document.get("message"), str) and isinstance(document.get("code"), str):
        return _code(document["code"])
    return None


def _graphql_code(error: object) -> str:
    extensions = error.get("extensions") if isinstance(error, dict) else None
    return _code(extensions.get("code") if isinstance(extensions, dict) else None)


def _code(value: object) -> str:
    """An error code fit for records: a short word, whatever the upstream wrote."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) is not None else _UNNAMED

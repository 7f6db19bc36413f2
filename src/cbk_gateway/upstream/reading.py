"""The reading half of a connection: bytes in, one final head and one body out, or a refusal.

Wraps the parser in C. It knows no socket and no clock; every bound and every strictness on answers is
here and in `framing.py`. The parser already refuses bare LF, folded lines, white space before colons,
control characters, doubled or overflowing lengths, and a length beside a transfer coding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httptools

from cbk_gateway.upstream.body import Body
from cbk_gateway.upstream.framing import BadFraming, BodyEnd, body_end
from cbk_gateway.upstream.outcomes import Cause

MAX_INTERIM_ANSWERS: Final = 8
_VERSIONS: Final = ("1.1", "1.0")
Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an answer may cost: bytes of head, number of fields, bytes held for a slow reader."""

    head_bytes: int
    fields: int
    buffer_bytes: int


class Unacceptable(Exception):  # noqa: N818 - a verdict on what arrived, not a malfunction of ours
    """What arrived is not an answer we take."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail


class AnswerReader:
    """Reads the answers of one connection, one after the other.

    Args:
        bounds: See `Bounds`.
        on_head: Called with status and fields of the final head; returns the body that takes the pieces.

    Attributes:
        has_begun: Whether any byte of an answer to this request has come.
        is_done: Whether the answer is complete.
        may_stay: Whether the connection may serve again, as far as the answer says.
        end: What ends the body, once the head is known.
    """

    __slots__ = (
        "_body", "_bounds", "_fields", "_has_head", "_in_head", "_interim", "_method", "_on_head",
        "_overhead", "_parser", "_refused", "end", "has_begun", "is_done", "may_stay",
    )  # fmt: skip

    def __init__(self, bounds: Bounds, on_head: Callable[[int, Fields], Body]) -> None:
        self._bounds = bounds
        self._on_head = on_head
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._body: Body | None = None
        self._fields: Fields = []
        self._method = ""
        self._interim = self._overhead = 0
        self._in_head = self._has_head = False
        self._refused: Unacceptable | None = None
        self.end = BodyEnd.AT_ONCE
        self.has_begun = self.is_done = self.may_stay = False

    def expect(self, method: str) -> None:
        """Make ready for the answer to a request of this method."""
        self._method = method
        self._interim = self._overhead = 0
        self._in_head = self._has_head = False
        self.has_begun = self.is_done = self.may_stay = False

    def feed(self, octets: bytes) -> None:
        """Take bytes from the wire.

        Raises:
            Unacceptable: They are no answer, or one beyond the bounds. Bytes behind a complete answer
                do not harm it; they only end the connection.
        """
        if self._parser is None:
            raise Unacceptable(Cause.CLOSED, "bytes after the end")
        self.has_begun = True
        self._overhead += len(octets)
        try:
            self._parser.feed_data(octets)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self.may_stay = False
            if not self.is_done:
                raise self._refused or Unacceptable(Cause.PROTOCOL, str(exc)) from None
        if self._overhead > self._bounds.head_bytes and not self.is_done:
            raise Unacceptable(Cause.HEAD_TOO_LARGE, "too many bytes that are not body")

    def close(self) -> None:
        """Let go of the parser, which holds on to this object's methods."""
        self._parser = None
        self._body = None

    # Called by the parser.

    def on_message_begin(self) -> None:
        """The first byte of an answer, interim or final."""
        if self.is_done:
            raise self._refusal(Cause.PROTOCOL, "bytes behind the end of the answer")
        self._in_head = True
        self._fields = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or a trailer, which is dropped (RFC 9110 section 6.5.1)."""
        if not self._in_head:
            return
        self._fields.append((name, value))
        if len(self._fields) > self._bounds.fields:
            raise self._refusal(Cause.HEAD_TOO_LARGE, "too many header fields")

    def on_headers_complete(self) -> None:
        """The end of a head."""
        self._in_head = False
        if self._parser is None:
            return
        if self._overhead > self._bounds.head_bytes:
            self._weigh_head()
        status = self._parser.get_status_code()
        if status < 200:
            self._interim += 1
            # The gateway never asks for another protocol, so nobody may switch to one.
            if status == 101 or self._interim > MAX_INTERIM_ANSWERS:
                raise self._refusal(Cause.PROTOCOL, f"an interim answer {status} too many")
            return
        try:
            self.end, _ = body_end(status, self._method, self._fields)
        except BadFraming as exc:
            raise self._refusal(Cause.PROTOCOL, str(exc)) from None
        self.may_stay = self._parser.should_keep_alive()
        if (not self.may_stay or self.end is BodyEnd.CHUNKED) and not self._speaks_our_version():
            raise self._refusal(Cause.PROTOCOL, "a version, or a coding in it, that we do not speak")
        self._has_head = True
        self._overhead = 0
        self._body = self._on_head(status, self._fields)
        if self._method == "HEAD":
            # The parser does not know of HEAD and would wait for a body: the connection ends here.
            self.is_done = True
            self.may_stay = False

    def on_body(self, piece: bytes) -> None:
        """Bytes of the body."""
        self._overhead = 0
        if self._body is not None and not self.is_done:
            self._body.feed(piece)

    def on_message_complete(self) -> None:
        """The end of an answer; an interim one is followed by another."""
        if self._has_head:
            self.is_done = True
            self._body = None

    def _weigh_head(self) -> None:
        """Refuse a large head; one read may also have brought body bytes, so count the fields alone."""
        size = sum(len(name) + len(value) + 4 for name, value in self._fields)
        if size > self._bounds.head_bytes:
            raise self._refusal(Cause.HEAD_TOO_LARGE, "the head is too large")

    def _speaks_our_version(self) -> bool:
        version = self._parser.get_http_version() if self._parser is not None else ""
        # RFC 9112 section 6.1: a transfer coding in HTTP/1.0 means a confused sender.
        return version in _VERSIONS and not (version == "1.0" and self.end is BodyEnd.CHUNKED)

    def _refusal(self, cause: Cause, detail: str) -> Unacceptable:
        self._refused = Unacceptable(cause, detail)
        return self._refused

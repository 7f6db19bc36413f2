"""A refusal prepared once: its bytes, with gaps for request id, timing and date.

Renders what `Exchange.refuse` would have the server send, for refusals that are given again and again. Pure;
whether one may be given is for `hotpath.py` and `hot_refusals.py` to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from cbk_gateway.errors import JSON_CONTENT_TYPE, Refusal
from cbk_gateway.exchange import SERVER
from cbk_gateway.prepared import Field, field_lines
from cbk_gateway.telemetry.request_id import ID_LENGTH
from cbk_gateway.telemetry.timing import ReadyTimings

# Any text of the alphabet of request ids that no message holds.
_PLACE: Final = "request-id.request-id.request-id"

_TIMINGS: Final = ReadyTimings()
_SILENT: Final = (b"",) * len(_TIMINGS.ready)


Pieces = tuple[bytes, bytes, bytes, bytes]
"""A refusal of one second: before its id, before its timing, before the id in its body, and after."""


class PreparedRefusal:
    """The bytes of a refusal around its gaps.

    Args:
        refusal: What is refused, and how.
        rates: Rate lines of what had been admitted, if anything had (`rate_lines`).
        origin: The CORS fields of its answer.
        shows_timing: Whether answers carry `Server-Timing`.

    Attributes:
        status: Its status.
        reason: Its reason word.
        body_bytes: Size of its body without the request id.
        timings: What it says of the time it took, by microseconds.
    """

    __slots__ = (
        "_after_id", "_after_timing", "_before_id", "_body_end", "_body_start", "_shows_timing",
        "body_bytes", "reason", "status", "timings",
    )  # fmt: skip

    def __init__(
        self, refusal: Refusal, rates: bytes, origin: Iterable[Field], *, shows_timing: bool
    ) -> None:
        status = HTTPStatus(refusal.status)
        self.status = refusal.status
        self.reason = refusal.reason
        self._shows_timing = shows_timing
        self.timings = _TIMINGS.ready if shows_timing else _SILENT
        own = [("Content-Type", JSON_CONTENT_TYPE), *refusal.headers.items()]
        self._before_id = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n{field_lines(own)}X-Request-Id: ".encode()
        )
        timing = "Server-Timing: " if shows_timing else ""
        self._after_id = f"\r\nServer: {SERVER}\r\n".encode() + rates + timing.encode()
        end_of_timing = "\r\n" if shows_timing else ""
        self._after_timing = f"{end_of_timing}{field_lines(origin)}Content-Length: ".encode()
        self._body_start, self._body_end = refusal.body(_PLACE).split(_PLACE.encode())
        self.body_bytes = len(self._body_start) + len(self._body_end)

    def answer(self, request_id: str, total_s: float, date: bytes) -> bytes:
        """The whole answer.

        Args:
            request_id: Of the request.
            total_s: Seconds it took.
            date: The `Date` field and the end of the head, each with its line end.
        """
        name = request_id.encode()
        first, second, third, fourth = self.pieces(date, len(name))
        return b"".join((first, name, second, self.timing(total_s), third, name, fourth))

    def pieces(self, date: bytes, id_length: int = ID_LENGTH) -> Pieces:
        """All that stays the same until the date turns over: what stands around id, timing and id again."""
        length = b"%d\r\n" % (self.body_bytes + id_length)
        third = self._after_timing + length + date + self._body_start
        return self._before_id, self._after_id, third, self._body_end

    def timing(self, total_s: float) -> bytes:
        """What it says of one giving; empty when it says nothing."""
        return _TIMINGS.of(total_s) if self._shows_timing else b""


class DateLine:
    """The `Date` field at the end of a head, made once a second."""

    __slots__ = ("_of", "_text")

    def __init__(self) -> None:
        self._of = 0
        self._text = b""

    def at(self, now: float) -> bytes:
        """The field (RFC 9110 section 6.6.1) and the empty line after it; `now` in epoch seconds."""
        second = int(now)
        if second != self._of:
            self._of = second
            self._text = f"Date: {formatdate(second, usegmt=True)}\r\n\r\n".encode()
        return self._text

"""An answer prepared once: its bytes, with gaps for what differs from one giving to the next.

Made from an answer that has gone out, so that what is repeated is what the full path said. Pure: text in,
text out. Whether an answer may be given again is `hotpath.py`'s question.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from cbk_gateway.telemetry.timing import ReadyTimings

# In the order in which they stand in every answer; "rates" stands for a group of fields.
GAPS: Final = ("age", "x-request-id", "rates", "cache-status", "server-timing", "date")
_HIT: Final = re.compile(r"(cbk-gateway; hit; ttl=)(\d+)")
_TIMING: Final = re.compile(r"total;dur=[\d.]+, gateway;dur=[\d.]+, cache;desc=hit")

_TIMINGS: Final = ReadyTimings("hit")
_SILENT: Final = (b"",) * len(_TIMINGS.ready)

Field = tuple[str, str]

Rendered = tuple[bytes, bytes, bytes, bytes]
"""An answer of one second: before its request id, before its rate fields, before its timing, and after."""


class PreparedHit:
    """The head of a cached answer in pieces, and its body."""

    __slots__ = ("_pieces", "_shows_timing", "body")

    def __init__(self, pieces: tuple[str, ...], body: bytes, *, shows_timing: bool) -> None:
        self._pieces = pieces
        self._shows_timing = shows_timing
        self.body = body

    @property
    def size_bytes(self) -> int:
        """Memory that its text takes, the body included."""
        return sum(map(len, self._pieces)) + len(self.body)

    def render(self, age_s: int, ttl_s: int, date: str) -> Rendered:
        """All that stays the same until one of these turns over, the body included."""
        first, second, third, fourth, fifth, sixth, last = self._pieces
        return (
            f"{first}{age_s}{second}".encode(),
            third.encode(),
            f"{fourth}{ttl_s}{fifth}".encode(),
            f"{sixth}{date}{last}".encode() + self.body,
        )

    @property
    def timings(self) -> tuple[bytes, ...]:
        """`timing` of 0, 1, 2 and so on microseconds."""
        return _TIMINGS.ready if self._shows_timing else _SILENT

    def timing(self, total_s: float) -> bytes:
        """What its `Server-Timing` field says of one giving; empty when it has none."""
        return _TIMINGS.of(total_s) if self._shows_timing else b""


def prepare(
    status_line: str, fields: Iterable[Field], body: bytes, rate_names: Collection[str]
) -> PreparedHit | None:
    """Prepare an answer for being given again.

    Args:
        status_line: Its first line, without the line end.
        fields: Its header fields in the order in which they were sent.
        body: Its body.
        rate_names: Names of its rate fields.

    Returns:
        None when the answer does not have the form of every plain cached answer: then it is not repeated.
    """
    rates = {name.lower() for name in rate_names}
    pieces: list[str] = []
    gaps: list[str] = []
    text = f"{status_line}\r\n"
    for name, value in fields:
        low = name.lower()
        if low in rates:
            if not gaps or gaps[-1] != "rates":
                _gap(pieces, gaps, text, "rates")
                text = ""
            continue
        if low == "cache-status":
            if gaps and gaps[-1] != "rates":
                _gap(pieces, gaps, text, "rates")
                text = ""
            said = _HIT.fullmatch(value)
            if said is None:
                return None
            _gap(pieces, gaps, f"{text}{name}: {said[1]}", "cache-status")
        elif low == "server-timing":
            if _TIMING.fullmatch(value) is None:
                return None
            _gap(pieces, gaps, f"{text}{name}: ", low)
        elif low in GAPS:
            if low == "date" and gaps and gaps[-1] != "server-timing":
                _gap(pieces, gaps, "", "server-timing")
            _gap(pieces, gaps, f"{text}{name}: ", low)
        else:
            text += f"{name}: {value}\r\n"
            continue
        text = "\r\n"
    shows_timing = "server-timing" in gaps and pieces[gaps.index("server-timing")] != ""
    if tuple(gaps) != GAPS:
        return None
    return PreparedHit((*pieces, f"{text}\r\n"), body, shows_timing=shows_timing)


def rate_lines(rates: Mapping[str, str]) -> bytes:
    """Rate fields as they stand in a head."""
    return field_lines(rates.items()).encode()


def field_lines(fields: Iterable[Field]) -> str:
    """Fields as they stand in a head, each with its line end."""
    return "".join([f"{name}: {value}\r\n" for name, value in fields])


def answer_head(status_line: str, fields: Iterable[Field]) -> bytes:
    """The head of an answer as the server writes it, for comparing."""
    return f"{status_line}\r\n{field_lines(fields)}\r\n".encode()


def _gap(pieces: list[str], gaps: list[str], text: str, name: str) -> None:
    pieces.append(text)
    gaps.append(name)

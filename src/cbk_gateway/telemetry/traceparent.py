"""W3C Trace Context (Recommendation, level 1): the `traceparent` and `tracestate` headers.

Pure: texts in, values out, randomness as an argument. Spans stand in `tracing.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from random import getrandbits
from struct import iter_unpack
from typing import Final

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_LONGEST_STATE: Final = 512  # section 3.3.1.5 asks for at least this much to be passed on
_SAMPLED: Final = 0x01
_UNSAMPLED: Final = b"00-%b-%b-00"
_AT_ONCE: Final = 64

current_trace_id: Final[ContextVar[str | None]] = ContextVar("cbk_gateway_trace_id", default=None)
"""The trace of the request being served in this task; log lines show it."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a request stands in a trace.

    Attributes:
        trace_id: 32 lower-case hex digits.
        span_id: 16 lower-case hex digits: the caller's span in what is received, ours in what is sent.
        is_sampled: Whether the caller records this trace.
        state: The `tracestate` to pass on, "" for none.
    """

    trace_id: str
    span_id: str
    is_sampled: bool
    state: str = ""

    def header(self) -> str:
        """The `traceparent` value, version 00 (section 3.2.2). Only the sampled flag is set."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"

    def child(self, span_id: str) -> TraceContext:
        """The same trace with another span as parent, for a call of ours."""
        return TraceContext(self.trace_id, span_id, self.is_sampled, self.state)


def parse_traceparent(header: str | None, state: str = "") -> TraceContext | None:
    """What the headers say, or None when `traceparent` is missing or invalid (section 3.2.2).

    Args:
        header: `traceparent` as received; with more than one, the caller passes None (section 4.3).
        state: `tracestate` as received, several joined by commas (section 3.3.1.1). Dropped when it is
            longer than 512 characters or holds anything but printable ASCII.

    Version ff is invalid. A higher version than 00 is read as 00 and may go on after the flags; 00 may not.
    """
    match = _TRACEPARENT.fullmatch(header) if header is not None else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if trace_id == "0" * 32 or span_id == "0" * 16:
        return None
    is_passable = len(state) <= _LONGEST_STATE and state.isascii() and state.isprintable()
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED), state if is_passable else "")


def _random_hex(size: int) -> str:
    """Random bytes in hex. Ids must not collide; they are no secrets (section 2.2.3 asks for no more)."""
    return f"{getrandbits(size * 8):0{size * 2}x}"


def new_span_id(draw: Callable[[int], str] = _random_hex) -> str:
    """A random span id that is not all zeros."""
    while True:
        span_id = draw(8)
        if span_id != "0" * 16:
            return span_id


ready_traceparents: Final[list[bytes]] = []
"""Headers of new, unsampled traces, made in advance; to be popped. When it is empty, `more_traceparents`."""

# Two processes must not use the same ones.
os.register_at_fork(after_in_child=ready_traceparents.clear)


def more_traceparents() -> list[bytes]:
    """Make more of them; `ready_traceparents` itself."""
    text = _random_hex(_AT_ONCE * 24)
    while "0" * 16 in text:
        # One of them might be all zeros.
        text = _random_hex(_AT_ONCE * 24)
    ready_traceparents.extend(map(_UNSAMPLED.__mod__, iter_unpack("32s16s", text.encode())))
    return ready_traceparents


def new_trace(*, is_sampled: bool, draw: Callable[[int], str] = _random_hex) -> TraceContext:
    """A trace that starts here."""
    while True:
        trace_id = draw(16)
        if trace_id != "0" * 32:
            return TraceContext(trace_id, new_span_id(draw), is_sampled)


def forwarded(received: TraceContext | None, draw: Callable[[int], str] = _random_hex) -> TraceContext:
    """The context to send upstream: the client's trace with a span of ours, or a new unsampled trace."""
    if received is None:
        return new_trace(is_sampled=False, draw=draw)
    return received.child(new_span_id(draw))

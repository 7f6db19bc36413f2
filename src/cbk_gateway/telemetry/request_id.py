"""The id of a request: taken from the client when it is harmless, made here otherwise.

It is in every answer, log line, audit record and exemplar, so it must be safe to print anywhere, unique
across gateways, and sortable by time.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import chain, repeat
from operator import add
from typing import Final

ID_LENGTH: Final = 29
"""Characters of an id that is made here."""

_COUNTS: Final = 1 << 24
_LOWS: Final = 1 << 8
_HARMLESS: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

current_request_id: Final[ContextVar[str | None]] = ContextVar("cbk_gateway_request_id", default=None)
"""The request being served in this task; log lines show it."""


def is_acceptable(text: str) -> bool:
    """Whether a client's id may be used: 1 to 64 letters, digits, dots, underscores and hyphens."""
    return _HARMLESS.fullmatch(text) is not None


class RequestIds:
    """Makes ids of 29 hex digits: milliseconds (11), a counter (6), the process (12).

    Ids of one process sort in the order in which they were made, even when the clock steps back; ids of
    several sort to the millisecond. The counter turns over after 16 million, long after its millisecond.

    Who needs very many takes them from `next`, and calls `look` whenever `until` has passed. All that make
    ids share one counter and the stamp that was read last, so their ids sort among one another.

    Args:
        clock_ns: Nanoseconds since the epoch.
        process: Twelve hex digits which no other process has.

    Attributes:
        next: Gives the next id, as bytes, of the millisecond that was looked at last. Not to be kept: it is
            another one after each look.
        until: When that millisecond ends, by the clock of those who look.
    """

    __slots__ = ("_clock_ns", "_latest_ms", "_process", "_tails", "next", "until")

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns, process: str | None = None) -> None:
        self._clock_ns = clock_ns
        self._process = process if process is not None else secrets.token_hex(6)
        self._latest_ms = 0
        self._tails = _tails_of(self._process)
        self.until = 0.0
        self._stamp()

    def make(self) -> str:
        """A new id."""
        now_ms = self._clock_ns() // 1_000_000
        if now_ms > self._latest_ms:
            self._latest_ms = now_ms
            self._stamp()
        return self.next().decode()

    def look(self, now: float) -> None:
        """Read what time it is; `now` in seconds, by a clock of the caller's that only grows."""
        now_ms, rest_ns = divmod(self._clock_ns(), 1_000_000)
        if now_ms > self._latest_ms:
            self._latest_ms = now_ms
            self._stamp()
        self.until = now + (1_000_000 - rest_ns) / 1e9

    def _stamp(self) -> None:
        # Put together in C: hot paths need one for each of their answers.
        stamp = f"{self._latest_ms:011x}".encode()
        self.next: Callable[[], bytes] = map(add, repeat(stamp), self._tails).__next__

    def accept(self, offered: str | None) -> str:
        """The client's `X-Request-Id` when it is acceptable, a new id otherwise."""
        if offered is not None and _HARMLESS.fullmatch(offered):
            return offered
        return self.make()

    def renew(self) -> None:
        """Take another process name, in a process that was forked off."""
        self._process = secrets.token_hex(6)
        self._tails = _tails_of(self._process)
        self._stamp()


def _tails_of(process: str) -> Iterator[bytes]:
    """Counter and process of all ids, without end; the counter begins with 1."""
    lows = tuple(f"{low:02x}{process}".encode() for low in range(_LOWS))
    highs = chain.from_iterable(repeat(range(_COUNTS // _LOWS)))
    tails = chain.from_iterable(map(add, repeat(f"{high:04x}".encode()), lows) for high in highs)
    next(tails)
    return tails


request_ids: Final = RequestIds()
"""The ids of this process."""
os.register_at_fork(after_in_child=request_ids.renew)


new_request_id: Final[Callable[[], str]] = request_ids.make
"""A new id, of this process. Bound once: every request needs one."""


def request_id_for(offered: str | None) -> str:
    """The id of a request whose client offered this `X-Request-Id` (None: it offered none)."""
    return request_ids.accept(offered)

"""The id of a request: taken from the client when it is harmless, made here otherwise.

It is in every answer, log line, audit record and exemplar, so it must be safe to print anywhere, unique
across gateways, and sortable by time.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

ID_LENGTH: Final = 29
"""Characters of an id that is made here."""

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

    Args:
        clock_ns: Nanoseconds since the epoch.
        process: Twelve hex digits which no other process has.
    """

    __slots__ = ("_clock_ns", "_count", "_latest_ms", "_process", "_stamp")

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns, process: str | None = None) -> None:
        self._clock_ns = clock_ns
        self._process = process if process is not None else secrets.token_hex(6)
        self._latest_ms = 0
        self._stamp = f"{0:011x}"
        self._count = 0

    def make(self) -> str:
        """A new id."""
        now_ms = self._clock_ns() // 1_000_000
        if now_ms > self._latest_ms:
            self._latest_ms = now_ms
            self._stamp = f"{now_ms:011x}"
        self._count = count = (self._count + 1) & 0xFFFFFF
        return f"{self._stamp}{count:06x}{self._process}"

    def accept(self, offered: str | None) -> str:
        """The client's `X-Request-Id` when it is acceptable, a new id otherwise."""
        if offered is not None and _HARMLESS.fullmatch(offered):
            return offered
        return self.make()

    def renew(self) -> None:
        """Take another process name, in a process that was forked off."""
        self._process = secrets.token_hex(6)


_ids: Final = RequestIds()
os.register_at_fork(after_in_child=_ids.renew)


new_request_id: Final[Callable[[], str]] = _ids.make
"""A new id, of this process. Bound once: every request needs one."""


def request_id_for(offered: str | None) -> str:
    """The id of a request whose client offered this `X-Request-Id` (None: it offered none)."""
    return _ids.accept(offered)

"""Which event streams are open, so that a revocation or a shutdown can end them.

Kept per worker. How a stream is told to end is its own event; who may not go on is asked of whoever
knows (identity, tenancy).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cbk_gateway.parties import Principal


@dataclass(slots=True, eq=False)
class OpenStream:
    """One open stream: for whom, and the event that ends it; `why` is the word of its ending."""

    principal: Principal
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""

    def end(self, why: str) -> None:
        """Ask the relay to tell the client and stop."""
        self.why = why
        self.ended.set()


class OpenStreams:
    """The streams of one worker."""

    def __init__(self) -> None:
        self._open: set[OpenStream] = set()

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def entered(self, principal: Principal) -> Iterator[OpenStream]:
        """A stream for as long as it is relayed."""
        stream = OpenStream(principal)
        self._open.add(stream)
        try:
            yield stream
        finally:
            self._open.discard(stream)

    def end_where(self, condemned: Callable[[Principal], bool], why: str) -> int:
        """End the streams whose principal may not go on; says how many."""
        ending = [stream for stream in self._open if condemned(stream.principal)]
        for stream in ending:
            stream.end(why)
        return len(ending)

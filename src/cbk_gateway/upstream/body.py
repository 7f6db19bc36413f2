"""The body of one answer between the connection that receives it and the reader that takes it.

Holds pieces up to a bound; beyond it the connection is asked not to read. Outlives the connection's
interest in it: a body that is complete may be read after its connection has gone on to other work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cbk_gateway.upstream.outcomes import UpstreamFault


class Body:
    """Pieces of an answer in order, then the end or a fault.

    Args:
        loop: The running loop.
        bound: Bytes held before `hold` is called.
        hold: Asks the connection to stop (True) or resume (False) reading.

    Attributes:
        is_complete: Whether it ended as it should.
        on_end: Called once when nothing more will come, for good or ill.
    """

    __slots__ = (
        "_bound",
        "_fault",
        "_hold",
        "_is_held",
        "_loop",
        "_pieces",
        "_size",
        "_waiter",
        "is_complete",
        "on_end",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, bound: int, hold: Callable[[bool], None]) -> None:
        self._loop = loop
        self._bound = bound
        self._hold = hold
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._fault: UpstreamFault | None = None
        self._is_held = False
        self.is_complete = False
        self.on_end: Callable[[], None] | None = None

    # The connection's side.

    def feed(self, piece: bytes) -> None:
        """Take a piece from the wire."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._bound and not self._is_held:
            self._is_held = True
            self._hold(True)
        if self._waiter is not None:
            self._wake()

    def finish(self) -> None:
        """The body has ended as it should."""
        self.is_complete = True
        self._end()

    def fail(self, fault: UpstreamFault) -> None:
        """The body has broken off; the reader gets what came before and then the fault."""
        self._fault = fault
        self._end()

    # The reader's side.

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come from the wire, for good or ill."""
        return self.is_complete or self._fault is not None

    @property
    def fault(self) -> UpstreamFault | None:
        """Why it broke off, if it did."""
        return self._fault

    def take(self) -> bytes:
        """What has arrived and was not taken yet; empty when nothing has."""
        pieces = self._pieces
        if not pieces:
            return b""
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        if self._is_held:
            self._is_held = False
            self._hold(False)
        return taken

    def interrupt(self) -> None:
        """Make a wait with a time bound that is under way return early."""
        self._wake()

    async def next(self, until: float | None = None) -> bytes | None:
        """The next bytes as soon as there are any; empty at the end, None when `until` came first.

        Args:
            until: Loop time at which to stop waiting; None waits for ever.

        Raises:
            UpstreamFault: The body broke off.
        """
        while not self._pieces:
            if self._fault is not None:
                raise self._fault
            if self.is_complete:
                return b""
            if not await self._arrival(until) and until is not None:
                return None
        return self.take()

    async def _arrival(self, until: float | None) -> bool:
        """Wait for a change; False when `until` came first."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiter = waiter
        timer = None
        if until is not None:
            timer = self._loop.call_at(until, self._wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        return bool(self._pieces) or self.has_ended

    def _end(self) -> None:
        self._is_held = False
        self._wake()
        told, self.on_end = self.on_end, None
        if told is not None:
            told()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __repr__(self) -> str:
        state = "complete" if self.is_complete else "broken" if self._fault is not None else "open"
        return f"<Body {state}, {self._size} bytes waiting>"

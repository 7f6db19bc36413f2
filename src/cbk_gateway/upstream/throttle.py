"""How much of a request the transport takes: its flow control, as something to wait for.

Knows no exchange.
"""

from __future__ import annotations

import asyncio


class ThrottledProtocol(asyncio.Protocol):
    """A protocol whose sender can wait until the transport's buffer has room. Base of `Connection`."""

    __slots__ = ("_can_write", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._can_write: asyncio.Future[None] | None = None

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        if self._can_write is None:
            self._can_write = self._loop.create_future()

    def resume_writing(self) -> None:
        """The transport's buffer has room."""
        waiter, self._can_write = self._can_write, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

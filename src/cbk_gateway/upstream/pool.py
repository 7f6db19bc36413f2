"""The connections to the upstream: which one a request gets, when they end, and the clock that times them.

Last used, first reused: the rest grow old and are closed before the upstream does it. Choosing is
synchronous; only opening a connection waits. One sweep of all connections at a fixed beat stands in for
a timer per request, so deadlines are kept to within a beat.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import Final

from cbk_gateway.upstream.connection import Connection
from cbk_gateway.upstream.dialing import Dialer
from cbk_gateway.upstream.observer import UpstreamObserver
from cbk_gateway.upstream.options import Origin, UpstreamOptions
from cbk_gateway.upstream.outcomes import Cause, Outcome, UpstreamFault
from cbk_gateway.upstream.phase import Phase
from cbk_gateway.upstream.reading import Bounds

BEAT_S: Final = 0.1
_IDLE: Final = Phase.IDLE


class Pool:
    """Open connections to one origin."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        origin: Origin,
        options: UpstreamOptions,
        context: ssl.SSLContext | None,
        observer: UpstreamObserver,
    ) -> None:
        self._loop = loop
        self._options = options
        self._observer = observer
        self._idle_s, self._max_age_s = options.idle_s, options.max_age_s
        self._secure = context is not None
        self._bounds = Bounds(options.max_head_bytes, options.max_fields, options.buffer_bytes)
        self._dialer = Dialer(loop, origin, options, context, self._make)
        # A dict as an ordered set: the last one in is the first one out, and any may be taken out.
        self._idle: dict[Connection, None] = {}
        self._all: set[Connection] = set()
        self._opening = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._beat: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._emptied = asyncio.Event()

    @property
    def open_count(self) -> int:
        """Connections open now, idle ones included."""
        return len(self._all)

    @property
    def idle_count(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    def at_hand(self) -> Connection | None:
        """An open connection, or None. Whether the upstream has just closed it, the request will show."""
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            if connection.phase is _IDLE and self._loop.time() - connection.idle_since < self._idle_s:
                return connection
            connection.abort()
        return None

    def reuse(self) -> Connection | None:
        """An open connection that the upstream has not closed, or None."""
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            now = self._loop.time()
            if now - connection.idle_since < self._idle_s and connection.is_reusable():
                return connection
            connection.abort()
        return None

    async def open(self, until: float) -> tuple[Connection, float]:
        """A new connection and the seconds it took; waits for a place when the pool is full.

        Args:
            until: Loop time at which to give up.

        Raises:
            UpstreamFault: No connection; the outcome is `not_sent`.
        """
        started = self._loop.time()
        try:
            async with asyncio.timeout_at(until):
                connection = await self._place_and_dial()
        except TimeoutError:
            full = len(self._all) + self._opening >= self._options.pool_size
            fault = UpstreamFault(
                Cause.POOL_FULL if full else Cause.CONNECT, Outcome.NOT_SENT, "no connection in time"
            )
            self._observer.connection_failed(fault.cause)
            raise fault from None
        except UpstreamFault as exc:
            self._observer.connection_failed(exc.cause)
            raise
        took = self._loop.time() - started
        self._observer.connection_opened(took)
        return connection, took

    def retire(self) -> None:
        """Close the idle connections; busy ones go on."""
        for connection in list(self._idle):
            connection.abort()
        self._idle.clear()

    async def close(self) -> None:
        """Close every connection and stop the clock."""
        self._is_closed = True
        self._emptied.clear()
        self._idle.clear()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(UpstreamFault(Cause.STOPPED, Outcome.NOT_SENT))
        self._waiters.clear()
        for connection in list(self._all):
            connection.abort()
        await self._dialer.book.close()
        if self._all:
            # Transports report their end in a later turn of the loop.
            await self._emptied.wait()
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    async def _place_and_dial(self) -> Connection:
        while len(self._all) + self._opening >= self._options.pool_size:
            idle = self.reuse()
            if idle is not None:
                return idle
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()
                raise
        if self._is_closed:
            raise UpstreamFault(Cause.STOPPED, Outcome.NOT_SENT)
        self._opening += 1
        try:
            return await self._dialer.dial()
        finally:
            self._opening -= 1

    def _make(self, sock: socket.socket) -> Connection:
        return Connection(
            self._loop,
            sock,
            secure=self._secure,
            bounds=self._bounds,
            on_free=self._take_back,
            on_lost=self._forget,
            on_made=self._note,
        )

    def _note(self, connection: Connection) -> None:
        self._all.add(connection)
        if self._beat is None and not self._is_closed:
            self._beat = self._loop.call_later(BEAT_S, self._sweep)

    def _take_back(self, connection: Connection) -> None:
        if self._is_closed or connection.idle_since - connection.born_at >= self._max_age_s:
            connection.abort()
            return
        self._idle[connection] = None
        if self._waiters:
            self._wake_one()

    def _forget(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        if connection in self._all:
            self._all.discard(connection)
            self._observer.connection_closed()
            if not self._all:
                self._emptied.set()
        if self._waiters:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _sweep(self) -> None:
        """Fail overdue exchanges, close connections idle for too long."""
        now = self._loop.time()
        for connection in list(self._all):
            if now >= connection.deadline:
                connection.check_deadline(now)
            elif connection.phase is _IDLE and now - connection.idle_since >= self._idle_s:
                self._idle.pop(connection, None)
                connection.abort()
        self._beat = self._loop.call_later(BEAT_S, self._sweep) if self._all else None

    def __repr__(self) -> str:
        return f"<Pool {self.idle_count} idle of {self.open_count}, {len(self._waiters)} waiting>"

"""One connection on which everything that is asked in one turn of the event loop leaves together.

The client library serves one command per connection at a time and spends more on it than the server does.
Here commands are written one behind the other, all of a turn in one piece, and replies are matched by their
order, as the protocol promises (RESP3, "pipelining"). The library still makes the connection: addresses,
TLS, passwords, Sentinel and the greeting are its business, and so is whatever is not asked per request.

Nothing is ever sent twice, and what is asked first is done first. A caller waits for `patience_s`; a reply
that comes later, or whose caller has left, is read and dropped. A command that has not left when its caller
gives up is not sent at all, but one whose caller was cancelled is: it may give something back. A connection
on which nothing came for longer is ended, and the next command opens another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from cbk_gateway.store.fault import StoreFault, StoreTrouble, why_of
from cbk_gateway.store.health import Health
from cbk_gateway.store.observer import StoreObserver

Words = tuple[str | bytes | int | float, ...]
Reply = Any
"""bytes, int, None, a list of these, or a `hiredis.ReplyError`, which is given and not raised."""

_NOTHING: Final = object()
# When this process itself was late, the answer may lie ready: so long is looked before blaming the store.
_SECOND_LOOK_S: Final = 0.001
# A primary that was deposed says so; the next connection asks Sentinel who it is now.
_DEPOSED: Final = ("READONLY", "MASTERDOWN")


class _Link(asyncio.Protocol):
    """One connection of a lane: the loop's end of one that was given up must not end the next."""

    def __init__(self, lane: Lane, transport: asyncio.Transport, connection: AbstractConnection) -> None:
        self._lane = lane
        self.transport = transport
        self.connection = connection
        # Found here by the transport, so that replies take no detour.
        self.data_received = lane.received  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        self._lane.lost(self, exc)

    def end(self) -> None:
        """Close it at once."""
        self.transport.abort()
        # The streams that the library made are closed with the transport; only it must know.
        self.connection._reader = self.connection._writer = None  # noqa: SLF001 - see Lane._connect


class Lane:
    """A connection of one's own to one server, made when first needed.

    Args:
        connection: Makes an unconnected connection of the library.
        health: Told of answers and failures.
        observer: Told how many commands left in one piece.
        on_lost: Called when the connection broke, or none could be made.
        shown_url: The store's name in faults.
        patience_s: Longest wait for a reply.
        connect_timeout_s: Longest time to make a connection; and how much longer than `patience_s` a
            silent one is kept.
    """

    def __init__(
        self,
        connection: Callable[[], AbstractConnection],
        health: Health,
        observer: StoreObserver,
        on_lost: Callable[[], None],
        shown_url: str,
        *,
        patience_s: float,
        connect_timeout_s: float,
    ) -> None:
        self._make_connection = connection
        self._health = health
        self._observer = observer
        self._on_lost = on_lost
        self._shown_url = shown_url
        self._patience_s = patience_s
        self._connect_timeout_s = connect_timeout_s
        self._loop = asyncio.get_running_loop()
        # Packed commands that have not left, with their callers and, where no connection was there to take
        # them, the time by which they must have been answered.
        self._unsent: list[tuple[bytes, asyncio.Future[Reply], float]] = []
        self._sent: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._link: _Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_second_look = False
        self._is_closed = False

    def ask(self, words: Words) -> asyncio.Future[Reply]:
        """Send a command with the others of this turn.

        Args:
            words: The command and its arguments.

        Returns:
            Its reply to come; or a `StoreFault`, when none came in time or the connection broke.
        """
        packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type] # typed as of one word only
        future: asyncio.Future[Reply] = self._loop.create_future()
        if not self._unsent or (self._link is None and self._timer is None):
            self._loop.call_soon(self._flush)
        until = 0.0 if self._link is not None else self._loop.time() + self._patience_s
        self._unsent.append((packed, future, until))
        return future

    async def close(self, patience_s: float) -> None:
        """Wait a while for what was asked, then end the connection. Nothing may be asked afterwards."""
        waiting = [one for _, one, _ in self._unsent] + [one for one, _ in self._sent]
        waiting = [one for one in waiting if not one.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=patience_s)
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        if self._timer is not None:
            self._timer.cancel()
        self._drop("the store is closed", StoreTrouble.CLOSED)
        self._fail_unsent("the store is closed", StoreTrouble.CLOSED)

    # The connection.

    def received(self, data: bytes) -> None:
        """Hand replies to those who asked."""
        reader, sent, is_new = self._reader, self._sent, False
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _NOTHING:
                kind = type(reply)
                if kind is hiredis.PushNotification:
                    continue
                future, _ = sent.popleft()
                if not future.done():
                    # A reply that nobody waits for any more says nothing of how the store fares.
                    is_new = True
                    future.set_result(reply)
                if kind is hiredis.ReplyError and str(reply).startswith(_DEPOSED):
                    self._abandon()
                    break
        except (hiredis.ProtocolError, IndexError):
            # What is not a reply to a question of ours makes all that follows meaningless.
            self._abandon()
        if is_new:
            self._health.succeeded()

    def lost(self, link: _Link, exc: Exception | None) -> None:
        """Fail what was under way. What has not left goes out on the next connection."""
        if link is not self._link:
            return
        had_callers = any(not future.done() for future, _ in self._sent)
        self._drop(f"the store at {self._shown_url} is away: {exc or 'it closed the connection'}")
        if had_callers:
            self._health.failed(type(exc).__name__ if exc is not None else "ConnectionResetError")
        self._on_lost()
        if self._unsent:
            self._loop.call_soon(self._flush)

    def _drop(self, why: str, trouble: StoreTrouble = StoreTrouble.AWAY) -> None:
        """Have no connection any more, and tell those who wait for it."""
        link, self._link = self._link, None
        if link is not None:
            link.end()
        sent, self._sent = self._sent, deque()
        for future, _ in sent:
            if not future.done():
                future.set_exception(StoreFault(why, trouble))

    def _abandon(self) -> None:
        """End a connection that is of no use any more."""
        if self._link is not None:
            self.lost(self._link, None)

    async def _connect(self) -> None:
        connection = self._make_connection()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]  # theirs
        except BaseException as exc:
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
            self._connecting = None
            if not isinstance(exc, (RedisError, OSError)):  # a TimeoutError is an OSError
                raise
            self._health.failed(type(exc).__name__)
            self._fail_unsent(f"the store at {self._shown_url} is away: {why_of(exc)}", StoreTrouble.AWAY)
            self._on_lost()
            return
        # The library hands its connections out to one command at a time and has no public way to give the
        # transport away; the greeting is over, so nothing of its streams is needed any more.
        transport = cast("asyncio.Transport", connection._writer.transport)  # type: ignore[union-attr]  # noqa: SLF001
        self._connecting = None
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._link = _Link(self, transport, connection)
        transport.set_protocol(self._link)
        if transport.is_closing():
            # Whom the loop told of it, or will, cannot be known.
            self._abandon()
        self._flush()

    def _fail_unsent(self, why: str, trouble: StoreTrouble) -> None:
        unsent, self._unsent = self._unsent, []
        for _, future, _ in unsent:
            if not future.done():
                future.set_exception(StoreFault(why, trouble))

    # Sending.

    def _flush(self) -> None:
        """Send what was asked in this turn, in one piece."""
        if not self._unsent or self._is_closed:
            return
        link = self._link
        now = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._patience_s, self._look)
        if link is None:
            # Asked of a connection that broke before this turn ended.
            late = now + self._patience_s
            self._unsent = [(packed, future, due or late) for packed, future, due in self._unsent]
            if self._connecting is None:
                self._connecting = self._loop.create_task(self._connect())
        else:
            unsent, self._unsent = self._unsent, []
            until = now + self._patience_s
            pieces = []
            for packed, future, due in unsent:
                if _is_given_up(future):
                    continue
                pieces.append(packed)
                self._sent.append((future, due or until))
            if pieces:
                link.transport.write(b"".join(pieces))
                self._observer.sent(len(pieces))

    # Waiting.

    def _look(self) -> None:
        """Give up what is late. Runs when the earliest may be, not for each."""
        self._timer = None
        now = self._loop.time()
        due = self._due_at()
        if due is None:
            return
        if due <= now:
            if not self._is_second_look:
                self._is_second_look = True
                self._timer = self._loop.call_at(now + _SECOND_LOOK_S, self._look)
                return
            self._expire(now)
            due = self._due_at()
        self._is_second_look = False
        if due is not None:
            self._timer = self._loop.call_at(max(due, now + _SECOND_LOOK_S), self._look)

    def _due_at(self) -> float | None:
        """When to look next: for the first caller who waits, or for a connection that is silent."""
        waiting = min(
            next((due for future, due in self._sent if not future.done()), float("inf")),
            next((due for _, future, due in self._unsent if due and not future.done()), float("inf")),
        )
        if self._sent:
            waiting = min(waiting, self._sent[0][1] + self._connect_timeout_s)
        return waiting if waiting < float("inf") else None

    def _expire(self, now: float) -> None:
        if self._sent and self._sent[0][1] + self._connect_timeout_s <= now:
            self._abandon()
        late = [future for future, due in self._sent if due <= now]
        late += [future for _, future, due in self._unsent if due and due <= now]
        for future in late:
            if not future.done():
                why = f"the store at {self._shown_url} did not answer within {self._patience_s * 1000:.0f} ms"
                future.set_exception(StoreFault(why, StoreTrouble.TIMEOUT))
                self._health.failed("no answer in time")
        self._unsent = [one for one in self._unsent if not _is_given_up(one[1])]

    def __repr__(self) -> str:
        state = "connected" if self._link is not None else "unconnected"
        return f"<Lane {self._shown_url} {state} {len(self._sent)} sent, {len(self._unsent)} unsent>"


def _is_given_up(future: asyncio.Future[Reply]) -> bool:
    """Whether its caller waited too long; one that was cancelled wants it done all the same."""
    return future.done() and not future.cancelled()

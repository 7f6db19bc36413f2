"""One HTTP/1.1 connection to the upstream: one exchange at a time, and exact knowledge of its fate.

A protocol on an asyncio transport. It never decides on retries and knows nothing of tenants; it sends
bytes, hands over the answer that `reading.py` finds, and when it fails says what is known of the
outcome. A connection goes back to the pool only when both sides have finished cleanly.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Callable
from typing import Final

from cbk_gateway.upstream.body import Body
from cbk_gateway.upstream.delivery import (
    Fate,
    delivered_or_queued_bytes,
    fate_behind,
    has_news,
    rest_of_answer,
)
from cbk_gateway.upstream.framing import BodyEnd
from cbk_gateway.upstream.options import Timeouts
from cbk_gateway.upstream.outcomes import Cause, Outcome, StreamBroken, UpstreamFault
from cbk_gateway.upstream.phase import Head, Phase
from cbk_gateway.upstream.reading import AnswerReader, Bounds, Fields, Unacceptable
from cbk_gateway.upstream.swift import Swift
from cbk_gateway.upstream.throttle import ThrottledProtocol
from cbk_gateway.upstream.trust import said_farewell

_SALVAGE_BYTES: Final = 1 << 20
_FIRST_FATE_WAIT_S: Final = 0.001
_LONGEST_FATE_WAIT_S: Final = 0.3
# Named here once, for what is done on every call.
_IDLE: Final = Phase.IDLE
_AWAITING: Final = Phase.AWAITING
_FIRST_BYTE_TIMEOUT: Final = Cause.FIRST_BYTE_TIMEOUT
_NEVER: Final = math.inf


class Connection(ThrottledProtocol):
    """A connection that serves exchanges in turn.

    Args:
        loop: The running loop.
        sock: The connected socket under the transport; only looked at, never written to.
        secure: Whether TLS lies between.
        bounds: See `Bounds`.
        on_free: Called when an exchange ended and another may begin.
        on_made: Called once, when the connection, TLS included, is up.
        on_lost: Called once, when the connection is gone.

    Attributes:
        phase: Where it stands.
        served: Exchanges completed.
        born_at: Loop time of its making.
        idle_since: Loop time of the last completion.
        deadline: Loop time at which it fails for want of progress; the pool checks it now and then,
            which costs less than a timer per request.
        deadline_cause: Why it fails then.
        is_request_done: Whether the request has been sent whole.
    """

    __slots__ = (
        "_body", "_bounds", "_current", "_eof", "_is_fresh", "_mark", "_on_free", "_on_lost", "_on_made",
        "_pump", "_reader", "_secure", "_sock", "_swift", "_timeouts", "_total_at", "_transport", "_waiter",
        "_written", "born_at", "deadline", "deadline_cause", "idle_since", "is_request_done", "phase",
        "served",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        secure: bool,
        bounds: Bounds,
        on_free: Callable[[Connection], None],
        on_made: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        super().__init__(loop)
        self._sock = sock
        self._secure = secure
        self._bounds = bounds
        self._on_free = on_free
        self._on_made = on_made
        self._on_lost = on_lost
        self._reader = AnswerReader(bounds, self._take_head)
        self._transport: asyncio.Transport | None = None
        self._pump: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[Head] | Swift | None = None
        self._current: asyncio.Future[Head] | Swift | None = None
        # The latter, while nothing of its answer has come and it may be one that is known.
        self._swift: Swift | None = None
        # Whether the reader waits for the answer to a GET and has seen nothing yet.
        self._is_fresh = False
        self._body: Body | None = None
        self._written = 0
        self._mark: int | None = 0
        self._timeouts = Timeouts(0, 0)
        self._total_at = math.inf
        self._eof = False
        self.is_request_done = True
        self.phase = Phase.IDLE
        self.served = 0
        self.born_at = self.idle_since = loop.time()
        self.deadline = math.inf
        self.deadline_cause = Cause.IDLE_TIMEOUT

    # Sending the request...

    def begin(
        self, request: bytes, method: str, timeouts: Timeouts, total_at: float, *, whole: bool
    ) -> asyncio.Future[Head]:
        """Send the request, or its first part, and return the future of the head of the answer.

        Args:
            request: Bytes to send now.
            method: Answers to "HEAD" have no body.
            timeouts: For this exchange.
            total_at: Loop time at which the exchange fails in any case.
            whole: Whether `request` is all of it; else `write` and `end_request` follow.

        Raises:
            UpstreamFault: The upstream has closed the connection; the outcome is `not_sent`.
            RuntimeError: Another exchange is going on.
        """
        if self.phase is Phase.CLOSED:
            raise UpstreamFault(Cause.CLOSED, Outcome.NOT_SENT, "closed before the request")
        if self._transport is None or self.phase is not Phase.IDLE:
            raise RuntimeError("an exchange begins on an idle connection")
        # For plain connections the bytes we wrote are the bytes on the wire; TLS adds its own.
        self._mark = delivered_or_queued_bytes(self._sock) if self._secure else self._written
        self.phase = Phase.AWAITING
        self._timeouts = timeouts
        self._total_at = total_at
        self._reader.expect(method)
        self._is_fresh = False
        self.is_request_done = whole
        self._await_progress(
            timeouts.first_byte_s if whole else timeouts.idle_s,
            Cause.FIRST_BYTE_TIMEOUT if whole else Cause.SEND_TIMEOUT,
        )
        waiter: asyncio.Future[Head] = self._loop.create_future()
        self._waiter = self._current = waiter
        self._written += len(request)
        self._transport.write(request)
        return waiter

    def ask(self, request: bytes, swift: Swift) -> None:
        """As `begin`, for a whole GET on a connection that is known to be idle; `swift` gets the answer."""
        transport, lane, now = self._transport, swift.lane, self._loop.time()
        if transport is None:
            raise RuntimeError("an exchange begins on an idle connection")
        self._mark = delivered_or_queued_bytes(self._sock) if self._secure else self._written
        self.phase = _AWAITING
        self._total_at = now + lane.total_s
        self.deadline = now + lane.first_byte_s
        self.deadline_cause = _FIRST_BYTE_TIMEOUT
        if not self._is_fresh:
            self._reader.expect("GET")
            self._is_fresh = True
        self._swift = self._waiter = self._current = swift
        self._written += len(request)
        transport.write(request)

    def pumped_by(self, pump: asyncio.Task[None]) -> None:
        """Name the task that sends the rest of the request; it is cancelled when that is pointless."""
        self._pump = pump

    async def write(self, piece: bytes) -> None:
        """Send a further part of the request, and wait while the upstream takes no more.

        Raises:
            UpstreamFault: The connection is closed.
        """
        if self._transport is None or self.phase is Phase.CLOSED:
            raise UpstreamFault(Cause.CLOSED, Outcome.UNKNOWN, "closed while the body was sent")
        self._written += len(piece)
        self._transport.write(piece)
        if self._can_write is not None:
            if self.phase is Phase.AWAITING:
                self._await_progress(self._timeouts.idle_s, Cause.SEND_TIMEOUT)
            await self._can_write
        if self.phase is Phase.AWAITING:
            # Waiting for the client's next piece is not the upstream's fault.
            self.deadline = self._total_at

    def end_request(self) -> None:
        """The request has been sent whole."""
        self.is_request_done = True
        self._pump = None
        if self.phase is Phase.AWAITING:
            self._await_progress(self._timeouts.first_byte_s, Cause.FIRST_BYTE_TIMEOUT)

    # Receiving the answer...

    def data_received(self, data: bytes) -> None:
        """Bytes from the upstream."""
        swift = self._swift
        if swift is not None:
            self._swift = None
            known = swift.lane.known
            if known is not None and len(data) == known.size and data.startswith(known.head):
                # The reader has seen none of it and stands where it stood.
                if self._rest():
                    self._on_free(self)
                swift.take(data, known)
                return
            swift.raw = data
            self._timeouts = swift.lane.timeouts
            self._is_fresh = False
        phase = self.phase
        if phase is Phase.IDLE or phase is Phase.CLOSED:
            # Nothing was asked: whoever speaks now would answer the next request with it.
            self._close()
            return
        if phase is Phase.RECEIVING:
            self._await_progress(self._timeouts.idle_s, Cause.IDLE_TIMEOUT)
        try:
            self._reader.feed(data)
        except Unacceptable as exc:
            self.fail(exc.cause, exc.detail)
            return
        if self._reader.is_done:
            self._finish()

    def _take_head(self, status: int, fields: Fields) -> Body:
        """Hand the head to who waits for it; the body follows through `Body`."""
        now = time.monotonic()
        self.phase = Phase.RECEIVING
        self._body = body = Body(self._loop, self._bounds.buffer_bytes, self._hold_reading)
        self._await_progress(self._timeouts.idle_s, Cause.IDLE_TIMEOUT)
        if not self.is_request_done and status >= 300 and self._pump is not None:
            # RFC 9112 section 9.5: the rest of a body that is refused need not be sent.
            self._pump.cancel()
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(Head(status, fields, body, now))
        return body

    def _hold_reading(self, hold: bool) -> None:
        transport = self._transport
        if transport is None or self.phase is not Phase.RECEIVING:
            return
        if hold:
            # A slow client is not the upstream's silence.
            self.deadline = self._total_at
            transport.pause_reading()
        else:
            self._await_progress(self._timeouts.idle_s, Cause.IDLE_TIMEOUT)
            transport.resume_reading()

    # Ending an exchange...

    def _finish(self) -> None:
        """The answer is complete: go back to the pool if both sides are, else close."""
        body, self._body = self._body, None
        stays = self._reader.may_stay and self.is_request_done and self._rest()
        if not stays:
            self._waiter = self._current = None
            self._close()
        elif self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()
        if body is not None:
            body.finish()
        if stays:
            self._on_free(self)

    def _rest(self) -> bool:
        """Stand idle, unless the upstream has ended or has not taken the whole request; then close."""
        self._waiter = self._current = None
        transport = self._transport
        if self._eof or transport is None or transport.is_closing() or transport.get_write_buffer_size():
            self._close()
            return False
        self.served += 1
        self.idle_since = self._loop.time()
        self.deadline = _NEVER
        self.phase = _IDLE
        return True

    def fail(self, cause: Cause, detail: str = "", origin: BaseException | None = None) -> None:
        """End the exchange with a fault and close the connection; `origin` is what broke the request body."""
        if self.phase is Phase.CLOSED:
            return
        waiter, body = self._waiter, self._body
        received = self.phase is Phase.RECEIVING
        fault = StreamBroken(cause, detail) if received else UpstreamFault(cause, self._outcome(), detail)
        fault.origin = origin
        self._waiter = self._body = self._current = None
        self._close()
        if waiter is not None and not waiter.done():
            waiter.set_exception(fault)
        elif body is not None:
            body.fail(fault)

    def abort(self) -> None:
        """Close at once, whatever is going on; who waits for the answer is told so."""
        self.fail(Cause.CLOSED, "given up by the gateway")

    def leave(self, waiter: asyncio.Future[Head] | Swift) -> None:
        """Nobody waits for the answer of this exchange any more; end it unless it has ended.

        Args:
            waiter: Of that exchange: by now the connection may serve another.
        """
        if waiter.done() and not waiter.cancelled():
            # Looked at, so that a fault nobody awaited is not reported as forgotten.
            waiter.exception()
        if self._current is waiter:
            self.abort()

    def check_deadline(self, now: float) -> None:
        """Fail if progress is overdue."""
        if now >= self.deadline:
            self.fail(Cause.TOTAL_TIMEOUT if now >= self._total_at else self.deadline_cause)

    def is_reusable(self) -> bool:
        """Whether a request may be sent: the upstream has not closed, by all that has arrived here."""
        return self.phase is Phase.IDLE and not self._eof and not has_news(self._sock)

    def _close(self) -> None:
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        self.deadline = math.inf
        self._swift = None
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
        self.resume_writing()
        if self._transport is not None:
            # Not `close()`: it would first send what is left of a request nobody waits for.
            self._transport.abort()

    def _outcome(self) -> Outcome:
        """What is known when an exchange fails before its final head (see `delivery.py`)."""
        if self._eof and not self._reader.has_begun and self._fate() is Fate.REFUSED:
            return Outcome.NOT_SENT
        return Outcome.UNKNOWN

    # The transport's events...

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection, TLS included, is up."""
        self._transport = transport  # type: ignore[assignment] # stream protocols get stream transports
        self._on_made(self)

    def eof_received(self) -> bool:
        """The upstream finished sending."""
        self._eof = True
        if self.phase is Phase.RECEIVING and self._reader.end is BodyEnd.CLOSE and self._ended_politely():
            self._finish()
        elif self.phase is Phase.IDLE:
            self._close()
        elif self.phase is Phase.AWAITING and not self._reader.has_begun and not self._secure:
            # Whether the request met a closed socket is known when its reset arrives, a round trip later.
            self._await_fate(_FIRST_FATE_WAIT_S)
            return True
        else:
            self.fail(Cause.CLOSED, "closed by the upstream")
        return False

    def _ended_politely(self) -> bool:
        transport = self._transport
        return transport is None or not self._secure or said_farewell(transport.get_extra_info("ssl_object"))

    def _await_fate(self, wait_s: float) -> None:
        """Fail the exchange as soon as it is clear, or too late to wait, whether the request arrived."""
        if wait_s > _LONGEST_FATE_WAIT_S or self._fate() is not Fate.OPEN:
            self.fail(Cause.CLOSED, "closed by the upstream")
        else:
            self._loop.call_later(wait_s, self._await_fate, wait_s * 2)

    def _fate(self) -> Fate:
        if self.phase is Phase.CLOSED:
            return Fate.DELIVERED
        return fate_behind(self._sock, self._mark)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if exc is not None and not self._secure and self.phase in {Phase.AWAITING, Phase.RECEIVING}:
            rest = rest_of_answer(self._sock, _SALVAGE_BYTES)
            if rest:
                self.data_received(rest)
        self.fail(Cause.CLOSED, "reset by the upstream" if exc is not None else "lost")
        self._reader.close()
        self._on_lost(self)

    def _await_progress(self, within_s: float, cause: Cause) -> None:
        self.deadline = min(self._loop.time() + within_s, self._total_at)
        self.deadline_cause = cause

    def __repr__(self) -> str:
        return f"<Connection {self.phase.value}, served {self.served}>"

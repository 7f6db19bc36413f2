"""A small GET over a connection at hand: no task, no future, no queue; the answer is called back whole.

For callers who send the same read again and again and can send it another way at any time. A `Swift` stands
where the connection expects the future of a head. It hands over only what is plain: a status that concerns
nobody but the client (`PLAIN`), a declared length within a bound, complete. Whatever else comes is `unusual`
or a fault, nothing of it was shown to anybody, and as reads change nothing the caller may simply ask anew.
What the call teaches (breakers, concurrency, budget) is learned as in `client.py`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cbk_gateway.upstream.outcomes import UpstreamFault
from cbk_gateway.upstream.queueing import FairQueue
from cbk_gateway.upstream.reading import Fields

if TYPE_CHECKING:
    from cbk_gateway.upstream.connection import Connection
    from cbk_gateway.upstream.exchange import Call
    from cbk_gateway.upstream.guard import Guard
    from cbk_gateway.upstream.phase import Head

PLAIN: Final = frozenset({200, 400, 404})
MAX_SWIFT_BYTES: Final = 48 * 1024
"""Less than a connection reads ahead, so that a body is never held back half read."""


_END_OF_HEAD: Final = b"\r\n\r\n"


class Known(NamedTuple):
    """An answer's head that came before, and what it meant.

    The same bytes at the beginning of an answer to a GET mean the same, and with a declared length of the
    body nothing else decides where the answer ends: so a buffer of exactly that size that begins with them
    is the whole answer, and the connection stands between two messages after it as before.
    """

    head: bytes
    size: int
    status: int
    fields: Fields


class Receiver(Protocol):
    """Who waits for the answer. Exactly one of these is called, once, unless the call is left."""

    known: Known | None
    """The head that came last, kept for the next call of this kind."""

    def answered(self, status: int, fields: Fields, body: bytes, upstream_s: float) -> None:
        """A whole answer of a plain status, this long after the request was sent."""
        ...

    def unusual(self) -> None:
        """There is an answer, but not of the kind that is handed over whole; it was dropped."""
        ...

    def faulted(self, fault: UpstreamFault) -> None:
        """There is no answer."""
        ...


class Swift:
    """One such call under way. Made by `Upstream.send_now`."""

    __slots__ = (
        "_began_at", "_call", "_connection", "_guard", "_head", "_is_over", "_queue", "_raw", "_receiver",
    )  # fmt: skip

    def __init__(
        self, call: Call, connection: Connection, guard: Guard, queue: FairQueue, receiver: Receiver
    ) -> None:
        self._call = call
        self._connection = connection
        self._guard = guard
        self._queue = queue
        self._receiver = receiver
        self._head: Head | None = None
        self._is_over = False
        self._raw = b""
        self._began_at = time.monotonic()

    def leave(self) -> None:
        """Nobody waits any more: the connection is closed, so that the upstream stops working for nobody."""
        if not self._is_over:
            self._is_over = True
            self._queue.leave()
            self._connection.leave(self)

    # What the connection asks before it parses.

    def recognises(self, octets: bytes) -> bool:
        """Whether these are the first bytes of the answer and all of it; else they are to be parsed."""
        known = self._receiver.known
        if known is not None and len(octets) == known.size and octets.startswith(known.head):
            return not self._is_over
        self._raw = octets
        return False

    def take(self, octets: bytes) -> None:
        """Take an answer that was recognised. The connection serves others again."""
        known = self._receiver.known
        if self._is_over or known is None:
            return
        self._is_over = True
        self._queue.leave()
        took_s = time.monotonic() - self._began_at
        self._guard.succeeded(self._call, took_s)
        self._receiver.answered(known.status, known.fields, octets[len(known.head) :], took_s)

    # As the future of a head.

    def done(self) -> bool:
        """Whether nothing more is expected of the connection."""
        return self._is_over or self._head is not None

    def cancelled(self) -> bool:
        """Never: it is left, and then it is over."""
        return False

    def exception(self) -> None:
        """Faults are called back."""

    def set_result(self, head: Head) -> None:
        """The head is here. Called from within the parser, so what must change the connection waits."""
        if self._is_over:
            return
        self._head = head
        if head.status in PLAIN and _is_short(head.fields):
            head.body.on_end = self._ended
        else:
            asyncio.get_running_loop().call_soon(self._give_up)

    def set_exception(self, fault: BaseException) -> None:
        """There will be no head, or not the whole of a body."""
        if self._is_over or not isinstance(fault, UpstreamFault):
            return
        self._is_over = True
        self._queue.leave()
        self._guard.faulted(self._call, fault, time.monotonic() - self._began_at)
        # The connection is in the middle of ending.
        asyncio.get_running_loop().call_soon(self._receiver.faulted, fault)

    # As the one whom the body tells of its end.

    def _ended(self) -> None:
        head = self._head
        if self._is_over or head is None:
            return
        fault = head.body.fault
        if fault is not None:
            self.set_exception(fault)
            return
        self._is_over = True
        self._queue.leave()
        took_s = head.arrived_at - self._began_at
        self._guard.succeeded(self._call, took_s)
        body = head.body.take()
        self._remember(head, body)
        self._receiver.answered(head.status, head.fields, body, took_s)

    def _remember(self, head: Head, body: bytes) -> None:
        """Keep the head for the next call, if the answer was all that came, in one piece, with no more."""
        raw, size = self._raw, len(self._raw)
        end = raw.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        if body and end + len(body) == size and raw.endswith(body) and self._connection.may_stay:
            self._receiver.known = Known(raw[:end], size, head.status, head.fields)

    def _give_up(self) -> None:
        if not self._is_over:
            self.leave()
            self._receiver.unusual()


def _is_short(fields: Fields) -> bool:
    """Whether the length is declared and small; that it is single and a number, the reader has checked."""
    for name, value in fields:
        if len(name) == 14 and name.lower() == b"content-length":
            return int(value) <= MAX_SWIFT_BYTES
    return False

"""A small GET over a connection at hand: no task, no future, no queue; the answer is called back whole.

For callers who send the same read again and again and can send it another way at any time. A `Swift` stands
where the connection expects the future of a head. It hands over only what is plain: a status that concerns
nobody but the client (`PLAIN`), a declared length within a bound, complete. Whatever else comes is `unusual`
or a fault, nothing of it was shown to anybody, and as reads change nothing the caller may simply ask anew.
What the call teaches (breakers, concurrency, budget) is learned as in `client.py`.

One object is made per call, by the caller, of a class of the caller's own; what does not differ from one
call to the next is in its `Lane`.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

from cbk_gateway.upstream.outcomes import UpstreamFault
from cbk_gateway.upstream.phase import Head, Phase
from cbk_gateway.upstream.queueing import FairQueue
from cbk_gateway.upstream.reading import Fields

if TYPE_CHECKING:
    from cbk_gateway.upstream.connection import Connection
    from cbk_gateway.upstream.exchange import Call
    from cbk_gateway.upstream.guard import Account, Guard
    from cbk_gateway.upstream.options import Timeouts

PLAIN: Final = frozenset({200, 400, 404})
MAX_SWIFT_BYTES: Final = 48 * 1024
"""Less than a connection reads ahead, so that a body is never held back half read."""


_END_OF_HEAD: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Known:
    """An answer's head that came before, and what it meant.

    The same bytes at the beginning of an answer to a GET mean the same, and with a declared length of the
    body nothing else decides where the answer ends: so a buffer of exactly that size that begins with them
    is the whole answer, and the connection stands between two messages after it as before.
    """

    head: bytes
    size: int
    status: int
    fields: Fields


class Lane:
    """What repeated calls have in common. Made by `Upstream.lane`, kept by who repeats them.

    Attributes:
        call: What is asked.
        timeouts: Of its cost class.
        first_byte_s: In which the head must come.
        total_s: In which all of it must.
        is_long: Whether it counts among the long calls.
        account: What the guard knows of its account; the guard's own business.
        known: The answer's head that came last.
    """

    __slots__ = ("account", "call", "first_byte_s", "is_long", "known", "timeouts", "total_s")

    def __init__(self, call: Call, timeouts: Timeouts, *, is_long: bool) -> None:
        self.call = call
        self.timeouts = timeouts
        self.total_s = math.inf if timeouts.total_s is None else timeouts.total_s
        self.first_byte_s = min(timeouts.first_byte_s, self.total_s)
        self.is_long = is_long
        self.account: Account | None = None
        self.known: Known | None = None


class Swift:
    """One such call, sent by `Upstream.send_now`; a base class of whoever waits for the answer.

    Exactly one of `answered`, `unusual` and `faulted` is called, once, unless the call is left.

    Attributes:
        lane: What it has in common with others.
        guard, queue, connection, began_at: Set by `Upstream.send_now`: who learns from it, the place it
            holds, what carries it, and since when.
        raw: The first bytes of an answer that was not recognised.
    """

    __slots__ = ("_head", "_is_over", "began_at", "connection", "guard", "lane", "queue", "raw")

    began_at: float
    connection: Connection
    guard: Guard
    queue: FairQueue
    raw: bytes

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._head: Head | None = None
        self._is_over = False

    # For the caller to say.

    def answered(self, status: int, fields: Fields, body: bytes, upstream_s: float) -> None:
        """A whole answer of a plain status, this long after the request was sent."""
        raise NotImplementedError

    def unusual(self) -> None:
        """There is an answer, but not of the kind that is handed over whole; it was dropped."""
        raise NotImplementedError

    def faulted(self, fault: UpstreamFault) -> None:
        """There is no answer."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Nobody waits any more: the connection is closed, so that the upstream stops working for nobody."""
        if not self._is_over:
            self._is_over = True
            self.queue.leave()
            self.connection.leave(self)

    # As the one who knows an answer before it is parsed.

    def take(self, octets: bytes, known: Known) -> None:
        """Take an answer that is all of `known` but for its body. The connection serves others again."""
        took_s = monotonic() - self.began_at
        self._is_over = True
        self.guard.succeeded(self.lane, took_s)
        self.queue.leave()
        self.answered(known.status, known.fields, octets[len(known.head) :], took_s)

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
        self.queue.leave()
        self.guard.faulted(self.lane.call, fault, monotonic() - self.began_at)
        # The connection is in the middle of ending.
        asyncio.get_running_loop().call_soon(self.faulted, fault)

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
        took_s = head.arrived_at - self.began_at
        self.guard.succeeded(self.lane, took_s)
        self.queue.leave()
        body = head.body.take()
        self._remember(head, body)
        self.answered(head.status, head.fields, body, took_s)

    def _remember(self, head: Head, body: bytes) -> None:
        """Keep the head for the next call, if the answer was all that came, in one piece, with no more."""
        raw, size = self.raw, len(self.raw)
        end = raw.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        if body and end + len(body) == size and raw.endswith(body) and self.connection.phase is Phase.IDLE:
            self.lane.known = Known(raw[:end], size, head.status, head.fields)

    def _give_up(self) -> None:
        if not self._is_over:
            self.abandon()
            self.unusual()


def _is_short(fields: Fields) -> bool:
    """Whether the length is declared and small; that it is single and a number, the reader has checked."""
    for name, value in fields:
        if len(name) == 14 and name.lower() == b"content-length":
            return int(value) <= MAX_SWIFT_BYTES
    return False

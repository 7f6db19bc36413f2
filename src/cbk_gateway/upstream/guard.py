"""What stands between a call and the wire: breakers, the pace of slowed accounts, places to run.

Keeps the state of `breaker.py`, `pacing.py`, `concurrency.py` and `queueing.py` per account and for the
whole upstream, and feeds them. A refusal here is `not_sent` by construction.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from cbk_gateway.operation import CostClass
from cbk_gateway.secret import Secret
from cbk_gateway.upstream.breaker import Breaker, BreakerState
from cbk_gateway.upstream.concurrency import AdaptiveBound, FixedBound
from cbk_gateway.upstream.exchange import Call
from cbk_gateway.upstream.observer import UpstreamObserver
from cbk_gateway.upstream.options import UpstreamOptions
from cbk_gateway.upstream.outcomes import Cause, Outcome, UpstreamFault
from cbk_gateway.upstream.pacing import Pace
from cbk_gateway.upstream.queueing import FairQueue

if TYPE_CHECKING:
    from cbk_gateway.upstream.swift import Lane

LONG_CLASSES: Final = frozenset({CostClass.MODEL, CostClass.STREAM, CostClass.TRANSFER})
# A 500, or a call that takes for ever, may be one account's own doing; only what no request can bring
# about by its content may close the door to everybody.
_ALL_SUFFER_STATUSES: Final = frozenset({502, 503, 504})
_ALL_SUFFER_CAUSES: Final = frozenset({Cause.CONNECT, Cause.RESOLVE, Cause.TLS, Cause.CLOSED})
_ACCOUNT_CAUSES: Final = _ALL_SUFFER_CAUSES | {
    Cause.PROTOCOL,
    Cause.SEND_TIMEOUT,
    Cause.FIRST_BYTE_TIMEOUT,
    Cause.TOTAL_TIMEOUT,
}
_OVERLOAD_CAUSES: Final = frozenset({Cause.CONNECT, Cause.FIRST_BYTE_TIMEOUT, Cause.SEND_TIMEOUT})
# Codes of failures inside a 200 that are the API's own; the others are about the request.
_SERVER_CODES: Final = frozenset(
    {
        "BAD_GATEWAY",
        "GATEWAY_TIMEOUT",
        "GENERIC_ERROR",
        "INTERNAL_SERVER_ERROR",
        "SERVICE_UNAVAILABLE",
        "TIMEOUT",
    }
)
_CREDENTIAL_FIELDS: Final = frozenset({"authorization", "x-runas-user-id", "x-runas-child-user-email"})
ProbeFields = tuple[tuple[str, Secret], ...]
_CLOSED: Final = BreakerState.CLOSED


class Account:
    """What is known of one upstream account.

    Attributes:
        is_gone: Whether it was forgotten, and whoever holds it is to look it up anew.
    """

    __slots__ = ("breaker", "fields", "is_gone", "pace")

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.is_gone = False
        self.pace: Pace | None = None
        self.fields: ProbeFields = ()


class Guard:
    """Decides whether and when a call may go.

    Args:
        options: See `UpstreamOptions`.
        observer: Told of changes.
        probe: Makes the gateway's own cheap GET with the given credential fields (none: for the whole
            upstream) and says whether the answer is healthy.
    """

    def __init__(
        self,
        options: UpstreamOptions,
        observer: UpstreamObserver,
        probe: Callable[[ProbeFields], Awaitable[bool]],
    ) -> None:
        self._options = options
        self._observer = observer
        self._probe = probe
        self._loop = asyncio.get_running_loop()
        self._whole = Breaker(options.breaker)
        self._breaks = options.breaker.enabled
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._probing: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        concurrency = options.concurrency
        self._bound = AdaptiveBound(concurrency)
        self._short = FairQueue(self._bound, concurrency.queue_size, concurrency.queue_wait_s)
        longest = FixedBound(concurrency.max_long)
        self._long = FairQueue(longest, concurrency.queue_size, concurrency.queue_wait_s)

    # Before the call...

    def is_open(self, account: str) -> bool:
        """Whether calls of this account are held back now."""
        known = self._accounts.get(account)
        return self._whole.state is not BreakerState.CLOSED or (
            known is not None and known.breaker.state is not BreakerState.CLOSED
        )

    async def admit(self, call: Call) -> FairQueue:
        """Return when the call may go; the caller gives the place back with `leave()`.

        Raises:
            UpstreamFault: It may not; nothing was sent.
        """
        known = self._accounts.get(call.account)
        if self._whole.state is not BreakerState.CLOSED:
            raise self._held_back(self._whole)
        if known is not None:
            if known.breaker.state is not BreakerState.CLOSED:
                raise self._held_back(known.breaker)
            if known.pace is not None:
                await self._keep_pace(known.pace)
        queue = self._long if call.operation.route.cost_class in LONG_CLASSES else self._short
        if not queue.try_enter():
            await self._wait_in(queue, call.tenant or call.account)
        return queue

    def admit_now(self, lane: Lane) -> FairQueue | None:
        """Like `admit`, when nothing holds the call back and it need not wait; None otherwise."""
        known = lane.account
        if known is None or known.is_gone:
            known = lane.account = self._accounts.get(lane.call.account)
        if self._whole.state is not _CLOSED or (
            known is not None and (known.pace is not None or known.breaker.state is not _CLOSED)
        ):
            return None
        queue = self._long if lane.is_long else self._short
        return queue if queue.try_enter() else None

    async def _keep_pace(self, pace: Pace) -> None:
        now = self._loop.time()
        wait_s = pace.reserve(now, self._options.concurrency.queue_wait_s)
        if wait_s is None:
            fault = UpstreamFault(Cause.SLOWED, Outcome.NOT_SENT)
            fault.retry_after_s = pace.wait_s(now)
            raise fault
        if wait_s:
            await asyncio.sleep(wait_s)

    async def _wait_in(self, queue: FairQueue, tenant: str) -> None:
        began_at = self._loop.time()
        try:
            await queue.enter(tenant)
        except UpstreamFault:
            self._observer.queued(self._loop.time() - began_at, admitted=False)
            raise
        self._observer.queued(self._loop.time() - began_at, admitted=True)

    def _held_back(self, breaker: Breaker) -> UpstreamFault:
        fault = UpstreamFault(Cause.BREAKER_OPEN, Outcome.NOT_SENT)
        fault.retry_after_s = max(1.0, breaker.probe_at - self._loop.time())
        return fault

    # After the call...

    def answered(self, call: Call, status: int, took_s: float, retry_after_s: float | None) -> float | None:
        """Learn from an answer; returns the seconds to wait after a 429, else None."""
        now = self._loop.time()
        known = self._account(call.account)
        self._learn(call, now, took_s, overloaded=status in {503, 504})
        self._note(call, known, now, failed=status == 500 or status in _ALL_SUFFER_STATUSES)
        self._note_whole(now, failed=status in _ALL_SUFFER_STATUSES)
        if status == 429:
            known.pace = known.pace or Pace()
            return known.pace.limited(now, retry_after_s)
        if known.pace is not None:
            known.pace.succeeded()
            if known.pace.is_free(now):
                known.pace = None
        return None

    def succeeded(self, lane: Lane, took_s: float) -> None:
        """Learn from a 200; what `answered` does then, for calls that `admit_now` admitted."""
        known = lane.account
        if known is None or known.is_gone or known.pace is not None:
            self.answered(lane.call, 200, took_s, None)
            return
        now = self._loop.time()
        bound = self._bound
        if not lane.is_long and bound.record(now, took_s, self._short.running, overloaded=False):
            self._observer.concurrency_changed(bound.value)
        if self._breaks:
            known.breaker.record(now, failed=False)
            self._whole.record(now, failed=False)

    def faulted(self, call: Call, fault: UpstreamFault, took_s: float) -> None:
        """Learn from a call without an answer. What the client or the gateway broke off teaches nothing."""
        now = self._loop.time()
        if fault.cause in _ACCOUNT_CAUSES:
            self._note(call, self._account(call.account), now, failed=True)
        if fault.cause in _ALL_SUFFER_CAUSES:
            self._note_whole(now, failed=True)
        if fault.cause in _OVERLOAD_CAUSES:
            self._learn(call, now, took_s, overloaded=True)

    def report_failure(self, account: str, code: str) -> None:
        """A 200 turned out to be a failure of this code: an error in its body or in its stream."""
        known = self._accounts.get(account)
        if code not in _SERVER_CODES or known is None or not self._options.breaker.enabled:
            return
        # Its head was counted as a success when it came.
        if known.breaker.amend(self._loop.time()):
            self._opened("account", known)

    async def stop(self) -> None:
        """End probes and timers."""
        for known in self._accounts.values():
            known.is_gone = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for task in self._probing:
            task.cancel()
        await asyncio.gather(*self._probing, return_exceptions=True)

    def _account(self, account: str) -> Account:
        known = self._accounts.get(account)
        if known is None:
            known = self._accounts[account] = Account(Breaker(self._options.breaker))
            if len(self._accounts) > self._options.breaker.max_accounts:
                _, oldest = self._accounts.popitem(last=False)
                oldest.is_gone = True
        else:
            self._accounts.move_to_end(account)
        return known

    def _note(self, call: Call, known: Account, now: float, *, failed: bool) -> None:
        if not known.fields:
            # Also of a call that went well: its body may yet turn out to be a failure.
            known.fields = tuple(
                (name, Secret(value)) for name, value in call.headers if name.lower() in _CREDENTIAL_FIELDS
            )
        if self._options.breaker.enabled and known.breaker.record(now, failed=failed):
            self._opened("account", known)

    def _note_whole(self, now: float, *, failed: bool) -> None:
        if self._options.breaker.enabled and self._whole.record(now, failed=failed):
            self._opened("upstream", None)

    def _learn(self, call: Call, now: float, took_s: float, *, overloaded: bool) -> None:
        if call.operation.route.cost_class in LONG_CLASSES:
            return
        if self._bound.record(now, took_s, self._short.running, overloaded=overloaded):
            self._observer.concurrency_changed(self._bound.value)

    # Probes...

    def _opened(self, scope: str, known: Account | None) -> None:
        self._observer.breaker_changed(scope, BreakerState.OPEN)
        breaker = self._whole if known is None else known.breaker
        handle: asyncio.TimerHandle

        def begin() -> None:
            self._timers.discard(handle)
            if breaker.begin_probe(self._loop.time()):
                self._observer.breaker_changed(scope, BreakerState.HALF_OPEN)
                task = self._loop.create_task(self._run_probe(scope, known))
                self._probing.add(task)
                task.add_done_callback(self._probing.discard)

        # A little later than due, so that a clock's rounding cannot make the probe come too early.
        handle = self._loop.call_at(breaker.probe_at + 0.002, begin)
        self._timers.add(handle)

    async def _run_probe(self, scope: str, known: Account | None) -> None:
        breaker = self._whole if known is None else known.breaker
        healthy = await self._probe(known.fields if known is not None else ())
        breaker.end_probe(self._loop.time(), healthy=healthy)
        if not healthy:
            self._opened(scope, known)
            return
        self._observer.breaker_changed(scope, BreakerState.CLOSED)
        if known is not None:
            known.fields = ()

    def __repr__(self) -> str:
        return f"<Guard {self._whole!r} {self._bound!r} {self._short!r} {self._long!r}>"

"""What goes on beside decisions: settling, giving back, signs of life, and noticing that the store is away.

Owns the worker's books and the one background task that keeps them. Decisions are made elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import structlog

from cbk_gateway.limits.arrears import NOT_SENT, Arrears
from cbk_gateway.limits.checkpoint import Checkpoint
from cbk_gateway.limits.counters import QuotaView, SlotView
from cbk_gateway.limits.desk import Desk, Held, Views, bucket_question, enter
from cbk_gateway.limits.estimate import Estimates
from cbk_gateway.limits.grant import Grant, Usage
from cbk_gateway.limits.ledger import Clock, Ledger, Question
from cbk_gateway.limits.options import LimiterObserver, LimiterOptions, Mode
from cbk_gateway.limits.reservation import amount_spent, amount_to_hold
from cbk_gateway.limits.roster import Roster
from cbk_gateway.parties import Measure
from cbk_gateway.store import Store, StoreFault

if TYPE_CHECKING:
    from cbk_gateway.limits.bucket_view import BucketView
    from cbk_gateway.limits.decision import Request, Taken

_log = structlog.get_logger(__name__)

_TICK_S: Final = 0.25
_MOST_PER_CALL: Final = 64
_GRACE_S: Final = 1.0  # a busy bucket's next question returns its tokens as well, without a call of its own


class Bookkeeping:
    """The books of one worker. See `Limiter` for the arguments."""

    def __init__(
        self, store: Store, options: LimiterOptions, observer: LimiterObserver, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._options = options
        self._now = clock
        # Until the store says what time it is: periods must have names even when it is away from the start.
        self._server = Clock((time.time() - clock()) * 1_000_000)
        self._keeper: asyncio.Task[None] | None = None
        self._is_stopping = asyncio.Event()
        self._resets = 0
        self._tokens = Estimates(options.token_estimate)
        self._bytes = Estimates(options.bytes_estimate)
        self._roster = Roster(options.expected_workers, options.dead_after_s)
        self._checkpoint = Checkpoint(options.checkpoint_directory, options.worker_id)
        self._due: dict[str, float] = {}
        self.observer = observer
        self.desk = Desk(options.max_remembered)
        self.holding: set[BucketView] = set()
        """Buckets of which this worker holds something that is to go back."""
        self.ledger = Ledger(store, options.worker_id, options.lease_life_s, options.slot_life_s)
        self.arrears = Arrears(self, options, clock)
        self.mode = Mode.STORE
        self.is_cluster = store.is_cluster

    @property
    def workers(self) -> int:
        """Workers alive, as far as known."""
        return self._roster.alive

    def server_now_us(self, now: float) -> int:
        """The server's time, by guess."""
        return self._server.now_us(now)

    def set_clock(self, now_us: int, now: float) -> None:
        """Note the server's time."""
        self._server = Clock(now_us - now * 1_000_000)

    def monotonic(self) -> float:
        """This process's clock."""
        return self._now()

    async def ask_time(self) -> int:
        """The server's time, by asking."""
        await self._call_roll()
        return self.server_now_us(self._now())

    # Life.

    async def start(self) -> None:
        """Sign on, read what an earlier run noted down, begin to keep the books."""
        self.desk.floors.update(await asyncio.to_thread(self._checkpoint.load))
        try:
            await self._call_roll()
        except StoreFault:
            self.note_failure()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Give back, settle, note down, sign off."""
        self._is_stopping.set()
        if self._keeper is not None:
            await self._keeper
            self._keeper = None
        now = self._now()
        for view in self.holding:
            view.expire_lease(now)
        self.arrears.end_all()
        for slot in self.desk.open_slots():
            slot.lose()
        with contextlib.suppress(StoreFault):
            await self._give_back(now, 0.0)
            await self.arrears.flush_all()
            await self.ledger.call_roll(self._options.dead_after_s, 0, is_leaving=True)
        await self._save_checkpoint()

    async def _keep(self) -> None:
        while not self._is_stopping.is_set():
            with contextlib.suppress(StoreFault):
                await self.tick(self._now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._is_stopping.wait()

    async def tick(self, now: float) -> None:
        """One round: signs of life, what is to go back, what the store must be told.

        Raises:
            StoreFault: The store did not answer; the next round goes on.
        """
        if not self._store.is_available:
            self.note_failure()
            return
        if self.mode is Mode.LOCAL or self._is_due("roll", now, self._options.roll_call_s):
            await self._call_roll()
        if self.mode is Mode.LOCAL:
            if not self._roster.is_complete(now, self._options.return_within_s):
                return
            self._set_mode(Mode.STORE)
        if self._is_due("memory", now, self._options.lease_life_s):
            # What others took in advance may have come back before a refusal's time is over.
            self._forget_refusals()
        await self._give_back(now)
        self._look_after_slots(now)
        self.arrears.end_leases(now)
        await self.arrears.flush_all()
        if self._is_due("checkpoint", now, self._options.checkpoint_s):
            await self._refresh_quotas()
            await self._save_checkpoint()

    def _look_after_slots(self, now: float) -> None:
        """Renew entries that no request renewed for a while; places that nobody needed go back with it."""
        if self._is_due("peak", now, self._options.lease_life_s):
            for slot in self.desk.open_slots():
                slot.turn()
        life_s = self._options.slot_life_s
        due = now + life_s - min(self._options.lease_life_s + _GRACE_S, life_s / 2)
        for slot in self.desk.open_slots():
            if slot.kept_until < due:
                slot.is_stale = True

    def _is_due(self, duty: str, now: float, every_s: float) -> bool:
        if now < self._due.get(duty, 0.0):
            return False
        self._due[duty] = now + every_s
        return True

    async def _call_roll(self) -> None:
        since = self._roster.returned_at_us
        roll = await self.ledger.call_roll(self._options.dead_after_s, since)
        now = self._now()
        self.set_clock(roll.now_us, now)
        self._roster.note(roll.alive, roll.back, roll.now_us, now)
        if roll.resets != self._resets:
            self._resets = roll.resets
            self._forget_refusals()

    def _forget_refusals(self) -> None:
        for view in self.desk.buckets():
            view.blocked.clear()

    def note_failure(self) -> None:
        """A call failed: from now on each worker its share, if the store is really away."""
        if not self._store.is_available and self.mode is Mode.STORE:
            self._set_mode(Mode.LOCAL)
        if not self._store.is_available:
            self._roster.lose_store()

    def _set_mode(self, mode: Mode) -> None:
        self.mode = mode
        if mode is Mode.LOCAL:
            self.arrears.lose_store()
        for slot in self.desk.open_slots():
            slot.lose()
        self.observer.mode_changed(mode)
        _log.warning("limiter_mode", mode=mode, workers=self.workers, store=self._store.shown_url)

    # Reservations.

    def reservations(self, request: Request, now: float) -> Held:
        """Quotas that count a request, with what is to be held in each, in their present periods."""
        plan = request.plan
        if not plan.quotas:
            return ()
        now_us = self.server_now_us(now)
        request.views.look_at(tuple(self.desk.quota(plan.tenant, quota, now_us) for quota in plan.quotas))
        return self.amounts(request.views, request.name)

    def amounts(self, views: Views, operation: str) -> Held:
        """What is to be held in each quota for one request."""
        if views.held is not None:
            return views.held
        tenant_id = views.plan.tenant.id
        held = []
        for view in views.quotas:
            measure = view.quota.measure
            if measure is Measure.REQUESTS:
                held.append((view, 1))
                continue
            estimates = self._tokens if measure is Measure.TOKENS else self._bytes
            held.append((view, amount_to_hold(view, estimates.expect(tenant_id, operation))))
        return tuple(held)

    def report_quota(self, view: QuotaView, percent: int) -> None:
        """Report a quota that passed a mark."""
        if percent:
            self.observer.quota_reached(view.tenant_id, view.quota.name, percent)
            if view.quota.shadow and percent >= 100:
                self.observer.shadow_refused(view.tenant_id, view.quota.name)

    def settle_now(self, grant: Grant, usage: Usage) -> bool:
        """Correct reservations to what was spent, count the request as ended. Returns whether to flush."""
        tenant_id = grant.plan.tenant.id
        must_tell = False
        for view, held in grant.reserved:
            measure = view.quota.measure
            if measure is Measure.REQUESTS:
                continue
            must_tell |= self.arrears.correct(view, amount_spent(view, held, usage) - held)
            if measure is Measure.BYTES:
                self._bytes.learn(tenant_id, grant.operation, usage.bytes)
            elif usage.tokens is not None:
                self._tokens.learn(tenant_id, grant.operation, usage.tokens)
        return self.close_slots(grant.slots) or must_tell

    async def settle(self, grant: Grant, usage: Usage) -> None:
        """As `settle_now`, and tell the store at once what must not wait for the next round."""
        if self.settle_now(grant, usage):
            await self._flush_quietly(grant.plan.tenant.id)

    async def refund(self, grant: Grant) -> None:
        """Give everything back."""
        if self.undo((grant,)):
            await self._flush_quietly(grant.plan.tenant.id)

    def undo(self, taken: Iterable[Taken | Grant]) -> bool:
        """Give back what was taken for nothing. Returns whether to flush; else the next round does it."""
        must_tell = False
        for one in taken:
            self.give_back(one.drawn)
            for quota, held in one.reserved:
                must_tell |= self.arrears.correct(quota, -held)
            must_tell |= self.close_slots(one.slots)
        return must_tell

    def give_back(self, tokens: Iterable[tuple[BucketView, float]]) -> None:
        """Return tokens with the next call about their bucket, or with the next round."""
        for view, amount in tokens:
            view.given_back += amount
            self.holding.add(view)

    def close_slots(self, slots: Iterable[SlotView]) -> bool:
        """Count open requests as ended. Returns whether the store must know at once."""
        must_tell = False
        for slot in slots:
            must_tell |= slot.close()
        return must_tell

    async def _flush_quietly(self, tenant_id: str) -> None:
        if self.mode is Mode.STORE:
            await self.arrears.flush_quietly(tenant_id)

    # Telling the store.

    async def _give_back(self, now: float, grace_s: float = _GRACE_S) -> None:
        """Return leases that ended with tokens left and were not renewed since."""
        ended = []
        for view in tuple(self.holding):
            if view.lease and now >= view.lease_until + grace_s:
                view.end_lease()
            if view.given_back:
                ended.append(view)
            elif not view.lease:
                self.holding.discard(view)
        by_tag: dict[str, list[BucketView]] = {}
        for view in ended:
            by_tag.setdefault(view.ref.tag if self.is_cluster else "", []).append(view)
        for views in by_tag.values():
            for start in range(0, len(views), _MOST_PER_CALL):
                await self.return_tokens(tuple(views[start : start + _MOST_PER_CALL]))

    async def return_tokens(self, views: tuple[BucketView, ...]) -> None:
        """Give tokens back to buckets of one tag."""
        question = Question(tuple(bucket_question(view, 0.0, 0.0, self.workers) for view in views))
        back = [view.take_report() for view in views]
        try:
            answer = await self.ledger.ask(question)
        except StoreFault as fault:
            self.keep_unsent(fault, zip(views, back, strict=True))
            raise
        enter(views, answer, self._now())

    def keep_unsent(self, fault: StoreFault, back: Iterable[tuple[BucketView, float]]) -> None:
        """Keep what could not be given back, unless it may have arrived: it must not arrive twice."""
        if fault.trouble in NOT_SENT:
            self.give_back(back)

    async def _refresh_quotas(self) -> None:
        """Learn what other workers counted, to be able to restore the counters of a store that forgot."""
        views = self.desk.quotas()
        if not views:
            return
        for view, used in zip(views, await self.ledger.read([view.key for view in views]), strict=True):
            if used is not None:
                view.learn(used)

    async def _save_checkpoint(self) -> None:
        noted = {view.key: view.spent for view in self.desk.quotas()}
        await asyncio.to_thread(self._checkpoint.save, noted, self.desk.floors)

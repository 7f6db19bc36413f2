"""What goes on beside decisions: settling, giving back, signs of life, and noticing that the store is away.

Owns the worker's books and the one background task that keeps them. Decisions are made elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import structlog

from cbk_gateway.limits.checkpoint import Checkpoint
from cbk_gateway.limits.counters import QuotaView, SlotView
from cbk_gateway.limits.desk import Desk, bucket_question, enter
from cbk_gateway.limits.estimate import Estimates
from cbk_gateway.limits.grant import Grant, Usage
from cbk_gateway.limits.ledger import Clock, Ledger, Question
from cbk_gateway.limits.options import LimiterObserver, LimiterOptions, Mode
from cbk_gateway.limits.reservation import amount_spent, amount_to_hold
from cbk_gateway.limits.roster import Roster
from cbk_gateway.parties import Measure
from cbk_gateway.store import Store, StoreFault, StoreTrouble

if TYPE_CHECKING:
    from cbk_gateway.limits.bucket_view import BucketView
    from cbk_gateway.limits.decision import Request, Taken

_log = structlog.get_logger(__name__)

_TICK_S: Final = 0.25
_MOST_PER_CALL: Final = 64
_NOT_SENT: Final = frozenset({StoreTrouble.OPEN, StoreTrouble.CLOSED})


class Bookkeeping:
    """The books of one worker. See `Limiter` for the arguments."""

    def __init__(
        self, store: Store, options: LimiterOptions, observer: LimiterObserver, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._options = options
        self._now = clock
        self._server = Clock()
        self._keeper: asyncio.Task[None] | None = None
        self._is_stopping = asyncio.Event()
        self._owing: dict[str, dict[int, QuotaView]] = {}
        self._flushing: dict[str, asyncio.Lock] = {}
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
            view.lease_until = now
        with contextlib.suppress(StoreFault):
            await self._give_back(now)
            await self._flush_all()
            await self.ledger.call_roll(self._options.dead_after_s, 0, is_leaving=True)
        await self._save_checkpoint()

    async def _keep(self) -> None:
        while not self._is_stopping.is_set():
            with contextlib.suppress(StoreFault):
                await self._tick(self._now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._is_stopping.wait()

    async def _tick(self, now: float) -> None:
        if not self._store.is_available:
            self.note_failure()
            return
        if self.mode is Mode.LOCAL or self._is_due("roll", now, self._options.roll_call_s):
            await self._call_roll()
        if self.mode is Mode.LOCAL:
            if not self._roster.is_complete(now, self._options.return_within_s):
                return
            self._set_mode(Mode.STORE)
        await self._give_back(now)
        if self._is_due("slots", now, self._options.slot_life_s / 3):
            for slot in self.desk.open_slots():
                slot.is_stale = True
        await self._flush_all()
        if self._is_due("checkpoint", now, self._options.checkpoint_s):
            await self._refresh_quotas()
            await self._save_checkpoint()

    def _is_due(self, duty: str, now: float, every_s: float) -> bool:
        if now < self._due.get(duty, 0.0):
            return False
        self._due[duty] = now + every_s
        return True

    async def _call_roll(self) -> None:
        since = self._roster.returned_at_us
        now_us, alive, back = await self.ledger.call_roll(self._options.dead_after_s, since)
        now = self._now()
        self.set_clock(now_us, now)
        self._roster.note(alive, back, now_us, now)

    def note_failure(self) -> None:
        """A call failed: from now on each worker its share, if the store is really away."""
        if not self._store.is_available and self.mode is Mode.STORE:
            self._set_mode(Mode.LOCAL)
        if not self._store.is_available:
            self._roster.lose_store()

    def _set_mode(self, mode: Mode) -> None:
        self.mode = mode
        self.observer.mode_changed(mode)
        _log.warning("limiter_mode", mode=mode, workers=self.workers, store=self._store.shown_url)

    # Reservations.

    def reservations(self, request: Request, now: float) -> tuple[tuple[QuotaView, int], ...]:
        """Quotas that count a request, with what is to be held in each."""
        tenant = request.plan.tenant
        now_us = self.server_now_us(now)
        held = []
        for quota in request.plan.quotas:
            estimates = self._tokens if quota.measure is Measure.TOKENS else self._bytes
            view = self.desk.quota(tenant, quota, now_us)
            held.append((view, amount_to_hold(view, estimates.expect(tenant.id, request.name))))
        return tuple(held)

    def report_quota(self, view: QuotaView, percent: int) -> None:
        """Report a quota that passed a mark."""
        if percent:
            self.observer.quota_reached(view.tenant_id, view.quota.name, percent)
            if view.quota.shadow and percent >= 100:
                self.observer.shadow_refused(view.tenant_id, view.quota.name)

    async def settle(self, grant: Grant, usage: Usage) -> None:
        """Correct reservations to what was spent, and count the request as ended."""
        tenant_id = grant.plan.tenant.id
        for view, held in grant.reserved:
            spent = amount_spent(view, held, usage)
            self._owe(view, spent - held)
        if (
            any(view.quota.measure is Measure.TOKENS for view, _ in grant.reserved)
            and usage.tokens is not None
        ):
            self._tokens.learn(tenant_id, grant.operation, usage.tokens)
        if any(view.quota.measure is Measure.BYTES for view, _ in grant.reserved):
            self._bytes.learn(tenant_id, grant.operation, usage.bytes)
        self.close_slots(grant.slots)
        await self._flush_quietly(tenant_id)

    async def refund(self, grant: Grant) -> None:
        """Give everything back."""
        self.give_back(grant.drawn)
        for quota, held in grant.reserved:
            self._owe(quota, -held)
        self.close_slots(grant.slots)
        if grant.reserved or grant.slots:
            await self._flush_quietly(grant.plan.tenant.id)

    async def undo(self, taken: Iterable[Taken], tenant_id: str) -> None:
        """Give back what was taken for a decision that failed later on."""
        for one in taken:
            self.give_back(one.drawn)
            for quota, held in one.reserved:
                self._owe(quota, -held)
            self.close_slots(one.slots)
        await self._flush_quietly(tenant_id)

    def give_back(self, tokens: Iterable[tuple[BucketView, float]]) -> None:
        """Return tokens with the next call about their bucket, or with the next round."""
        for view, amount in tokens:
            view.given_back += amount
            self.holding.add(view)

    def _owe(self, view: QuotaView, correction: int) -> None:
        view.pending += correction
        if view.pending:
            self._owing.setdefault(view.tenant_id, {})[id(view)] = view

    def owe_all(self, reserved: Iterable[tuple[QuotaView, int]]) -> None:
        """Count reservations the store could not be told."""
        for view, held in reserved:
            self._owe(view, held)

    def close_slots(self, slots: Iterable[SlotView]) -> None:
        """Count open requests as ended."""
        for slot in slots:
            slot.own -= 1
            slot.is_stale = True

    # Telling the store.

    async def _flush_quietly(self, tenant_id: str) -> None:
        if self.mode is Mode.STORE:
            with contextlib.suppress(StoreFault):
                await self._flush(tenant_id)

    async def _flush_all(self) -> None:
        tenants = {*self._owing, *(slot.tenant_id for slot in self.desk.open_slots() if slot.is_stale)}
        for tenant_id in tenants:
            await self._flush(tenant_id)

    async def _flush(self, tenant_id: str) -> None:
        """Tell the store all corrections of a tenant in one call; those that join meanwhile go together."""
        async with self._flushing.setdefault(tenant_id, asyncio.Lock()):
            quotas = tuple(self._owing.pop(tenant_id, {}).values())
            slots = self.desk.stale_slots(tenant_id)
            if not quotas and not slots:
                return
            amounts = [view.pending for view in quotas]
            question = Question(
                quotas=tuple(
                    view.question(amount, is_enforced=False)
                    for view, amount in zip(quotas, amounts, strict=True)
                ),
                slots=tuple(slot.question(is_wanted=False) for slot in slots),
            )
            for view in quotas:
                view.pending = 0
            for slot in slots:
                slot.is_stale = False
            try:
                answer = await self.ledger.ask(question)
            except StoreFault as fault:
                self._restore(quotas, amounts, slots, fault)
                self.note_failure()
                raise
            if answer.is_stale:
                self._restore_current(quotas, amounts, slots, answer.now_us)
                return
            for view, used in zip(quotas, answer.used, strict=True):
                self.report_quota(view, view.learn(used))

    def _restore(
        self,
        quotas: tuple[QuotaView, ...],
        amounts: list[int],
        slots: tuple[SlotView, ...],
        fault: StoreFault,
    ) -> None:
        """Owe again what was not told. What may have been told is owed again only where that refuses more."""
        for view, amount in zip(quotas, amounts, strict=True):
            if amount > 0 or fault.trouble in _NOT_SENT:
                self._owe(view, amount)
        for slot in slots:
            slot.is_stale = True

    def _restore_current(
        self, quotas: tuple[QuotaView, ...], amounts: list[int], slots: tuple[SlotView, ...], now_us: int
    ) -> None:
        """A period ended meanwhile: corrections to it are void, the others are told next time."""
        self.set_clock(now_us, self._now())
        for view, amount in zip(quotas, amounts, strict=True):
            if view.span.start_us <= now_us < view.span.end_us:
                self._owe(view, amount)
        for slot in slots:
            slot.is_stale = True

    async def _give_back(self, now: float) -> None:
        """Return leases that ended with tokens left."""
        ended = []
        for view in tuple(self.holding):
            if view.lease and now >= view.lease_until:
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
        if fault.trouble in _NOT_SENT:
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
        noted = {view.key: view.used + view.pending for view in self.desk.quotas()}
        await asyncio.to_thread(self._checkpoint.save, noted, self.desk.floors)

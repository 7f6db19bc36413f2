"""What the store has not been told yet about quotas and open requests, and telling it.

All corrections of a tenant go in one call. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from cbk_gateway.limits.counters import QuotaView
from cbk_gateway.limits.ledger import Answer, Question, QuotaQuestion
from cbk_gateway.limits.options import LimiterOptions
from cbk_gateway.store import StoreFault, StoreTrouble

if TYPE_CHECKING:
    from cbk_gateway.limits.bookkeeping import Bookkeeping

NOT_SENT: Final = frozenset({StoreTrouble.OPEN, StoreTrouble.CLOSED})
_GRACE_S: Final = 1.0  # a busy tenant's next question tells it as well, without a call of its own


class Arrears:
    """What one worker owes the store.

    Args:
        books: The books this is a part of.
        options: The limiter's.
        clock: Monotonic seconds.
    """

    def __init__(self, books: Bookkeeping, options: LimiterOptions, clock: Callable[[], float]) -> None:
        self._books = books
        self._options = options
        self._now = clock
        self._owing: dict[str, dict[int, QuotaView]] = {}
        self._leased: dict[int, QuotaView] = {}
        self._flushing: dict[str, asyncio.Lock] = {}

    # Entering.

    def owe(self, view: QuotaView, correction: int) -> None:
        """Tell the store so much, some time."""
        view.pending += correction
        if view.pending or view.is_lost:
            self._owing.setdefault(view.tenant_id, {})[id(view)] = view

    def lose_store(self) -> None:
        """The store is away: when it is back, every count is told again, should it have forgotten."""
        for view in self._books.desk.quotas():
            view.is_lost = True
            self._owing.setdefault(view.tenant_id, {})[id(view)] = view

    def correct(self, view: QuotaView, correction: int) -> bool:
        """Enter what a request spent beyond what was held, or less. Returns whether to tell the store now."""
        must_tell = view.correct(correction, self._now())
        if view.pending:
            self._owing.setdefault(view.tenant_id, {})[id(view)] = view
        return must_tell

    def lease(self, view: QuotaView) -> None:
        """Give what a lease holds back when its time is over."""
        if view.lease:
            self._leased[id(view)] = view

    def end_leases(self, now: float) -> None:
        """Owe what is left of the leases that ended."""
        for key, view in tuple(self._leased.items()):
            if now >= view.lease_until + _GRACE_S:
                self._leased.pop(key)
                self.end_lease(view)

    def end_all(self) -> None:
        """End every lease now."""
        for view in self._leased.values():
            self.end_lease(view)
        self._leased.clear()

    def end_lease(self, view: QuotaView) -> None:
        """Owe all that a lease has left."""
        view.lease_until = 0.0
        view.give_back(0)
        self.owe(view, 0)

    # Telling.

    async def flush_quietly(self, tenant_id: str) -> None:
        """Tell what is owed, if the store is there."""
        with contextlib.suppress(StoreFault):
            await self.flush(tenant_id)

    async def flush_all(self) -> None:
        """Tell everything. Raises `StoreFault`."""
        slots = self._books.desk.open_slots()
        for tenant_id in {*self._owing, *(slot.tenant_id for slot in slots if slot.is_stale)}:
            await self.flush(tenant_id)

    async def flush(self, tenant_id: str) -> None:
        """Tell the store all corrections of a tenant in one call; those that join meanwhile go together.

        Raises:
            StoreFault: There was no answer; what may be owed still is.
        """
        books = self._books
        async with self._flushing.setdefault(tenant_id, asyncio.Lock()):
            quotas = tuple(self._owing.pop(tenant_id, {}).values())
            slots = books.desk.stale_slots(tenant_id)
            if not quotas and not slots:
                return
            asked = tuple(slot.report(books.workers) for slot in slots)
            question = Question(quotas=tuple(view.report() for view in quotas), slots=asked)
            began = self._now()
            try:
                answer = await books.ledger.ask(question)
            except StoreFault as fault:
                self.restore(fault, zip(quotas, question.quotas, strict=True))
                for slot in slots:
                    slot.lose()
                books.note_failure()
                raise
            if answer.is_stale:
                self.restore_current(answer, zip(quotas, question.quotas, strict=True))
                for slot in slots:
                    slot.lose()
                return
            for view, used in zip(quotas, answer.used, strict=True):
                books.report_quota(view, view.learn(used))
            until = began + self._options.slot_life_s
            for slot, one, total in zip(slots, asked, answer.open, strict=True):
                slot.enter(one, total, 0, until, is_admitted=True)

    def restore(self, fault: StoreFault, asked: Iterable[tuple[QuotaView, QuotaQuestion]]) -> None:
        """Owe again what was not told. What may have been told is owed again only where that refuses more."""
        for view, question in asked:
            if question.correction > 0 or fault.trouble in NOT_SENT:
                self.owe(view, question.correction)

    def restore_current(self, answer: Answer, asked: Iterable[tuple[QuotaView, QuotaQuestion]]) -> None:
        """A period ended meanwhile: corrections to it are void, the others are told next time."""
        self._books.set_clock(answer.now_us, self._now())
        for view, question in asked:
            if view.span.start_us <= answer.now_us < view.span.end_us:
                self.owe(view, question.correction)

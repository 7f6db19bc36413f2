"""One decision by the store: what to ask, in which order, and what the answer means.

On one server everything is asked in one call. On a Cluster limits of different hash tags are asked in
order (the tenant's with its quotas and open requests, then the account's, then the one over everything), and
when a later one refuses, what the earlier ones gave is given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.counters import QuotaView, SlotView
from cbk_gateway.limits.decision import Request, Taken, quota_refusal, rate_refusal, slot_refusal
from cbk_gateway.limits.desk import bucket_question, enter
from cbk_gateway.limits.ledger import Answer, Kind, Question
from cbk_gateway.limits.options import LimiterOptions
from cbk_gateway.store import StoreFault

if TYPE_CHECKING:
    from cbk_gateway.limits.bookkeeping import Bookkeeping

MICRO: Final = 1_000_000
_JOIN_S: Final = 0.05  # how long to live on slices that others fetch before asking oneself
_QUOTA_MEMORY_S: Final = 1.0  # settling may free some of a quota, so its refusals are remembered briefly


@dataclass(frozen=True, slots=True)
class Pull:
    """One bucket of a request: its cost, and how much to lease besides."""

    view: BucketView
    cost: float
    want: float


@dataclass(frozen=True, slots=True)
class Counters:
    """The quotas and open-request counts of a request."""

    quotas: tuple[tuple[QuotaView, int], ...] = ()
    slots: tuple[SlotView, ...] = ()


class Inquiry:
    """One request being decided. Made for one `decide()`.

    Args:
        request: What to decide.
        books: This worker's books.
        options: The limiter's.
        clock: Monotonic seconds.
    """

    __slots__ = ("_books", "_calls", "_clock", "_costs", "_options", "_plan", "_request")

    def __init__(
        self, request: Request, books: Bookkeeping, options: LimiterOptions, clock: Callable[[], float]
    ) -> None:
        self._request = request
        self._plan = request.plan
        self._books = books
        self._options = options
        self._clock = clock
        self._costs = tuple((books.desk.bucket(ref), cost) for ref, cost in request.plan.draws)
        self._calls = 0

    async def decide(self) -> Taken:
        """Draw on leases first and ask the store for the rest.

        Raises:
            StoreFault: There was no answer; nothing is held by this worker.
        """
        now = self._clock()
        for view, cost in self._costs:
            view.note(cost, now)
        while True:
            known = self._from_leases() or self._remembered()
            if known is not None:
                return known
            refill = next((view.refill for view, _ in self._costs if view.refill is not None), None)
            if refill is None or self._clock() - now > _JOIN_S:
                break
            # Somebody is fetching a slice already; a crowd must not fetch one each.
            await asyncio.wait((refill,))
        return await self._ask()

    def _from_leases(self) -> Taken | None:
        """Take everything from leases, if that is all that is needed."""
        now = self._clock()
        if not self._plan.needs_no_store or not all(view.covers(cost, now) for view, cost in self._costs):
            return None
        for view, cost in self._costs:
            view.lease -= cost
        return Taken(drawn=self._costs)

    def _remembered(self) -> Taken | None:
        """A refusal that nothing can have changed since."""
        now = self._clock()
        for view, cost in self._costs:
            if view.blocks(cost, now) and not view.covers(cost, now):
                return rate_refusal(view, view.blocked_until - now, now)
        for quota, amount in self._books.reservations(self._request, now):
            if quota.blocks(amount, now):
                return quota_refusal(quota, self._books.server_now_us(now), self._plan.tenant.timezone)
        return None

    async def _ask(self) -> Taken:
        now, options = self._clock(), self._options
        held = tuple((view, cost) for view, cost in self._costs if view.covers(cost, now))
        for view, cost in held:
            view.lease -= cost
        sizing = (options.lease_life_s, options.lease_min_rate, options.lease_min_tokens, self._books.workers)
        pulls = [
            # While one slice is on its way, whoever cannot wait for it asks for its own token alone: a crowd
            # that fetched a slice each would drain the bucket.
            Pull(view, cost, view.slice_tokens(*sizing) if view.refill is None else 0.0)
            for view, cost in self._costs
            if (view, cost) not in held
        ]
        refill: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        fetching = [pull.view for pull in pulls if pull.want > 0]
        for view in fetching:
            view.refill = refill
        taken: Taken | None = None
        try:
            taken = await self._ask_in_order(pulls)
        finally:
            for view in fetching:
                view.refill = None
            refill.set_result(None)
            if taken is None or taken.refusal is not None:
                self._books.give_back(held)
        if taken.refusal is not None:
            return taken
        return Taken(drawn=held + taken.drawn, reserved=taken.reserved, slots=taken.slots)

    async def _ask_in_order(self, pulls: list[Pull]) -> Taken:
        """Ask group by group; undo the earlier groups when a later one refuses or does not answer."""
        got: list[Taken] = []
        tenant_id = self._plan.tenant.id
        try:
            for tag, group in self._groups(pulls):
                taken = await self._ask_group(group, with_counters=tag == tenant_id)
                if taken.refusal is not None:
                    await self._books.undo(got, tenant_id)
                    return taken
                got.append(taken)
        except (StoreFault, asyncio.CancelledError):
            await self._books.undo(got, tenant_id)
            raise
        finally:
            self._books.observer.asked_store(self._calls)
        return Taken(
            drawn=tuple(one for taken in got for one in taken.drawn),
            reserved=tuple(one for taken in got for one in taken.reserved),
            slots=tuple(one for taken in got for one in taken.slots),
        )

    def _groups(self, pulls: list[Pull]) -> list[tuple[str, list[Pull]]]:
        """Buckets by hash tag in the order of decision; the tenant's are first, with its counters."""
        tenant_id = self._plan.tenant.id
        if not self._books.is_cluster:
            return [(tenant_id, pulls)]
        groups: dict[str, list[Pull]] = {} if self._plan.needs_no_store else {tenant_id: []}
        for pull in pulls:
            groups.setdefault(pull.view.ref.tag, []).append(pull)
        return list(groups.items())

    async def _ask_group(self, group: list[Pull], *, with_counters: bool) -> Taken:
        slots = self._books.desk.slots_of(self._plan) if with_counters else ()
        while True:
            began = self._clock()
            quotas = self._books.reservations(self._request, began) if with_counters else ()
            counters = Counters(quotas, slots)
            answer = await self._ask_once(group, counters)
            now = self._clock()
            self._books.set_clock(answer.now_us, now)
            if not answer.is_stale:
                break
        enter((pull.view for pull in group), answer, now)
        for (quota, _), used in zip(quotas, answer.used, strict=True):
            self._books.report_quota(quota, quota.learn(used))
        if not answer.is_admitted:
            return self._refused(group, counters, answer, now)
        self._lease(group, answer, began, now)
        for pull, missed in zip(group, answer.missed, strict=True):
            if missed:
                self._books.observer.shadow_refused(self._plan.tenant.id, pull.view.policy)
        paid = zip(group, answer.missed, strict=True)
        drawn = tuple((pull.view, pull.cost) for pull, missed in paid if not missed)
        return Taken(drawn=drawn, reserved=quotas, slots=slots)

    async def _ask_once(self, group: Sequence[Pull], counters: Counters) -> Answer:
        """Send the question. Whatever comes of it, the worker's own books are right afterwards."""
        books = self._books
        for pull in group:
            pull.view.end_lease()
        question = Question(
            tuple(bucket_question(pull.view, pull.cost, pull.want, books.workers) for pull in group),
            tuple(view.question(amount, is_enforced=view.is_enforced) for view, amount in counters.quotas),
            tuple(slot.question(is_wanted=True) for slot in counters.slots),
        )
        back = [(pull.view, pull.view.take_report()) for pull in group]
        for slot in counters.slots:
            # Counted before the answer: requests decided meanwhile must see it.
            slot.own += 1
        is_admitted = False
        self._calls += 1
        try:
            answer = await books.ledger.ask(question)
            is_admitted = answer.is_admitted
        except StoreFault as fault:
            books.keep_unsent(fault, back)
            raise
        finally:
            if not is_admitted:
                books.close_slots(counters.slots)
        if answer.is_stale:
            books.give_back(back)
        return answer

    def _lease(self, group: Iterable[Pull], answer: Answer, began: float, now: float) -> None:
        """Hold what was leased. A bucket that could not fill the slice is left alone for a moment."""
        life_s = self._options.lease_life_s
        for pull, extra in zip(group, answer.extras, strict=True):
            if extra > 0:
                # The lease's life is counted from before the call, so it ends here before it does there.
                pull.view.begin_lease(extra, began + life_s, answer.now_us // int(life_s * MICRO))
                self._books.holding.add(pull.view)
            if extra < pull.want:
                pull.view.block(pull.cost, now + pull.view.spacing_s(pull.want, self._books.workers))

    def _refused(self, group: list[Pull], counters: Counters, answer: Answer, now: float) -> Taken:
        if answer.kind is Kind.QUOTA:
            quota, amount = counters.quotas[answer.index]
            quota.block(amount, now + _QUOTA_MEMORY_S)
            return quota_refusal(quota, answer.now_us, self._plan.tenant.timezone)
        if answer.kind is Kind.SLOT:
            return slot_refusal(counters.slots[answer.index])
        pull = group[answer.index]
        wait_s = max(answer.wait_us / MICRO, pull.view.spacing_s(pull.want, self._books.workers))
        pull.view.block(pull.cost, now + wait_s)
        return rate_refusal(pull.view, wait_s, now)

"""One decision by the store: what to ask, in which order, and what the answer means.

On one server everything is asked in one call. On a Cluster limits of different hash tags are asked in
order (the tenant's with its quotas and open requests, then the account's, then the one over everything), and
when a later one refuses, what the earlier ones gave is given back.

Whatever is asked renews the leases of all limits in the same question, so that they end together: a busy
tenant costs one call per lease's life, however many limits it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.counters import QuotaView, SlotView
from cbk_gateway.limits.decision import Request, Taken, quota_refusal, rate_refusal, slot_refusal
from cbk_gateway.limits.desk import bucket_question, enter
from cbk_gateway.limits.ledger import Answer, Kind, Question, QuotaQuestion, SlotQuestion
from cbk_gateway.limits.options import LimiterOptions
from cbk_gateway.store import StoreFault

if TYPE_CHECKING:
    from cbk_gateway.limits.bookkeeping import Bookkeeping

MICRO: Final = 1_000_000
_JOIN_S: Final = 0.04  # how long to wait for slices that others fetch before asking oneself
_LEAST_PLACES: Final = 2
_QUOTA_MEMORY_S: Final = 1.0  # settling may free some of a quota, so its refusals are remembered briefly


@dataclass(frozen=True, slots=True)
class Pull:
    """One bucket of a request: its cost, and how much to lease besides."""

    view: BucketView
    cost: float
    want: float


@dataclass(frozen=True, slots=True)
class Count:
    """One quota of a request: what to hold, and how much to have on lease besides."""

    view: QuotaView
    amount: int
    want: int


@dataclass(frozen=True, slots=True)
class Place:
    """One bound on open requests: how many free places to keep besides the one that is needed."""

    view: SlotView
    want: int


@dataclass(frozen=True, slots=True)
class Group:
    """What is asked in one call."""

    pulls: tuple[Pull, ...] = ()
    counts: tuple[Count, ...] = ()
    places: tuple[Place, ...] = ()

    def fetching(self) -> Iterator[BucketView | QuotaView | SlotView]:
        """What is leased besides what is needed, if it is given."""
        yield from (pull.view for pull in self.pulls if pull.want > 0)
        yield from (count.view for count in self.counts if count.want > 0)
        yield from (place.view for place in self.places if place.want > 0)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that was answered: what was asked, when, and the answer."""

    group: Group
    slots: tuple[SlotQuestion, ...]
    answer: Answer
    began: float
    now: float


class Inquiry:
    """One request being decided. Made for one `decide()`.

    Args:
        request: What to decide.
        books: This worker's books.
        options: The limiter's.
        clock: Monotonic seconds.
    """

    __slots__ = ("_books", "_calls", "_clock", "_options", "_plan", "_request", "_views")

    def __init__(
        self, request: Request, books: Bookkeeping, options: LimiterOptions, clock: Callable[[], float]
    ) -> None:
        self._request = request
        self._plan = request.plan
        self._views = request.views
        self._books = books
        self._options = options
        self._clock = clock
        self._calls = 0

    async def decide(self) -> Taken:
        """Draw on leases first and ask the store for the rest.

        Raises:
            StoreFault: There was no answer; nothing is held by this worker.
        """
        now = self._clock()
        for view, cost in self._views.draws:
            view.note(cost, now)
        if not self._plan.needs_no_store:
            self._views.asked.note(1.0, now)
        while True:
            known = self._known()
            if known is not None:
                return known
            refill, patience_s = self._refill(), _JOIN_S - (self._clock() - now)
            if refill is None or patience_s <= 0:
                break
            # Somebody is fetching a slice already; a crowd must not fetch one each.
            await asyncio.wait((refill,), timeout=patience_s)
        return await self._ask()

    def _known(self) -> Taken | None:
        """Take everything from leases, or refuse as nothing can have changed since the last refusal."""
        now, views = self._clock(), self._views
        held = self._books.reservations(self._request, now)
        if views.take(held, now):
            return Taken(drawn=views.draws, reserved=held, slots=views.slots)
        for view, cost in views.draws:
            if view.blocks(cost, now) and not view.covers(cost, now):
                return rate_refusal(view, view.blocked[cost] - now, now)
        for quota, amount in held:
            if quota.blocks(amount, now) and not quota.covers(amount, now):
                return quota_refusal(quota, self._books.server_now_us(now), self._plan.tenant.timezone)
        for slot in views.slots:
            if slot.own >= slot.most:
                return slot_refusal(slot)
        return None

    def _refill(self) -> asyncio.Future[None] | None:
        """What another request is fetching that this one could live on."""
        views = self._views
        refills = [view.refill for view, _ in views.draws]
        refills += [view.refill for view in views.quotas]
        refills += [slot.refill for slot in views.slots]
        return next((one for one in refills if one is not None), None)

    async def _ask(self) -> Taken:
        now = self._clock()
        groups = self._groups(now)
        asked = {id(pull.view) for group in groups for pull in group.pulls}
        held = tuple((view, cost) for view, cost in self._views.draws if id(view) not in asked)
        for view, cost in held:
            view.spend(cost)
        refill: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        fetching = [view for group in groups for view in group.fetching()]
        for limit in fetching:
            limit.refill = refill
        taken: Taken | None = None
        try:
            taken = await self._ask_in_order(groups)
        finally:
            for limit in fetching:
                limit.refill = None
            refill.set_result(None)
            if taken is None or taken.refusal is not None:
                self._books.give_back(held)
        if taken.refusal is not None:
            return taken
        return Taken(drawn=held + taken.drawn, reserved=taken.reserved, slots=taken.slots)

    async def _ask_in_order(self, groups: Iterable[Group]) -> Taken:
        """Ask group by group; undo the earlier groups when a later one refuses or does not answer."""
        got: list[Taken] = []
        try:
            for group in groups:
                taken = await self._ask_group(group)
                if taken.refusal is not None:
                    self._books.undo(got)
                    return taken
                got.append(taken)
        except (StoreFault, asyncio.CancelledError):
            self._books.undo(got)
            raise
        finally:
            self._books.observer.asked_store(self._calls)
        return Taken(
            drawn=tuple(one for taken in got for one in taken.drawn),
            reserved=tuple(one for taken in got for one in taken.reserved),
            slots=tuple(one for taken in got for one in taken.slots),
        )

    def _groups(self, now: float) -> list[Group]:
        """What to ask, call by call; the tenant's buckets are first, with its counters.

        On a Cluster a bucket of another hash tag is left out while its lease pays.
        """
        tenant_id = self._plan.tenant.id
        by_tag: dict[str, list[Pull]] = {tenant_id: []}
        for view, cost in self._views.draws:
            tag = view.ref.tag if self._books.is_cluster else tenant_id
            if tag == tenant_id or not view.covers(cost, now):
                by_tag.setdefault(tag, []).append(Pull(view, cost, self._want(view)))
        own = by_tag.pop(tenant_id)
        counters = self._counters(now)
        first = Group(tuple(own), counters.counts, counters.places)
        return [first] * (bool(own) or not self._plan.needs_no_store) + [
            Group(tuple(pulls)) for pulls in by_tag.values()
        ]

    def _want(self, view: BucketView) -> float:
        # While one slice is on its way, whoever cannot wait for it asks for its own token alone: a crowd that
        # fetched a slice each would drain the bucket.
        if view.refill is not None:
            return 0.0
        options = self._options
        return view.slice_tokens(
            options.lease_life_s, options.lease_min_rate, options.lease_min_tokens, self._books.workers
        )

    def _counters(self, now: float) -> Group:
        """The tenant's quotas and open requests, with what to have of them in advance."""
        options, per_second = self._options, self._views.asked.per_second
        requests = per_second * options.lease_life_s if per_second >= options.lease_min_rate else 0.0
        return Group(
            counts=tuple(
                Count(view, amount, int(requests * amount) if view.refill is None else 0)
                for view, amount in self._books.reservations(self._request, now)
            ),
            places=tuple(Place(slot, _places_wanted(slot) if requests else 0) for slot in self._views.slots),
        )

    async def _ask_group(self, group: Group) -> Taken:
        while True:
            asked = await self._ask_once(group)
            self._books.set_clock(asked.answer.now_us, asked.now)
            if not asked.answer.is_stale:
                break
            counters = self._counters(asked.now)
            group = Group(group.pulls, counters.counts, counters.places)
        answer = asked.answer
        enter((pull.view for pull in group.pulls), answer, asked.now)
        self._enter_counters(asked)
        if not answer.is_admitted:
            return self._refused(asked)
        self._lease(asked)
        for pull, missed in zip(group.pulls, answer.missed, strict=True):
            if missed:
                self._books.observer.shadow_refused(self._plan.tenant.id, pull.view.policy)
        paid = zip(group.pulls, answer.missed, strict=True)
        return Taken(
            drawn=tuple((pull.view, pull.cost) for pull, missed in paid if not missed),
            reserved=tuple((count.view, count.amount) for count in group.counts),
            slots=tuple(place.view for place in group.places),
        )

    async def _ask_once(self, group: Group) -> Asked:
        """Send the question. Whatever comes of it, the worker's own books are right afterwards."""
        books = self._books
        for pull in group.pulls:
            pull.view.end_lease()
        workers, began = books.workers, self._clock()
        question = Question(
            tuple(bucket_question(pull.view, pull.cost, pull.want, workers) for pull in group.pulls),
            tuple(self._quota_question(count) for count in group.counts),
            tuple(place.view.question(wanted=place.want, workers=workers) for place in group.places),
        )
        back = [(pull.view, pull.view.take_report()) for pull in group.pulls]
        slots = tuple(place.view for place in group.places)
        corrections = tuple(zip((count.view for count in group.counts), question.quotas, strict=True))
        self._calls += 1
        try:
            answer = await books.ledger.ask(question)
        except BaseException as exc:
            self._take_back(group, question)
            for slot in slots:
                slot.lose()
            if isinstance(exc, StoreFault):
                books.keep_unsent(exc, back)
                books.arrears.restore(exc, corrections)
            raise
        if answer.is_stale:
            books.give_back(back)
            books.arrears.restore_current(answer, corrections)
        if not answer.is_admitted:
            self._take_back(group, question)
        if answer.is_stale:
            for slot in slots:
                slot.lose()
        return Asked(group, question.slots, answer, began, self._clock())

    @staticmethod
    def _take_back(group: Group, question: Question) -> None:
        """Undo what was entered in advance for a request that was not admitted."""
        for count, asked in zip(group.counts, question.quotas, strict=True):
            count.view.lease += asked.paid
        for place in group.places:
            place.view.own -= 1

    def _quota_question(self, count: Count) -> QuotaQuestion:
        if count.want:
            # What settling gave back piles up: of more than can be used, the rest returns.
            count.view.give_back(2 * count.want)
        return count.view.question(count.amount, wanted=count.want, workers=self._books.workers)

    def _enter_counters(self, asked: Asked) -> None:
        """Enter what the answer says of quotas and open requests."""
        answer, options, group = asked.answer, self._options, asked.group
        until = asked.began + options.lease_life_s
        for count, used, extra in zip(group.counts, answer.used, answer.allotted, strict=True):
            view = count.view
            view.lease += extra
            # A lease must not be used in the next period. Without one, settling goes to the store itself.
            ends = min(until, asked.began + (view.span.end_us - answer.now_us) / MICRO)
            view.lease_until = ends if view.lease else 0.0
            self._books.arrears.lease(view)
            self._books.report_quota(view, view.learn(used))
        until = asked.began + options.slot_life_s
        is_admitted = answer.is_admitted
        for place, one, total, extra in zip(
            group.places, asked.slots, answer.open, answer.places, strict=True
        ):
            place.view.enter(one, total, extra, until, is_admitted=is_admitted)

    def _lease(self, asked: Asked) -> None:
        """Hold what was leased. A bucket that could not fill the slice is left alone for a moment."""
        life_s, answer = self._options.lease_life_s, asked.answer
        for pull, extra, tokens in zip(asked.group.pulls, answer.extras, answer.tokens, strict=True):
            view, cost = pull.view, pull.cost
            if extra > 0:
                # The lease's life is counted from before the call, so it ends here before it does there.
                view.begin_lease(extra, asked.began + life_s, answer.now_us // int(life_s * MICRO))
                self._books.holding.add(view)
            # Of a request that costs more than a slice only the store can tell when it may pass.
            if extra < pull.want and cost <= pull.want:
                due_s = (cost - tokens) / view.ref.rate.per_second
                view.block(cost, asked.now + max(due_s, view.spacing_s(pull.want, self._books.workers)))

    def _refused(self, asked: Asked) -> Taken:
        answer, group, now = asked.answer, asked.group, asked.now
        if answer.kind is Kind.QUOTA:
            count = group.counts[answer.index]
            count.view.block(count.amount, now + min(_QUOTA_MEMORY_S, answer.wait_us / MICRO))
            return quota_refusal(count.view, answer.now_us, self._plan.tenant.timezone)
        if answer.kind is Kind.SLOT:
            return slot_refusal(group.places[answer.index].view)
        pull = group.pulls[answer.index]
        wait_s = max(answer.wait_us / MICRO, pull.view.spacing_s(pull.want, self._books.workers))
        pull.view.block(pull.cost, now + wait_s)
        return rate_refusal(pull.view, wait_s, now)


def _places_wanted(slot: SlotView) -> int:
    return max(_LEAST_PLACES, slot.peak - slot.own) if slot.refill is None else 0

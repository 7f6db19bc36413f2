"""One decision by the store: what to ask, in which order, and what the answer means.

On one server everything is asked in one call. On a Cluster limits of different hash tags are asked in
order (tenant with its quotas and open requests, then account, then everything), and when a later one refuses,
what the earlier ones gave is given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cbk_gateway.errors import Refusal
from cbk_gateway.limits import answers
from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.counters import QuotaView, SlotView
from cbk_gateway.limits.desk import bucket_question, enter
from cbk_gateway.limits.ledger import Answer, Kind, Question
from cbk_gateway.limits.options import LimiterOptions
from cbk_gateway.limits.plan import Plan, label
from cbk_gateway.limits.reservation import quota_standing, reset_text
from cbk_gateway.operation import Operation
from cbk_gateway.store import StoreFault

if TYPE_CHECKING:
    from cbk_gateway.limits.bookkeeping import Bookkeeping

MICRO = 1_000_000
_JOINED_REFILLS = 3


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be decided."""

    plan: Plan
    operation: Operation

    @property
    def name(self) -> str:
        """The operation's bounded name."""
        return self.operation.route.audit_name


@dataclass(frozen=True, slots=True)
class Taken:
    """A decision.

    Attributes:
        drawn: What was taken from buckets.
        reserved: What is held in quotas.
        slots: Where an open request was counted.
        refusal: Why not, or None when admitted; then nothing was taken.
        outcome: Word for reports: admitted, rate, quota, concurrency, unavailable.
        policy: The policy that refused, or "".
        wait_s: When waiting helps, how long.
    """

    drawn: tuple[tuple[BucketView, float], ...] = ()
    reserved: tuple[tuple[QuotaView, int], ...] = ()
    slots: tuple[SlotView, ...] = ()
    refusal: Refusal | None = None
    outcome: str = "admitted"
    policy: str = ""
    wait_s: float = 0.0


async def decide_by_store(
    request: Request, books: Bookkeeping, options: LimiterOptions, clock: Callable[[], float]
) -> Taken:
    """Draw on leases first and ask the store for the rest.

    Raises:
        StoreFault: There was no answer; nothing is held by this worker.
    """
    views = [(books.desk.bucket(ref), cost) for ref, cost in request.plan.draws]
    now = clock()
    for view, cost in views:
        view.note(cost, now)
    for _ in range(_JOINED_REFILLS):
        held = _from_leases(request.plan, views, clock())
        if held is not None:
            return Taken(drawn=held)
        refusal = _remembered(request.plan, views, clock())
        if refusal is not None:
            return refusal
        refill = next((view.refill for view, _ in views if view.refill is not None), None)
        if refill is None:
            break
        # Somebody is fetching a slice already; a crowd must not fetch one each.
        await asyncio.wait((refill,))
    return await _ask(request, views, books, options, clock)


def _from_leases(
    plan: Plan, views: Iterable[tuple[BucketView, float]], now: float
) -> tuple[tuple[BucketView, float], ...] | None:
    """Take everything from leases, if that is all that is needed."""
    drawn = tuple(views)
    if not plan.needs_no_store or not all(view.covers(cost, now) for view, cost in drawn):
        return None
    for view, cost in drawn:
        view.lease -= cost
    return drawn


def _remembered(plan: Plan, views: Iterable[tuple[BucketView, float]], now: float) -> Taken | None:
    for view, cost in views:
        if view.blocks(cost, now) and not view.covers(cost, now):
            return rate_refusal(view, view.blocked_until - now, now)
    return None


async def _ask(
    request: Request,
    views: list[tuple[BucketView, float]],
    books: Bookkeeping,
    options: LimiterOptions,
    clock: Callable[[], float],
) -> Taken:
    now = clock()
    held = [(view, cost) for view, cost in views if view.covers(cost, now)]
    needed = [(view, cost) for view, cost in views if not view.covers(cost, now)]
    for view, cost in held:
        view.lease -= cost
    wants = {
        id(view): view.slice_tokens(options.lease_life_s, options.lease_min_rate, options.lease_min_tokens)
        for view, _ in needed
    }
    refill: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    fetching = [view for view, _ in needed if wants[id(view)] > 0]
    for view in fetching:
        view.refill = refill
    is_taken = False
    try:
        taken = await _ask_in_order(request, needed, wants, books, options, clock)
        is_taken = taken.refusal is None
        return (
            Taken(drawn=tuple(held) + taken.drawn, reserved=taken.reserved, slots=taken.slots)
            if is_taken
            else taken
        )
    finally:
        for view in fetching:
            view.refill = None
        refill.set_result(None)
        if not is_taken:
            for view, cost in held:
                view.given_back += cost
                books.holding.add(view)


async def _ask_in_order(
    request: Request,
    needed: list[tuple[BucketView, float]],
    wants: dict[int, float],
    books: Bookkeeping,
    options: LimiterOptions,
    clock: Callable[[], float],
) -> Taken:
    """Ask group by group; undo the earlier groups when a later one refuses or does not answer."""
    got: list[Taken] = []
    calls = 0
    try:
        for tag, group in _groups(request.plan, needed, is_cluster=books.is_cluster):
            is_tenants = tag == request.plan.tenant.id
            calls += 1
            taken = await _ask_group(request, group, wants, books, options, clock, with_counters=is_tenants)
            if taken.refusal is not None:
                await books.undo(got, request.plan.tenant.id)
                return taken
            got.append(taken)
    except (StoreFault, asyncio.CancelledError):
        await books.undo(got, request.plan.tenant.id)
        raise
    finally:
        books.observer.asked_store(calls)
    return Taken(
        drawn=tuple(one for taken in got for one in taken.drawn),
        reserved=tuple(one for taken in got for one in taken.reserved),
        slots=tuple(one for taken in got for one in taken.slots),
    )


def _groups(
    plan: Plan, needed: list[tuple[BucketView, float]], *, is_cluster: bool
) -> list[tuple[str, list[tuple[BucketView, float]]]]:
    """Buckets by hash tag in the order of decision; the tenant's group comes first, and alone if counters need it."""
    if not is_cluster:
        return [(plan.tenant.id, needed)]
    groups: dict[str, list[tuple[BucketView, float]]] = {}
    if not plan.needs_no_store:
        groups[plan.tenant.id] = []
    for view, cost in needed:
        groups.setdefault(view.ref.tag, []).append((view, cost))
    return list(groups.items())


async def _ask_group(
    request: Request,
    group: list[tuple[BucketView, float]],
    wants: dict[int, float],
    books: Bookkeeping,
    options: LimiterOptions,
    clock: Callable[[], float],
    *,
    with_counters: bool,
) -> Taken:
    views = [view for view, _ in group]
    slots = books.desk.slots_of(request.plan) if with_counters else ()
    while True:
        began = clock()
        quotas = books.reservations(request, began) if with_counters else ()
        answer = await _ask_once(group, wants, quotas, slots, books)
        books.set_clock(answer.now_us, clock())
        if not answer.is_stale:
            break
    now = clock()
    enter(views, answer, now)
    for (quota, _), used in zip(quotas, answer.used, strict=True):
        books.report_quota(quota, quota.learn(used))
    if not answer.is_admitted:
        return _refused(request, group, quotas, slots, answer, wants, now)
    _lease(group, answer, wants, began + options.lease_life_s, options.lease_life_s, now, books)
    for view, missed in zip(views, answer.missed, strict=True):
        if missed:
            books.observer.shadow_refused(request.plan.tenant.id, view.policy)
    paid = tuple(pair for pair, missed in zip(group, answer.missed, strict=True) if not missed)
    return Taken(drawn=paid, reserved=quotas, slots=slots)


async def _ask_once(
    group: list[tuple[BucketView, float]],
    wants: dict[int, float],
    quotas: tuple[tuple[QuotaView, int], ...],
    slots: tuple[SlotView, ...],
    books: Bookkeeping,
) -> Answer:
    """Send the question. Whatever comes of it, the worker's own books are right afterwards."""
    for view, _ in group:
        view.end_lease()
    question = Question(
        tuple(bucket_question(view, cost, wants[id(view)], books.workers) for view, cost in group),
        tuple(view.question(amount, is_enforced=view.is_enforced) for view, amount in quotas),
        tuple(slot.question(is_wanted=True) for slot in slots),
    )
    back = [view.given_back for view, _ in group]
    for view, _ in group:
        view.given_back = 0.0
        view.lease_epoch = -1
    for slot in slots:
        # Counted before the answer: requests decided meanwhile must see it.
        slot.own += 1
    is_admitted = False
    try:
        answer = await books.ledger.ask(question)
        is_admitted = answer.is_admitted
    except StoreFault as fault:
        books.keep_unsent(fault, zip((view for view, _ in group), back, strict=True))
        raise
    finally:
        if not is_admitted:
            books.close_slots(slots)
    if answer.is_stale:
        for (view, _), tokens in zip(group, back, strict=True):
            view.given_back += tokens
    return answer


def _lease(
    group: list[tuple[BucketView, float]],
    answer: Answer,
    wants: dict[int, float],
    until: float,
    life_s: float,
    now: float,
    books: Bookkeeping,
) -> None:
    """Hold what was leased; a bucket that could not fill the slice is left alone until it has refilled some."""
    for (view, cost), extra in zip(group, answer.extras, strict=True):
        want = wants[id(view)]
        if extra > 0:
            view.begin_lease(extra, until, answer.now_us // int(life_s * MICRO))
            books.holding.add(view)
        if want > 0 and extra < want:
            view.block(cost, now + view.spacing_s(want, books.workers))


def _refused(
    request: Request,
    group: list[tuple[BucketView, float]],
    quotas: tuple[tuple[QuotaView, int], ...],
    slots: tuple[SlotView, ...],
    answer: Answer,
    wants: dict[int, float],
    now: float,
    workers: int,
) -> Taken:
    if answer.kind is Kind.QUOTA:
        return quota_refusal(quotas[answer.index][0], answer.now_us, request.plan.tenant.timezone)
    if answer.kind is Kind.SLOT:
        return slot_refusal(slots[answer.index])
    view, cost = group[answer.index]
    wait_s = max(answer.wait_us / MICRO, view.spacing_s(wants[id(view)], books.workers))
    view.block(cost, now + wait_s)
    return rate_refusal(view, wait_s, now)


def rate_refusal(view: BucketView, wait_s: float, now: float) -> Taken:
    """A bucket's refusal as a decision."""
    standing = answers.standing_of(view.ref.rate, view.estimate(now))
    refusal = answers.rate_refusal(standing, wait_s, (standing,))
    return Taken(refusal=refusal, outcome="rate", policy=view.policy, wait_s=wait_s)


def quota_refusal(view: QuotaView, now_us: int, timezone: str) -> Taken:
    """A quota's refusal as a decision."""
    quota = view.quota
    refusal = answers.quota_refusal(
        quota_standing(view, now_us), label(quota.measure, quota.period), reset_text(view, timezone)
    )
    return Taken(refusal=refusal, outcome="quota", policy=quota.name)


def slot_refusal(slot: SlotView) -> Taken:
    """The refusal of a bound on open requests as a decision."""
    refusal = answers.slot_refusal(slot.kind, slot.most)
    return Taken(refusal=refusal, outcome="concurrency", policy=f"concurrent-{slot.kind}")

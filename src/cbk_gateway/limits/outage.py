"""Decisions while the store is away: each worker its share of every limit.

The bound. With N workers known to be alive, a worker's share of a bucket is burst / N and rate / N, so that
all together stay within the limit; the share starts from what the worker knew, and the store's bucket starts
from what the shares have left. A share is never smaller than the cost of one request, so a limit whose
burst is below N can admit up to N at once; and a worker that lost the store alone uses its share on top of
what the others get from the store. Quotas go on from the last known count plus what was counted since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cbk_gateway.limits import answers
from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.decision import Request, Taken, quota_refusal, rate_refusal, slot_refusal
from cbk_gateway.limits.desk import Held
from cbk_gateway.parties import StoreFailure

if TYPE_CHECKING:
    from cbk_gateway.limits.bookkeeping import Bookkeeping


def decide_locally(request: Request, books: Bookkeeping, now: float) -> Taken:
    """Decide by leases, shares and last known counts. Nothing is taken when anything refuses."""
    held = books.reservations(request, now)
    refusal = _counters_refuse(request, held, books, now)
    if refusal is not None:
        return refusal
    leased: list[tuple[BucketView, float]] = []
    shared: list[tuple[BucketView, float]] = []
    for view, cost in request.views.draws:
        view.note(cost, now)
        if view.covers(cost, now):
            view.spend(cost)
            leased.append((view, cost))
            continue
        refusal = _refusal_of(view, cost, books.workers, now)
        if refusal is not None:
            books.give_back(leased)
            for taken, amount in shared:
                taken.return_share(amount)
            return refusal
        shared.append((view, cost))
    for quota, amount in held:
        books.arrears.correct(quota, amount)
    for slot in request.views.slots:
        slot.open()
        slot.lose()
    # What came from a share is not the store's to take back: such draws are worth nothing on a refund.
    unpaid = tuple((view, 0.0) for view, _ in shared)
    return Taken(drawn=tuple(leased) + unpaid, reserved=held, slots=request.views.slots)


def _refusal_of(view: BucketView, cost: float, workers: int, now: float) -> Taken | None:
    """Take a request's cost from this worker's share, as the policy says; a refusal when that fails."""
    if view.ref.rate.shadow or view.on_store_failure is StoreFailure.ALLOW:
        return None
    if view.on_store_failure is StoreFailure.DENY:
        return Taken(
            refusal=answers.store_away_refusal(view.policy), outcome="unavailable", policy=view.policy
        )
    wait_s = view.take_share(cost, workers, now)
    return rate_refusal(view, wait_s, now) if wait_s > 0 else None


def _counters_refuse(request: Request, held: Held, books: Bookkeeping, now: float) -> Taken | None:
    for view, amount in held:
        if view.covers(amount, now) or not view.is_enforced or amount <= 0:
            continue
        if view.used + view.pending * books.workers + amount > view.quota.limit:
            return quota_refusal(view, books.server_now_us(now), request.plan.tenant.timezone)
    for slot in request.views.slots:
        if not slot.has_local_room(books.workers):
            return slot_refusal(slot)
    return None

"""The worker's books: views of buckets, quotas and slots by key, bounded in number.

Finds and forgets views, makes questions out of them and enters answers. It neither talks to the store nor
decides; the clock is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.calendar import span_of
from cbk_gateway.limits.counters import QuotaView, SlotView
from cbk_gateway.limits.demand import Demand
from cbk_gateway.limits.ledger import Answer, BucketQuestion
from cbk_gateway.limits.plan import BucketRef, Plan
from cbk_gateway.parties import Measure, Quota, Tenant

Draws = tuple[tuple[BucketView, float], ...]
"""Views of the buckets a request draws on, with the cost of each."""

Held = tuple[tuple[QuotaView, int], ...]
"""Views of the quotas a request counts in, with what is held in each."""


@dataclass(slots=True, eq=False)
class Views:
    """What a worker knows of all limits of one plan.

    Attributes:
        plan: The limits.
        draws: Its buckets.
        slots: Its counts of open requests.
        quotas: Its quotas, in the periods in which they were last looked at.
        held: What every request holds in them, when that is always the same; else None.
        asked: How many requests the tenant makes here; noted only where counters are involved.
    """

    plan: Plan
    draws: Draws
    slots: tuple[SlotView, ...]
    quotas: tuple[QuotaView, ...]
    asked: Demand
    held: Held | None = None

    def look_at(self, quotas: tuple[QuotaView, ...]) -> None:
        """Go on with the quotas of the present periods."""
        self.quotas = quotas
        if all(view.quota.measure is Measure.REQUESTS for view in quotas):
            self.held = tuple((view, 1) for view in quotas)

    def take(self, held: Held, now: float) -> bool:
        """Take a request's needs from leases, if they cover all of it; else nothing is taken."""
        for view, cost in self.draws:
            if view.lease < cost or now >= view.lease_until:
                return False
        for quota, amount in held:
            if quota.lease < amount or now >= quota.lease_until:
                return False
        for slot in self.slots:
            if slot.own >= slot.kept or now >= slot.kept_until:
                return False
        for view, cost in self.draws:
            view.spend(cost)
        for quota, amount in held:
            quota.lease -= amount
        for slot in self.slots:
            slot.open()
        return True


class Desk:
    """All views of one worker.

    Args:
        most: Buckets to remember; the least recently used is forgotten first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._has_forgotten = False
        self._buckets: OrderedDict[str, BucketView] = OrderedDict()
        self._quotas: dict[tuple[str, str], QuotaView] = {}
        self._slots: dict[tuple[str, str], SlotView] = {}
        self._asked: dict[str, Demand] = {}
        self.floors: dict[str, int] = {}
        """Quota counters noted down by an earlier run, by key."""

    def bucket(self, ref: BucketRef) -> BucketView:
        """The view of a bucket. A changed policy keeps what is known of the tokens."""
        view = self._buckets.get(ref.key)
        if view is None:
            view = self._buckets[ref.key] = BucketView(ref)
            if len(self._buckets) > self._most:
                self._forget_one()
            return view
        if view.ref.rate is not ref.rate:
            view.change_policy(ref)
        self._buckets.move_to_end(ref.key)
        return view

    def quota(self, tenant: Tenant, quota: Quota, now_us: int) -> QuotaView:
        """The view of a quota in the period that holds an instant."""
        key = (tenant.id, quota.name)
        view = self._quotas.get(key)
        is_current = view is not None and view.quota.period is quota.period
        if view is None or not (is_current and view.span.start_us <= now_us < view.span.end_us):
            view = QuotaView(tenant.id, quota, span_of(now_us, quota.period, tenant.timezone))
            view.used = self.floors.get(view.key, 0)
            self._quotas[key] = view
        view.quota = quota
        return view

    def slot(self, tenant_id: str, kind: str, most: int) -> SlotView:
        """The view of a tenant's open requests or streams."""
        view = self._slots.get((tenant_id, kind))
        if view is None:
            view = self._slots[tenant_id, kind] = SlotView(tenant_id, kind, most)
        view.most = most
        return view

    def views(self, plan: Plan, now_us: int) -> Views:
        """All views of a plan."""
        tenant = plan.tenant
        draws = tuple((self.bucket(ref), cost) for ref, cost in plan.draws)
        views = Views(plan, draws, self.slots_of(plan), (), self._asked.setdefault(tenant.id, Demand()))
        views.look_at(tuple(self.quota(tenant, quota, now_us) for quota in plan.quotas))
        return views

    def slots_of(self, plan: Plan) -> tuple[SlotView, ...]:
        """The views that a plan counts open requests in."""
        bounds = (("requests", plan.max_concurrent), ("streams", plan.max_streams))
        return tuple(self.slot(plan.tenant.id, kind, most) for kind, most in bounds if most is not None)

    def open_slots(self) -> Iterator[SlotView]:
        """Views whose entry in the store must be renewed or corrected."""
        return (view for view in self._slots.values() if view.own or view.kept or view.is_stale)

    def quotas(self) -> tuple[QuotaView, ...]:
        """All quotas used lately."""
        return tuple(self._quotas.values())

    def buckets(self) -> tuple[BucketView, ...]:
        """All buckets used lately."""
        return tuple(self._buckets.values())

    def stale_slots(self, tenant_id: str) -> tuple[SlotView, ...]:
        """Counts of a tenant's open requests that the store must still be told."""
        both = (self._slots.get((tenant_id, kind)) for kind in ("requests", "streams"))
        return tuple(one for one in both if one is not None and one.is_stale)

    def has_forgotten(self) -> bool:
        """Whether a bucket's view was forgotten since the last time this was asked."""
        had, self._has_forgotten = self._has_forgotten, False
        return had

    def _forget_one(self) -> None:
        for key, view in self._buckets.items():
            # What is held for others, or was used without the store's knowledge, must not get lost.
            if not (view.lease or view.given_back or view.is_shared):
                del self._buckets[key]
                self._has_forgotten = True
                return


def bucket_question(view: BucketView, cost: float, want: float, workers: int) -> BucketQuestion:
    """Ask about one bucket, telling the store what this worker knows of it."""
    ceiling = view.ceiling(workers)
    return BucketQuestion(view.ref.key, view.draw(cost, want), view.tokens, view.seen_at_us, ceiling)


def enter(views: Iterable[BucketView], answer: Answer, now: float) -> None:
    """Enter what an answer says about buckets."""
    for view, tokens in zip(views, answer.tokens, strict=True):
        view.learn(tokens, answer.now_us, now)

"""The books of one worker: found again, bounded, and never forgetting what is owed."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.desk import Desk, Views
from cbk_gateway.limits.plan import BucketRef, Plan, tenant_bucket
from cbk_gateway.parties import Measure, Period, Quota, Rate, Tenant
from cbk_gateway.secret import Secret

RATE = Rate("r", 10, 20)
_TENANT = Tenant("acme", "acct-1", Secret("k"))
_PLAN = Plan(_TENANT, (), (), None, None)
DAY_US = 86_400 * 1_000_000


def ref(number: int) -> BucketRef:
    return BucketRef(f"cbkgw:{{t}}:{number}", RATE, "t")


@given(st.lists(st.integers(0, 40), max_size=100), st.sets(st.integers(0, 40), max_size=5))
def test_no_more_buckets_are_remembered_than_allowed_but_for_what_is_owed(
    visits: list[int], holding: set[int]
) -> None:
    desk = Desk(8)
    for number in visits:
        view = desk.bucket(ref(number))
        view.lease = 1.0 if number in holding else 0.0
    known = {view.ref.key for view in desk.buckets()}
    assert len(known) <= 8 + len(holding)
    assert {ref(number).key for number in holding.intersection(visits)} <= known
    assert desk.has_forgotten() == (len(set(visits)) > len(known))
    assert not desk.has_forgotten()


def test_a_changed_policy_keeps_the_tokens_and_forgets_refusals(limited: Callable[..., Tenant]) -> None:
    desk, tenant = Desk(8), limited()
    view = desk.bucket(tenant_bucket(tenant, RATE))
    view.learn(3.0, 1, 5.0)
    view.block(1, 99.0)
    again = desk.bucket(tenant_bucket(tenant, Rate("r", 99, 200)))
    assert again is view
    assert (again.tokens, again.blocks(1, 50.0), again.ref.rate.burst) == (3.0, False, 200)


def test_a_new_period_has_a_view_of_its_own_which_begins_with_what_was_noted_down(
    limited: Callable[..., Tenant],
) -> None:
    desk, tenant = Desk(8), limited()
    quota = Quota("q", Period.DAY, Measure.REQUESTS, 10)
    desk.floors["cbkgw:{acme}:quota:q:1970-01-02"] = 4
    today = desk.quota(tenant, quota, 5)
    assert desk.quota(tenant, quota, DAY_US - 1) is today
    tomorrow = desk.quota(tenant, quota, DAY_US)
    assert (today.used, tomorrow.used, tomorrow.span.name) == (0, 4, "1970-01-02")
    assert desk.quotas() == (tomorrow,)


def test_places_are_looked_after_while_anything_is_open_or_kept() -> None:
    desk = Desk(8)
    slot = desk.slot("acme", "requests", 5)
    assert list(desk.open_slots()) == []
    slot.kept = 1
    assert list(desk.open_slots()) == [slot]
    assert desk.stale_slots("acme") == ()
    slot.is_stale = True
    assert desk.stale_slots("acme") == (slot,)
    assert desk.slot("acme", "requests", 9).most == 9


@given(
    st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=3),
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=3),
    st.lists(st.booleans(), max_size=2),
)
def test_leases_pay_for_all_or_for_nothing(
    buckets: list[tuple[float, bool]], quotas: list[tuple[int, bool]], places: list[bool]
) -> None:
    desk, tenant = Desk(8), _TENANT
    draws = tuple((BucketView(ref(number)), 1.0) for number in range(len(buckets)))
    for (view, _), (lease, lives) in zip(draws, buckets, strict=True):
        view.lease, view.lease_until = lease, 10.0 if lives else 0.0
    held = tuple(
        (desk.quota(tenant, Quota(f"q{number}", Period.DAY, Measure.REQUESTS, 10), 5), 1)
        for number in range(len(quotas))
    )
    for (quota, _), (amount, lives) in zip(held, quotas, strict=True):
        quota.lease, quota.lease_until = amount, 10.0 if lives else 0.0
    slots = tuple(
        desk.slot("acme", kind, 5) for kind, _ in zip(("requests", "streams"), places, strict=False)
    )
    for slot, has_place in zip(slots, places, strict=True):
        slot.kept, slot.kept_until = int(has_place), 10.0
    views = Views(_PLAN, draws, slots, (), desk.views(_PLAN, 5).asked)
    before = (
        *(view.lease for view, _ in draws),
        *(one.lease for one, _ in held),
        *(-slot.own for slot in slots),
    )
    could = (
        all(lease >= 1 and lives for lease, lives in buckets)
        and all(amount >= 1 and lives for amount, lives in quotas)
        and all(places)
    )
    assert views.take(held, 5.0) == could
    after = (
        *(view.lease for view, _ in draws),
        *(one.lease for one, _ in held),
        *(-slot.own for slot in slots),
    )
    assert after == tuple(one - could for one in before)

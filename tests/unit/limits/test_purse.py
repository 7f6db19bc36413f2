"""What is drawn by comparison is what a claim would have drawn, and nothing of it is lost to the demand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cbk_gateway.limits import Claim, Limiter
from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.demand import Demand
from cbk_gateway.operation import understand
from cbk_gateway.parties import Rate, Tenant
from cbk_gateway.store import Store

LIST = understand("GET", "/api/v1/bot/list")
NOW = 100.0
MakeTenant = Callable[..., Tenant]


def drawn(claim: Claim, now: float) -> bool:
    """Draw as a caller may who looks at nothing but the purse."""
    purse = claim.purse
    lease = purse.lease - claim.cost
    if lease >= purse.plenty and now < purse.plenty_until and not claim.queues:
        purse.lease = lease
        return True
    return False


def claimed(store: Store, tenant: Tenant) -> tuple[Claim, BucketView]:
    limiter = Limiter(store, clock=lambda: NOW)
    claim = limiter.claim(tenant, "s", LIST)
    assert claim is not None
    (view,) = limiter._books.desk.buckets()
    return claim, view


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 60), st.integers(0, 80), st.floats(NOW, NOW + 1), st.floats(0, 0.02), st.booleans())
async def test_a_comparison_admits_only_what_the_claim_would_in_the_same_words(
    closed_store: Store,
    limited: MakeTenant,
    lease: int,
    left: int,
    until: float,
    later_s: float,
    is_shadow: bool,
) -> None:
    tenant = limited(rates=(Rate("tenant", 7, 80, shadow=is_shadow),))
    both = [claimed(closed_store, tenant) for _ in range(2)]
    for claim, view in both:
        view.learn(left, 1, NOW - 0.5)
        view.begin_lease(lease, until, 1)
        claim.draw(NOW)
    (one, view), (other, twin) = both
    is_drawn, said = drawn(one, NOW + later_s), other.draw(NOW + later_s)
    if is_drawn:
        assert said == one.full
        assert view.lease == twin.lease
    elif said is not None:
        assert one.draw(NOW + later_s) == said


async def test_a_full_bucket_is_drawn_on_by_comparison_between_two_looks(
    closed_store: Store, limited: MakeTenant
) -> None:
    claim, view = claimed(closed_store, limited(rates=(Rate("tenant", 100, 100),)))
    view.learn(90, 1, NOW - 1)
    view.begin_lease(50, NOW + 1, 1)
    assert not drawn(claim, NOW)
    assert claim.draw(NOW) == claim.full
    assert all(drawn(claim, NOW + 0.009) for _ in range(20))
    assert view.lease == 29
    assert not drawn(claim, NOW + 0.01)


@pytest.mark.parametrize("is_renewed", [False, True], ids=["one lease", "a lease that was renewed"])
async def test_the_demand_is_told_of_every_draw(
    closed_store: Store, limited: MakeTenant, is_renewed: bool
) -> None:
    claim, view = claimed(closed_store, limited(rates=(Rate("tenant", 1000, 1000),)))
    view.learn(1000, 1, NOW - 1)
    view.begin_lease(500, NOW + 1, 1)
    claim.draw(NOW)
    times = sum(drawn(claim, NOW + 0.005) for _ in range(200))
    assert times == 200
    if is_renewed:
        view.begin_lease(300, NOW + 1, 2)
        assert view.given_back == 500 - 1 - 200
    assert claim.draw(NOW + 0.02) == claim.full
    counted = Demand()
    counted.note(claim.cost, NOW, claim.cost)
    counted.note(201 * claim.cost, NOW + 0.02, claim.cost)
    assert view.asked.per_second == counted.per_second > 0
    assert view.lease == (299 if is_renewed else 500 - 202)
    assert claim.drawn == 2


async def test_what_is_noted_apart_is_not_told_twice(closed_store: Store, limited: MakeTenant) -> None:
    claim, view = claimed(closed_store, limited(rates=(Rate("tenant", 1000, 1000),)))
    view.learn(1000, 1, NOW - 1)
    view.begin_lease(500, NOW + 1, 1)
    claim.draw(NOW)
    for _ in range(100):
        view.note(1, NOW)
        view.spend(1)
    claim.draw(NOW + 0.02)
    counted = Demand()
    for _ in range(101):
        counted.note(1, NOW)
    counted.note(1, NOW + 0.02)
    assert view.asked.per_second == counted.per_second


@pytest.mark.parametrize(
    "happen",
    [
        lambda view: view.learn(0, 2, NOW),
        lambda view: view.begin_lease(50, NOW + 1, 2),
        lambda view: view.end_lease(),
        lambda view: view.expire_lease(NOW),
        lambda view: view.change_policy(view.ref),
    ],
    ids=["the store speaks", "a new lease", "the lease goes back", "the worker stops", "another policy"],
)
async def test_what_changes_the_bucket_ends_the_plenty(
    closed_store: Store, limited: MakeTenant, happen: Callable[[BucketView], None]
) -> None:
    claim, view = claimed(closed_store, limited(rates=(Rate("tenant", 100, 100),)))
    view.learn(100, 1, NOW - 1)
    view.begin_lease(50, NOW + 1, 1)
    claim.draw(NOW)
    assert drawn(claim, NOW)
    happen(view)
    assert not drawn(claim, NOW)


async def test_while_somebody_waits_in_line_the_claim_is_asked(
    closed_store: Store, limited: MakeTenant
) -> None:
    tenant = limited(rates=(Rate("tenant", 100, 100),), max_wait_s=1.0)
    limiter = Limiter(closed_store, clock=lambda: NOW)
    claim = limiter.claim(tenant, "s", LIST)
    assert claim is not None
    (view,) = limiter._books.desk.buckets()
    view.learn(100, 1, NOW - 1)
    view.begin_lease(50, NOW + 1, 1)
    assert claim.draw(NOW) == claim.full
    assert drawn(claim, NOW)
    async with limiter._pacer.turn("somebody else", 1.0):
        assert not drawn(claim, NOW)
        assert claim.draw(NOW) == claim.full
    async with limiter._pacer.turn(tenant.id, 1.0):
        assert not drawn(claim, NOW)
        assert claim.draw(NOW) is None
    assert drawn(claim, NOW)


async def test_what_nothing_limits_is_always_admitted(closed_store: Store, limited: MakeTenant) -> None:
    claim = Limiter(closed_store, clock=lambda: NOW).claim(limited(), "s", LIST)
    assert claim is not None
    assert claim.full == b""
    assert all(drawn(claim, NOW + second) for second in range(100))

"""Without the store: each worker its share, all or nothing, and what each policy says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cbk_gateway.limits.bookkeeping import Bookkeeping
from cbk_gateway.limits.decision import Request, Taken
from cbk_gateway.limits.outage import decide_locally
from cbk_gateway.limits.plan import plan_for
from cbk_gateway.operation import understand
from cbk_gateway.parties import Measure, Period, Quota, Rate, StoreFailure, Tenant

LIST = understand("GET", "/api/v1/bot/list")
RATE = Rate("tenant", 0.001, 40)
DAILY = Quota("daily", Period.DAY, Measure.REQUESTS, 40)

MakeTenant = Callable[..., Tenant]
Books = Callable[..., Bookkeeping]


def request(one: Bookkeeping, tenant: Tenant) -> Request:
    plan = plan_for(tenant, "s", LIST, is_stream=False, global_rate=None, account_rates={})
    return Request(one.desk.views(plan, one.server_now_us(100.0)), LIST)


def decide(one: Bookkeeping, tenant: Tenant, times: int) -> list[Taken]:
    return [decide_locally(request(one, tenant), one, 100.0) for _ in range(times)]


def admitted(taken: list[Taken]) -> int:
    return sum(one.refusal is None for one in taken)


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "limits",
    [{"rates": (RATE,)}, {"quotas": (DAILY,)}, {"max_concurrent": 40}],
    ids=["rate", "quota", "open"],
)
async def test_the_shares_of_all_workers_add_up_to_the_limit(
    books: Books, limited: MakeTenant, workers: int, limits: dict[str, object]
) -> None:
    tenant = limited(**limits)
    counts = [admitted(decide(books(expected_workers=workers), tenant, 60)) for _ in range(workers)]
    assert sum(counts) == 40


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [(StoreFailure.DENY, "unavailable"), (StoreFailure.ALLOW, "admitted"), (StoreFailure.LOCAL, "admitted")],
)
async def test_a_policy_says_what_happens(
    books: Books, limited: MakeTenant, failure: StoreFailure, outcome: str
) -> None:
    tenant = limited(rates=(replace(RATE, on_store_failure=failure),))
    assert [one.outcome for one in decide(books(), tenant, 3)] == [outcome] * 3


async def test_nothing_is_taken_when_anything_refuses(books: Books, limited: MakeTenant) -> None:
    one = books()
    poor = Rate("poor", 0.001, 2)
    tenant = limited(rates=(RATE, poor), quotas=(DAILY,), max_concurrent=30)
    taken = decide(one, tenant, 10)
    assert admitted(taken) == 2
    assert {refused.policy for refused in taken[2:]} == {"poor"}
    # The other rate lost two tokens, the quota two units and the bound two places.
    assert admitted(decide(one, limited(rates=(RATE,)), 50)) == 38
    assert one.desk.quotas()[0].pending == 2
    assert [slot.own for slot in one.desk.open_slots()] == [2]


async def test_a_soft_quota_and_a_shadow_refuse_nothing(books: Books, limited: MakeTenant) -> None:
    tenant = limited(
        rates=(replace(RATE, burst=1, shadow=True),), quotas=(replace(DAILY, limit=1, hard=False),)
    )
    assert admitted(decide(books(), tenant, 10)) == 10


async def test_leases_are_spent_first_and_what_they_paid_is_not_owed(
    books: Books, limited: MakeTenant
) -> None:
    one = books()
    tenant = limited(rates=(RATE,), quotas=(DAILY,))
    asked = request(one, tenant)
    ((bucket, _),), (quota,) = asked.views.draws, asked.views.quotas
    bucket.begin_lease(5, 200.0, 1)
    quota.used, quota.lease, quota.lease_until = 38, 5, 200.0
    assert admitted(decide(one, tenant, 5)) == 5
    assert (bucket.lease, quota.lease, quota.pending) == (0, 0, 0)
    assert admitted(decide(one, tenant, 10)) == 2

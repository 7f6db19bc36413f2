"""A question that gets no answer: the worker's own books are right afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cbk_gateway.errors import LimitsReached, TooManyRequests
from cbk_gateway.limits import LimiterOptions
from cbk_gateway.limits.bookkeeping import Bookkeeping
from cbk_gateway.limits.decision import Request
from cbk_gateway.limits.desk import Views
from cbk_gateway.limits.inquiry import Inquiry
from cbk_gateway.limits.plan import plan_for
from cbk_gateway.operation import understand
from cbk_gateway.parties import Measure, Period, Quota, Rate, Tenant
from cbk_gateway.store import StoreFault

LIST = understand("GET", "/api/v1/bot/list")
LIMITS = {
    "rates": (Rate("tenant", 100, 200),),
    "quotas": (Quota("daily", Period.DAY, Measure.REQUESTS, 1000),),
    "max_concurrent": 10,
}

MakeTenant = Callable[..., Tenant]
Books = Callable[..., Bookkeeping]


def views(one: Bookkeeping, tenant: Tenant) -> Views:
    plan = plan_for(tenant, "s", LIST, is_stream=False, global_rate=None, account_rates={})
    return one.desk.views(plan, one.server_now_us(100.0))


def inquiry(one: Bookkeeping, known: Views) -> Inquiry:
    return Inquiry(Request(known, LIST), one, LimiterOptions(), lambda: 100.0)


async def test_what_was_not_sent_is_still_held(books: Books, limited: MakeTenant) -> None:
    one = books()
    known = views(one, limited(**LIMITS))
    ((bucket, _),), (quota,), (slot,) = known.draws, known.quotas, known.slots
    bucket.begin_lease(7, 200.0, 1)
    one.arrears.owe(quota, -3)
    slot.own = slot.kept = 2
    with pytest.raises(StoreFault):
        await inquiry(one, known).decide()
    assert (bucket.lease, bucket.given_back) == (0, 7)
    assert (quota.pending, quota.lease) == (-3, 0)
    assert (slot.own, slot.kept, slot.is_stale) == (2, 2, True)
    assert [view.refill for view in (bucket, quota, slot)] == [None] * 3


async def test_leases_are_enough_when_they_cover_everything(books: Books, limited: MakeTenant) -> None:
    one = books()
    known = views(one, limited(**LIMITS))
    ((bucket, _),), (quota,), (slot,) = known.draws, known.quotas, known.slots
    bucket.begin_lease(7, 200.0, 1)
    quota.lease, quota.lease_until = 3, 200.0
    slot.kept, slot.kept_until = 1, 200.0
    taken = await inquiry(one, known).decide()
    assert taken.refusal is None
    assert (bucket.lease, quota.lease, slot.own) == (6, 2, 1)


async def test_what_was_refused_a_moment_ago_is_refused_without_asking(
    books: Books, limited: MakeTenant
) -> None:
    one = books()
    known = views(one, limited(**LIMITS))
    ((bucket, _),), (quota,), (slot,) = known.draws, known.quotas, known.slots
    bucket.block(1.0, 102.5)
    refused = await inquiry(one, known).decide()
    assert isinstance(refused.refusal, TooManyRequests)
    assert (refused.policy, refused.wait_s, refused.refusal.headers["Retry-After"]) == ("tenant", 2.5, "3")
    bucket.blocked.clear()
    quota.block(1, 101.0)
    assert isinstance((await inquiry(one, known).decide()).refusal, LimitsReached)
    quota.blocked_until = 0.0
    slot.own = 10
    assert (await inquiry(one, known).decide()).policy == "concurrent-requests"

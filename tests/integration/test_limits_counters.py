"""Quotas and open requests through the limiter, on a real store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cbk_gateway.errors import LimitsReached, TooManyRequests
from cbk_gateway.limits import Grant, Limiter, Usage
from cbk_gateway.parties import Measure, Period, Quota, Rate, Tenant
from cbk_gateway.store import Store
from integration.limits_stage import COMPLETE, LIST, MakeLimiter, MakeTenant, Watch, make

__all__ = ["make"]

REQUESTS = Quota("daily", Period.DAY, Measure.REQUESTS, 5)
TOKENS = Quota("tokens", Period.MONTH, Measure.TOKENS, 10_000)
BYTES = Quota("bytes", Period.DAY, Measure.BYTES, 100_000)


async def used(limiter: Limiter, tenant: Tenant) -> int:
    return (await limiter.quota_show(tenant))[0].used


async def test_a_used_up_quota_refuses_with_its_own_code(make: MakeLimiter, limited: MakeTenant) -> None:
    limiter, tenant = await make(), limited(quotas=(REQUESTS,))
    grants = [await limiter.admit(tenant, "s", LIST) for _ in range(5)]
    assert grants[4].headers["X-RateLimit-Remaining"] == "0"
    for _ in range(2):
        with pytest.raises(LimitsReached) as caught:
            await limiter.admit(tenant, "s", LIST)
        assert caught.value.code == "LIMITS_REACHED"
        assert "'daily'" in caught.value.message
        assert 1 <= int(caught.value.headers["Retry-After"]) <= 86_400
    assert await used(limiter, tenant) == 5


async def test_a_soft_quota_warns_at_the_marks_and_refuses_nothing(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    marks = Watch()
    limiter = await make(marks)
    tenant = limited(quotas=(Quota("soft", Period.DAY, Measure.REQUESTS, 10, hard=False),))
    for _ in range(12):
        await limiter.admit(tenant, "s", LIST)
    assert marks.marks == [("soft", 80), ("soft", 100)]
    assert await used(limiter, tenant) == 12


async def test_tokens_are_held_before_the_call_and_settled_after(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    limiter, tenant = await make(token_estimate=400), limited(quotas=(TOKENS,))
    grant = await limiter.admit(tenant, "s", COMPLETE)
    assert await used(limiter, tenant) == 400
    await grant.settle(Usage(tokens=37, bytes=10))
    await grant.settle(Usage(tokens=37, bytes=10))
    assert await used(limiter, tenant) == 37


async def test_the_next_hold_is_learnt_from_the_tenants_own_calls(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    limiter, tenant = await make(token_estimate=400), limited(quotas=(TOKENS,))
    for _ in range(30):
        await (await limiter.admit(tenant, "s", COMPLETE)).settle(Usage(tokens=100, bytes=0))
    before = await used(limiter, tenant)
    await limiter.admit(tenant, "s", COMPLETE)
    assert 100 <= await used(limiter, tenant) - before < 120


async def test_nothing_sent_is_nothing_counted(make: MakeLimiter, limited: MakeTenant) -> None:
    limiter, tenant = await make(), limited(quotas=(REQUESTS, TOKENS, BYTES))
    grant = await limiter.admit(tenant, "s", COMPLETE)
    await grant.refund()
    await grant.settle(Usage(tokens=5, bytes=5))
    assert [one.used for one in await limiter.quota_show(tenant)] == [0, 0, 0]


async def test_an_answer_that_tells_no_tokens_counts_what_was_held(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    limiter, tenant = await make(token_estimate=400), limited(quotas=(TOKENS,))
    await (await limiter.admit(tenant, "s", COMPLETE)).settle(Usage(tokens=None, bytes=10))
    assert await used(limiter, tenant) == 400


async def test_a_used_up_token_budget_stops_models_and_not_reads(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    limiter, tenant = await make(), limited(quotas=(TOKENS,))
    await (await limiter.admit(tenant, "s", COMPLETE)).settle(Usage(tokens=10_000, bytes=0))
    with pytest.raises(LimitsReached):
        await limiter.admit(tenant, "s", COMPLETE)
    await limiter.admit(tenant, "s", LIST)


async def test_bytes_are_counted_as_answered(make: MakeLimiter, limited: MakeTenant) -> None:
    limiter, tenant = await make(), limited(quotas=(BYTES,))
    await (await limiter.admit(tenant, "s", LIST)).settle(Usage(tokens=None, bytes=1234))
    assert await used(limiter, tenant) == 1234


async def test_simultaneous_requests_do_not_overshoot_a_quota(make: MakeLimiter, limited: MakeTenant) -> None:
    tenant = limited(quotas=(REQUESTS,))
    limiters = [await make() for _ in range(4)]
    outcomes = await asyncio.gather(
        *(limiter.admit(tenant, "s", LIST) for limiter in limiters for _ in range(10)), return_exceptions=True
    )
    assert sum(isinstance(one, Grant) for one in outcomes) == 5


async def test_operators_grant_and_reset_a_quota(make: MakeLimiter, limited: MakeTenant) -> None:
    limiter, tenant = await make(), limited(quotas=(REQUESTS,), timezone="Europe/Berlin")
    for _ in range(5):
        await limiter.admit(tenant, "s", LIST)
    granted = await limiter.quota_grant(tenant, "daily", 2)
    assert (granted.used, granted.limit) == (3, 5)
    for _ in range(2):
        await limiter.admit(tenant, "s", LIST)
    with pytest.raises(LimitsReached):
        await limiter.admit(tenant, "s", LIST)
    assert (await limiter.quota_reset(tenant, "daily")).used == 0
    await limiter.admit(tenant, "s", LIST)
    with pytest.raises(KeyError):
        await limiter.quota_grant(tenant, "other", 1)


async def test_a_store_that_forgot_gets_quotas_back_from_memory_and_from_disk(
    make: MakeLimiter, limited: MakeTenant, store: Store, tmp_path: Path
) -> None:
    tenant = limited(quotas=(REQUESTS,))
    first = await make(checkpoint_directory=tmp_path)
    for _ in range(3):
        await first.admit(tenant, "s", LIST)
    await store.client.flushall()
    await first.admit(tenant, "s", LIST)
    assert await used(first, tenant) == 4
    await first.stop()
    await store.client.flushall()
    second = await make(checkpoint_directory=tmp_path)
    await second.admit(tenant, "s", LIST)
    assert await used(second, tenant) == 5
    with pytest.raises(LimitsReached):
        await second.admit(tenant, "s", LIST)


async def test_open_requests_are_bounded_over_workers_and_free_themselves(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    tenant = limited(max_concurrent=2)
    one, two = await make(), await make()
    grants = [await one.admit(tenant, "s", LIST), await two.admit(tenant, "s", LIST)]
    with pytest.raises(TooManyRequests, match="concurrent-requests"):
        await one.admit(tenant, "s", LIST)
    await grants[1].settle(Usage(None, 0))
    await one.admit(tenant, "s", LIST)
    assert (await two.show(tenant)).open[0].open == 2


async def test_streams_have_a_bound_of_their_own(make: MakeLimiter, limited: MakeTenant) -> None:
    limiter, tenant = await make(), limited(max_streams=1)
    grant = await limiter.admit(tenant, "s", COMPLETE, is_stream=True)
    await limiter.admit(tenant, "s", LIST)
    with pytest.raises(TooManyRequests, match="concurrent-streams"):
        await limiter.admit(tenant, "s", COMPLETE, is_stream=True)
    await grant.refund()
    await limiter.admit(tenant, "s", COMPLETE, is_stream=True)


async def test_a_sequential_client_under_a_bound_of_one_is_never_refused(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    limiter, tenant = await make(), limited(max_concurrent=1, rates=(Rate("tenant", 1000, 1000),))
    for _ in range(50):
        await (await limiter.admit(tenant, "s", LIST)).settle(Usage(None, 0))


async def test_a_refused_request_holds_neither_slot_nor_quota_nor_token(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    limiter = await make()
    tenant = limited(max_concurrent=1, quotas=(REQUESTS,), rates=(Rate("tenant", 0.001, 10),))
    grant = await limiter.admit(tenant, "s", LIST)
    for _ in range(5):
        with pytest.raises(TooManyRequests):
            await limiter.admit(tenant, "s", LIST)
    await grant.settle(Usage(None, 0))
    standing = await limiter.show(tenant)
    assert (standing.open[0].open, standing.quotas[0].used) == (0, 1)
    assert standing.rates[0].tokens == pytest.approx(9, abs=0.01)

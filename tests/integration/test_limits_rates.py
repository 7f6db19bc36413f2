"""Rates through the limiter, on a real store: several at once, leases, headers, pacing, shadows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from cbk_gateway.errors import Refusal, TooManyRequests
from cbk_gateway.limits import Filling, Limiter
from cbk_gateway.parties import Rate, Tenant
from integration.limits_stage import COMPLETE, CREATE, LIST, MakeLimiter, MakeTenant, Watch, admitted, make

__all__ = ["make"]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)


def has_queued(order: list[int], limiter: Limiter, number: int) -> bool:
    """Whether request `number` is waiting or through."""
    return len(order) + limiter._pacer.length("acme") > number


def drain(limiter: Limiter, tenant: Tenant) -> None:
    """Call the fast path until it refuses."""
    for _ in range(50):
        limiter.admit_now(tenant, "s", LIST)


async def test_eleven_quick_calls_see_the_burst_and_an_honest_wait(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    limiter, tenant = await make(), limited(rates=(Rate("tenant", 0.5, 10),))
    remaining = []
    for _ in range(10):
        grant = await limiter.admit(tenant, "s", LIST)
        remaining.append(int(grant.headers["X-RateLimit-Remaining"]))
    assert remaining == list(range(9, -1, -1))
    with pytest.raises(TooManyRequests) as caught:
        await limiter.admit(tenant, "s", LIST)
    refusal = caught.value
    assert refusal.headers["Retry-After"] == "2"
    assert refusal.headers["RateLimit"] == '"tenant";r=0;t=2'
    assert refusal.headers["RateLimit-Policy"] == '"tenant";q=10;w=20'
    assert "'tenant'" in refusal.message
    assert refusal.code == "TOO_MANY_REQUESTS"


async def test_one_request_per_second_is_exact_over_workers(make: MakeLimiter, limited: MakeTenant) -> None:
    tenant = limited(rates=(Rate("tenant", 1, 1),))
    limiters = [await make() for _ in range(4)]
    counts = await asyncio.gather(*(admitted(one, tenant, LIST, 50) for one in limiters))
    assert sum(counts) == 1


async def test_all_limits_give_or_none(make: MakeLimiter, limited: MakeTenant) -> None:
    rates = (Rate("tenant", 0.01, 10), Rate("writes", 0.01, 2, match="*:write"))
    limiter, tenant = await make(), limited(rates=rates)
    assert await admitted(limiter, tenant, CREATE, 8) == 2
    assert await admitted(limiter, tenant, LIST, 20) == 8


async def test_a_class_counts_what_its_pattern_matches(make: MakeLimiter, limited: MakeTenant) -> None:
    rates = (Rate("chat", 0.01, 3, match="conversation:complete"),)
    limiter, tenant = await make(), limited(rates=rates)
    assert await admitted(limiter, tenant, COMPLETE, 6) == 3
    assert await admitted(limiter, tenant, LIST, 6) == 6


async def test_costs_are_taken_per_class(make: MakeLimiter, limited: MakeTenant) -> None:
    costs = {COMPLETE.route.cost_class: 5.0}
    limiter, tenant = await make(), limited(rates=(Rate("tenant", 0.01, 12),), costs=costs)
    assert await admitted(limiter, tenant, COMPLETE, 4) == 2
    assert await admitted(limiter, tenant, LIST, 4) == 2


async def test_each_subject_has_a_bucket_of_its_own(make: MakeLimiter, limited: MakeTenant) -> None:
    limiter, tenant = await make(), limited(subject_rate=Rate("subject", 0.01, 2))
    assert await admitted(limiter, tenant, LIST, 5, "alice") == 2
    assert await admitted(limiter, tenant, LIST, 5, "bob") == 2


async def test_tenants_of_one_account_share_the_accounts_bucket(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    limiter = await make(account_rates={"acct-1": Rate("account", 0.01, 3)})
    assert await admitted(limiter, limited("one"), LIST, 2) == 2
    assert await admitted(limiter, limited("two"), LIST, 5) == 1
    assert await admitted(limiter, limited("three", "acct-2"), LIST, 5) == 5


async def test_the_global_bucket_is_over_everybody(make: MakeLimiter, limited: MakeTenant) -> None:
    limiter = await make(global_rate=Rate("global", 0.01, 4))
    counts = [await admitted(limiter, limited(name, name), LIST, 3) for name in ("a", "b")]
    assert counts == [3, 1]


async def test_a_shadow_is_counted_and_never_enforced(make: MakeLimiter, limited: MakeTenant) -> None:
    watch = Watch()
    rates = (Rate("tenant", 0.01, 10), Rate("planned", 0.01, 3, shadow=True))
    limiter, tenant = await make(watch), limited(rates=rates)
    assert await admitted(limiter, tenant, LIST, 8) == 8
    assert watch.shadows == ["planned"] * 5


async def test_a_tenant_without_limits_costs_the_store_nothing(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    watch = Watch()
    limiter = await make(watch)
    grant = await limiter.admit(limited(), "s", LIST)
    assert (watch.calls, dict(grant.headers)) == (0, {})


async def test_a_refund_gives_the_token_back_once(make: MakeLimiter, limited: MakeTenant) -> None:
    limiter, tenant = await make(), limited(rates=(Rate("tenant", 0.001, 2),))
    grants = [await limiter.admit(tenant, "s", LIST) for _ in range(2)]
    await grants[0].refund()
    await grants[0].refund()
    await limiter.stop()
    assert (await limiter.show(tenant)).rates[0].tokens == pytest.approx(1, abs=0.01)


async def test_a_hot_tenant_costs_a_twentieth_of_a_call_and_gives_unused_tokens_back(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    watch = Watch()
    limiter, tenant = await make(watch), limited(rates=(Rate("tenant", 200, 4000),))
    assert await admitted(limiter, tenant, LIST, 2000) == 2000
    assert watch.calls <= 0.05 * 2000
    before = (await limiter.show(tenant)).rates[0].tokens
    await limiter.stop()
    after = (await limiter.show(tenant)).rates[0].tokens
    assert after > before


async def test_the_fast_path_serves_from_a_lease_and_refuses_from_memory(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    limiter, tenant = await make(), limited(rates=(Rate("tenant", 100, 200),))
    assert limiter.admit_now(tenant, "s", LIST) is None
    assert await admitted(limiter, tenant, LIST, 30) == 30
    grant = limiter.admit_now(tenant, "s", LIST)
    assert grant is not None
    assert int(grant.headers["X-RateLimit-Remaining"]) < 200
    assert await admitted(limiter, tenant, LIST, 1000) < 300
    with pytest.raises(TooManyRequests):
        drain(limiter, tenant)


async def test_a_crowd_that_arrives_together_does_not_fetch_a_slice_each(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    limiter, tenant = await make(), limited(rates=(Rate("tenant", 1000, 4000),))
    await admitted(limiter, tenant, LIST, 60)
    await asyncio.gather(*(limiter.admit(tenant, "s", LIST) for _ in range(300)))
    # What is gone was spent, or is the rest of one slice of 125.
    assert (await limiter.show(tenant)).rates[0].tokens >= 4000 - 360 - 2 * 125


async def test_a_cancelled_request_leaves_no_token_behind(make: MakeLimiter, limited: MakeTenant) -> None:
    limiter, tenant = await make(), limited(rates=(Rate("tenant", 0.001, 5),), max_concurrent=5)
    tasks = [asyncio.create_task(limiter.admit(tenant, "s", LIST)) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in outcomes)
    await limiter.stop()
    standing = await limiter.show(tenant)
    assert standing.rates[0].tokens == pytest.approx(5, abs=0.01)
    assert standing.open[0].open == 0


async def test_a_paced_request_waits_for_its_token_in_order(make: MakeLimiter, limited: MakeTenant) -> None:
    watch = Watch()
    limiter, tenant = await make(watch), limited(rates=(Rate("tenant", 20, 1),), max_wait_s=2.0)
    order: list[int] = []

    async def one(number: int) -> None:
        await limiter.admit(tenant, "s", LIST)
        order.append(number)

    began = time.monotonic()
    await one(0)
    tasks = []
    for number in range(1, 6):
        tasks.append(asyncio.create_task(one(number)))
        await until(partial(has_queued, order, limiter, number))
    await asyncio.gather(*tasks)
    assert order == sorted(order)
    assert time.monotonic() - began >= 5 / 20
    assert len(watch.paced_s) == 5


async def test_nobody_waits_longer_than_the_policy_or_in_a_full_queue(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    tenant = limited(rates=(Rate("tenant", 20, 1),), max_wait_s=0.15)
    limiter = await make(max_waiting=2)
    outcomes = await asyncio.gather(
        *(limiter.admit(tenant, "s", LIST) for _ in range(20)), return_exceptions=True
    )
    refused = [one for one in outcomes if isinstance(one, Refusal)]
    assert 1 <= len(outcomes) - len(refused) <= 4


async def test_streams_do_not_wait_unless_told(make: MakeLimiter, limited: MakeTenant) -> None:
    tenant = limited(rates=(Rate("tenant", 20, 1),), max_wait_s=2.0)
    limiter = await make()
    await limiter.admit(tenant, "s", COMPLETE, is_stream=True)
    with pytest.raises(TooManyRequests):
        await limiter.admit(tenant, "s", COMPLETE, is_stream=True)


async def test_one_tenants_flood_leaves_the_others_admission_untouched(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    limiter = await make()
    loud, quiet = (
        limited("loud", rates=(Rate("tenant", 1, 5),)),
        limited("quiet", rates=(Rate("tenant", 1, 5),)),
    )
    flood, other = await asyncio.gather(
        admitted(limiter, loud, LIST, 2000), admitted(limiter, quiet, LIST, 5)
    )
    assert (flood, other) == (5, 5)


async def test_a_refused_flood_asks_the_store_only_when_a_token_is_due(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    watch = Watch()
    limiter, tenant = await make(watch), limited(rates=(Rate("tenant", 0.01, 5),))
    await admitted(limiter, tenant, LIST, 500)
    assert watch.calls == 6


async def test_a_reloaded_policy_is_in_force_at_once(make: MakeLimiter, limited: MakeTenant) -> None:
    limiter = await make()
    assert await admitted(limiter, limited(rates=(Rate("tenant", 0.01, 2),)), LIST, 5) == 2
    assert await admitted(limiter, limited(rates=(Rate("tenant", 1e6, 2),)), LIST, 1) == 1


async def test_operators_see_and_reset_a_bucket(make: MakeLimiter, limited: MakeTenant) -> None:
    limiter, tenant = await make(), limited(rates=(Rate("tenant", 0.01, 3), Rate("w", 1, 1, match="*:write")))
    assert await admitted(limiter, tenant, LIST, 5) == 3
    assert (await limiter.show(tenant)).rates[0].tokens < 1
    assert await limiter.reset(tenant, Filling("tenant")) == ("tenant",)
    assert (await limiter.show(tenant)).rates[0].tokens == pytest.approx(3, abs=0.1)
    assert await admitted(limiter, tenant, LIST, 5) == 3
    with pytest.raises(KeyError):
        await limiter.reset(tenant, Filling("other"))


async def test_operators_reset_the_buckets_a_tenant_shares_and_those_of_its_subjects(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    poor = Rate("poor", 0.01, 2)
    limiter = await make(account_rates={"acct-1": replace(poor, name="account")}, global_rate=poor)
    tenant = limited(subject_rate=replace(poor, name="subject"))
    assert await admitted(limiter, tenant, LIST, 4, "alice") == 2
    filling = Filling(subject="alice", account=True)
    assert await limiter.reset(tenant, filling) == ("subject", "account")
    assert await admitted(limiter, tenant, LIST, 4, "alice") == 0
    assert await limiter.reset(tenant, replace(filling, overall=True)) == ("subject", "account", "poor")
    assert await admitted(limiter, tenant, LIST, 4, "alice") == 2


@pytest.mark.parametrize("filling", [Filling(subject="alice"), Filling(account=True), Filling(overall=True)])
async def test_a_bucket_that_is_not_configured_cannot_be_reset(
    make: MakeLimiter, limited: MakeTenant, filling: Filling
) -> None:
    limiter = await make()
    with pytest.raises(KeyError):
        await limiter.reset(limited(rates=(Rate("tenant", 1, 1),)), filling)


async def test_a_reset_is_in_force_in_every_worker_after_its_next_sign_of_life(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    tenant = limited(rates=(Rate("tenant", 0.001, 1),))
    one, two = await make(), await make(roll_call_s=0.0)
    assert [await admitted(limiter, tenant, LIST, 2) for limiter in (one, two)] == [1, 0]
    await one.reset(tenant)
    await until(lambda: not two._books.desk.buckets()[0].blocked)
    assert await admitted(two, tenant, LIST, 2) == 1


async def test_nobody_who_comes_by_the_fast_path_passes_those_who_wait(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    limiter, tenant = await make(), limited(rates=(Rate("tenant", 5, 1),), max_wait_s=5.0)
    await limiter.admit(tenant, "s", LIST)
    waiting = asyncio.create_task(limiter.admit(tenant, "s", LIST))
    await until(lambda: limiter._pacer.has_queue("acme"))
    assert limiter.admit_now(tenant, "s", LIST) is None
    await waiting


async def test_a_line_of_waiting_requests_holds_up_no_other_tenant(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    watch = Watch()
    limiter = await make(watch, max_waiting=20)
    loud = limited("loud", rates=(Rate("tenant", 5, 1),), max_wait_s=10.0)
    quiet = limited("quiet", rates=(Rate("tenant", 100, 400),), max_wait_s=10.0)
    assert await admitted(limiter, quiet, LIST, 40) == 40
    line = [asyncio.create_task(limiter.admit(loud, "s", LIST)) for _ in range(20)]
    await until(lambda: limiter._pacer.length("loud") >= 15)
    # At once, without so much as a turn of the loop.
    assert limiter.admit_now(quiet, "s", LIST) is not None
    assert limiter._pacer.length("quiet") == 0
    for task in line:
        task.cancel()
    await asyncio.gather(*line, return_exceptions=True)
    assert limiter._pacer.length("loud") == 0

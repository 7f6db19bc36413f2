"""Defects seen in other gateways, one test each: what goes wrong there, and the rule that excludes it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from cbk_gateway.limits import Grant, LimiterOptions, Mode, Usage
from cbk_gateway.limits.limiter import Limiter
from cbk_gateway.parties import Measure, Period, Quota, Rate
from cbk_gateway.store import EmbeddedServer, Store, StoreOptions, open_store
from integration.limits_stage import COMPLETE, LIST, MakeLimiter, MakeTenant, Town, make, town

__all__ = ["make"]

DAILY = Quota("daily", Period.DAY, Measure.REQUESTS, 1000)


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as one:
        yield one


async def asked(one: Town, tenant: object, times: int, every_s: float) -> int:
    """How many of so many requests, one after the other, are admitted."""
    before = len(one.admitted)
    for _ in range(times):
        await one.pass_time(one.clock.now + every_s)
        await one.request(one.workers[0], tenant)  # type: ignore[arg-type]  # a tenant
    return len(one.admitted) - before


async def until_ruled_by(limiter: Limiter, mode: Mode) -> None:
    async with asyncio.timeout(20):
        while limiter.mode is not mode:
            await asyncio.sleep(0.01)


async def test_kong_reads_first_and_counts_later_so_that_a_crowd_overshoots(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    workers = [await make() for _ in range(4)]
    tenant = limited(rates=(Rate("tenant", 0.001, 20),), quotas=(DAILY,))
    outcomes = await asyncio.gather(
        *(worker.admit(tenant, "s", LIST) for worker in workers for _ in range(50)), return_exceptions=True
    )
    assert sum(isinstance(one, Grant) for one in outcomes) == 20


async def test_kong_clears_what_it_has_not_told_when_the_store_fails(
    server: EmbeddedServer, limited: MakeTenant
) -> None:
    tenant = limited(quotas=(Quota("tokens", Period.DAY, Measure.TOKENS, 100_000),))
    async with await open_store(StoreOptions(url=server.url, breaker_pause_s=0.05)) as store:
        limiter = Limiter(store, LimiterOptions(token_estimate=100, roll_call_s=0.1))
        await limiter.start()
        grant = await limiter.admit(tenant, "s", COMPLETE)
        os.kill(server.pid, signal.SIGSTOP)
        await until_ruled_by(limiter, Mode.LOCAL)
        await grant.settle(Usage(tokens=900, bytes=0))
        os.kill(server.pid, signal.SIGCONT)
        await until_ruled_by(limiter, Mode.STORE)
        await limiter.stop()
        assert (await limiter.quota_show(tenant))[0].used == 900


async def test_traefik_forgets_a_large_bucket_after_two_seconds_of_silence(
    store: Store, limited: MakeTenant
) -> None:
    one, tenant = town(store, 1), limited(rates=(Rate("tenant", 0.1, 500),))
    assert await asked(one, tenant, 600, 0.0) == 500
    (key,) = [key async for key in store.client.scan_iter(match="*:rate:tenant")]
    # A key lives longer than the bucket takes to fill, so a key that expired and a full bucket are the same.
    assert await store.client.pttl(key) > 500 / 0.1 * 1000
    await one.pass_time(one.clock.now + 30)
    assert await asked(one, tenant, 20, 0.0) == 3


@pytest.mark.parametrize("back_s", [1.0, 3600.0])
async def test_traefik_refills_a_bucket_when_a_slower_clock_sets_time_back(
    store: Store, limited: MakeTenant, back_s: float
) -> None:
    one, tenant = town(store, 1), limited(rates=(Rate("tenant", 1, 10),))
    assert await asked(one, tenant, 20, 0.0) == 10
    began = one.clock.now
    one.clock.now = began - back_s
    one.workers[0]._books.desk.buckets()[0].blocked.clear()
    assert await asked(one, tenant, 5, 0.0) == 0
    one.clock.now = began
    one.workers[0]._books.desk.buckets()[0].blocked.clear()
    assert await asked(one, tenant, 5, 0.0) == 0
    assert await asked(one, tenant, 5, 1.001) == 5


async def test_apisix_takes_the_absolute_value_of_elapsed_time_so_that_skew_drains_the_bucket(
    store: Store, limited: MakeTenant
) -> None:
    one, tenant = town(store, 1), limited(rates=(Rate("tenant", 1, 10),))
    assert await asked(one, tenant, 4, 0.0) == 4
    for skew_s in (-50.0, 50.0, -50.0, 50.0):
        one.clock.now += skew_s
        assert await asked(one, tenant, 1, 0.0) == 1
    assert await asked(one, tenant, 20, 0.0) == 10 - 8


async def test_portkey_empties_the_bucket_on_a_rejection_and_throws_fractions_away(
    store: Store, limited: MakeTenant
) -> None:
    one, tenant = (
        town(store, 1),
        limited(rates=(Rate("tenant", 3, 10),), costs={COMPLETE.route.cost_class: 6}),
    )
    await one.request(one.workers[0], tenant, COMPLETE)
    await one.request(one.workers[0], tenant, COMPLETE)
    assert (len(one.admitted), len(one.refused)) == (1, 1)
    assert await asked(one, tenant, 10, 0.0) == 4
    # Every tenth of a second 0.3 tokens flow in.
    assert await asked(one, tenant, 100, 0.1) in {29, 30}


async def test_litellm_leaves_a_counter_without_an_end(store: Store, limited: MakeTenant) -> None:
    one = town(store, 2)
    tenant = limited(
        rates=(Rate("tenant", 10, 10),),
        subject_rate=Rate("subject", 10, 10),
        quotas=(DAILY,),
        max_concurrent=5,
        max_streams=5,
    )
    await one.load(tenant, 30, 2.0)
    await one.workers[0].quota_grant(tenant, "daily", 5)
    await one.workers[0].reset(tenant)
    await one.pass_time(one.clock.now + 2)
    await one.workers[0].admit(tenant, "s", COMPLETE, is_stream=True)
    keys = [key async for key in store.client.scan_iter()]
    assert len(keys) >= 7
    assert all([await store.client.pttl(key) > 0 for key in keys])


async def test_tyk_counts_rejected_calls_so_that_a_client_above_the_limit_never_recovers(
    store: Store, limited: MakeTenant
) -> None:
    one, tenant = town(store, 1), limited(rates=(Rate("tenant", 2, 2),))
    # Ten times what is allowed, without a pause: it gets all that is allowed, for as long as it likes.
    assert await asked(one, tenant, 400, 0.05) in {40, 41, 42}


async def test_envoyproxy_ratelimit_waits_ten_seconds_for_a_dead_store(
    server: EmbeddedServer, limited: MakeTenant
) -> None:
    tenant = limited(rates=(Rate("tenant", 100, 100),), quotas=(DAILY,))
    async with await open_store(StoreOptions(url=server.url)) as store:
        limiter = Limiter(store)
        await limiter.start()
        os.kill(server.pid, signal.SIGSTOP)
        # A bound a hundred times under those ten seconds, and still generous to a slow machine.
        async with asyncio.timeout(5):
            grants = await asyncio.gather(*(limiter.admit(tenant, "s", LIST) for _ in range(20)))
        assert len(grants) == 20
        os.kill(server.pid, signal.SIGCONT)
        await limiter.stop()
    assert StoreOptions().call_timeout_s <= 0.05

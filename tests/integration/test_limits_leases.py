"""What workers take in advance: hot tenants cost the store next to nothing, and no bound is ever passed."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from cbk_gateway.errors import LimitsReached, Refusal, TooManyRequests
from cbk_gateway.limits import Usage
from cbk_gateway.limits.counters import QUOTA_PART
from cbk_gateway.parties import Measure, Period, Quota, Rate
from cbk_gateway.store import Store
from integration.limits_stage import COMPLETE, LIST, MakeLimiter, MakeTenant, Watch, make, town

__all__ = ["make"]

RATES = (Rate("tenant", 200, 400), Rate("reads", 500, 1000, match="*:read"))
QUOTAS = (
    Quota("calls", Period.DAY, Measure.REQUESTS, 1_000_000),
    Quota("tokens", Period.MONTH, Measure.TOKENS, 50_000_000),
    Quota("bytes", Period.DAY, Measure.BYTES, 10**11),
)


@pytest.mark.parametrize("per_second", [20, 50, 100, 500])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_hot_tenant_with_quotas_and_open_requests_costs_a_twentieth_of_a_call(
    store: Store, limited: MakeTenant, workers: int, per_second: float
) -> None:
    tenant = limited(rates=RATES, quotas=QUOTAS, max_concurrent=100)
    one = town(store, workers)
    await one.load(tenant, per_second, 5.0)
    before, calls = one.asked, one.store.asked
    await one.load(tenant, per_second, min(40.0, 2000 / per_second), operation=COMPLETE, seed=2)
    assert (one.store.asked - calls) / (one.asked - before) <= 0.05
    if per_second < 200:
        assert one.refused == []


async def test_four_workers_share_a_hot_tenant_for_a_twentieth_of_a_call(
    store: Store, limited: MakeTenant
) -> None:
    tenant = limited(rates=RATES, quotas=QUOTAS, max_concurrent=100)
    one = town(store, 4)
    await one.load(tenant, 60, 5.0)
    before, calls = one.asked, one.store.asked
    await one.load(tenant, 60, 30.0, seed=2)
    assert (one.store.asked - calls) / (one.asked - before) <= 0.05


async def test_what_was_counted_is_what_was_spent_once_leases_are_back(
    store: Store, limited: MakeTenant
) -> None:
    tenant = limited(rates=RATES, quotas=QUOTAS, max_concurrent=100)
    one = town(store, 3)
    await one.load(tenant, 50, 10.0, operation=COMPLETE)
    await one.pass_time(one.clock.now + 20)
    standing = await one.workers[0].show(tenant)
    count = len(one.admitted)
    assert [quota.used for quota in standing.quotas] == [count, 120 * count, 2000 * count]
    assert standing.open[0].open == 0


@pytest.mark.parametrize("seed", range(4))
async def test_no_more_requests_are_open_than_allowed_and_nearly_as_many_can_be(
    store: Store, limited: MakeTenant, seed: int
) -> None:
    one = town(store, 3)
    tenant = limited(max_concurrent=12)
    await one.load(tenant, 200, 5.0, seed=seed)
    assert one.most_open <= 12
    assert one.most_open >= 11
    assert one.refused


async def test_requests_that_overlap_in_flight_never_pass_the_bound(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    workers = [await make(expected_workers=3) for _ in range(3)]
    tenant = limited(max_concurrent=20)
    chance = random.Random(7)
    held, most = 0, 0

    async def client() -> None:
        nonlocal held, most
        for _ in range(25):
            try:
                grant = await chance.choice(workers).admit(tenant, "s", LIST)
            except TooManyRequests:
                await asyncio.sleep(0)
                continue
            held += 1
            most = max(most, held)
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            held -= 1
            await grant.settle(Usage(None, 0))

    await asyncio.gather(*(client() for _ in range(40)))
    assert 2 <= most <= 20


async def test_a_dead_worker_frees_its_places_and_takes_a_small_part_of_a_quota_with_it(
    store: Store, limited: MakeTenant
) -> None:
    one = town(store, 3)
    tenant = limited(quotas=(Quota("calls", Period.DAY, Measure.REQUESTS, 2000),), max_concurrent=60)
    await one.load(tenant, 100, 5.0)
    dead = one.workers.pop()
    await one.load(tenant, 200, 14.0, seed=2)
    assert len(one.admitted) <= 2000
    assert len(one.admitted) >= 2000 * (1 - 1 / QUOTA_PART / 3)
    assert isinstance(one.refused[-1][1], LimitsReached)
    kept = dead._books.desk.slot("acme", "requests", 60).kept
    assert kept > 0
    await one.pass_time(one.clock.now + 16)
    assert (await one.workers[0].show(tenant)).open[0].open == 0


async def test_the_last_of_a_quota_is_counted_one_by_one(store: Store, limited: MakeTenant) -> None:
    one = town(store, 4)
    tenant = limited(quotas=(Quota("calls", Period.DAY, Measure.REQUESTS, 300),))
    await one.load(tenant, 200, 4.0)
    assert len(one.admitted) == 300


async def test_a_mark_is_reported_with_the_request_that_reaches_it(store: Store, limited: MakeTenant) -> None:
    watch = Watch()
    one = town(store, 1, watch)
    tenant = limited(quotas=(Quota("soft", Period.DAY, Measure.REQUESTS, 500, hard=False),))
    reached: dict[int, int] = {}
    for number in range(1, 700):
        await one.pass_time(one.clock.now + 0.01)
        await one.request(one.workers[0], tenant)
        for _, percent in watch.marks:
            reached.setdefault(percent, number)
    assert reached == {80: 400, 100: 500}


async def test_a_lease_ends_with_its_period(store: Store, limited: MakeTenant) -> None:
    one = town(store, 2)
    tenant = limited(quotas=(Quota("calls", Period.DAY, Measure.REQUESTS, 100_000),))
    midnight = (one.clock.now // 86_400 + 1) * 86_400
    one.clock.now = midnight - 5.0
    await one.load(tenant, 50, 10.0)
    await one.pass_time(one.clock.now + 10)
    standing = (await one.workers[0].quota_show(tenant))[0]
    assert standing.used == sum(at >= midnight for at in one.admitted)


async def test_a_decision_from_leases_needs_no_waiting_and_no_store(
    make: MakeLimiter, limited: MakeTenant
) -> None:
    watch = Watch()
    limiter = await make(watch)
    tenant = limited(rates=RATES, quotas=QUOTAS, max_concurrent=100)
    for _ in range(30):
        await (await limiter.admit(tenant, "s", LIST)).settle(Usage(None, 100))
    calls = watch.calls
    before = (await limiter.quota_show(tenant))[0].used
    for _ in range(5):
        grant = limiter.admit_now(tenant, "s", LIST)
        assert grant is not None
        assert grant.slots[0].own == 1
        grant.settle_now(Usage(None, 100))
        assert grant.slots[0].own == 0
    assert watch.calls == calls
    assert (await limiter.quota_show(tenant))[0].used == before + 5


@pytest.mark.parametrize(
    "limits", [{"max_concurrent": 1}, {"quotas": (Quota("q", Period.DAY, Measure.REQUESTS, 1),)}]
)
async def test_what_only_the_store_can_refuse_is_refused_from_memory_afterwards(
    make: MakeLimiter, limited: MakeTenant, limits: dict[str, object]
) -> None:
    watch = Watch()
    limiter, tenant = await make(watch), limited(**limits)
    await limiter.admit(tenant, "s", LIST)
    with pytest.raises(Refusal):
        await limiter.admit(tenant, "s", LIST)
    calls = watch.calls
    for _ in range(50):
        with pytest.raises(Refusal):
            limiter.admit_now(tenant, "s", LIST)
    assert watch.calls == calls


@pytest.mark.parametrize("cost", [1.0, 3.0, 40.0])
async def test_who_comes_back_when_told_is_admitted(store: Store, limited: MakeTenant, cost: float) -> None:
    one = town(store, 2)
    costs = {COMPLETE.route.cost_class: cost}
    tenant = limited(rates=(Rate("tenant", 20, 60),), costs=costs)
    await one.load(tenant, 15, 5.0)
    # What a worker that died had on lease comes back when its time is over, and not before.
    one.workers.sort(key=lambda worker: worker._books.desk.buckets()[0].lease)
    assert one.workers.pop()._books.desk.buckets()[0].lease > 0
    worker = one.workers[0]
    while one.refused == []:
        await one.request(worker, tenant)
    for _ in range(3):
        while await one.request(worker, tenant, COMPLETE) is not None:
            pass
        told_s = int(one.refused[-1][1].headers["Retry-After"])
        # Another request of another cost, refused as well, must not make the promise shorter.
        await one.request(worker, tenant)
        assert await one.request(worker, tenant, COMPLETE) is None
        assert int(one.refused[-1][1].headers["Retry-After"]) == told_s
        await one.pass_time(one.clock.now + told_s)
        assert await one.request(worker, tenant, COMPLETE) is not None


async def test_a_crash_of_everything_loses_what_was_counted_since_the_last_note(
    store: Store, limited: MakeTenant, tmp_path: Path
) -> None:
    tenant = limited(quotas=(Quota("calls", Period.DAY, Measure.REQUESTS, 100_000),))
    one = town(store, 2, checkpoint_directory=tmp_path)
    await one.load(tenant, 20, 65.0)
    await store.client.flushall()
    after = town(store, 1, checkpoint_directory=tmp_path)
    after.clock.now = one.clock.now
    await after.workers[0].start()
    await after.request(after.workers[0], tenant)
    used = (await after.workers[0].quota_show(tenant))[0].used
    await after.workers[0].stop()
    noted = [at for at in one.admitted if at < one.clock.now - 21]
    assert used >= len(noted)


async def test_what_a_worker_holds_is_spent_even_when_the_store_has_nothing_left(
    store: Store, limited: MakeTenant
) -> None:
    # A rate that is asked about all the time must not keep a quota's lease from being used.
    one = town(store, 4)
    quota = Quota("calls", Period.DAY, Measure.REQUESTS, 500)
    tenant = limited(rates=(Rate("tenant", 100, 20),), quotas=(quota,))
    await one.load(tenant, 400, 6.0)
    assert len(one.admitted) == 500


@pytest.mark.parametrize(("rate", "burst"), [(100.0, 100.0), (100.0, 200.0)])
async def test_a_tenant_above_a_small_limit_gets_all_of_it_for_a_twentieth_of_a_call(
    store: Store, limited: MakeTenant, rate: float, burst: float
) -> None:
    one = town(store, 4)
    tenant = limited(rates=(Rate("tenant", rate, burst),))
    await one.load(tenant, 5 * rate, 5.0)
    admitted, asked, calls = len(one.admitted), one.asked, one.store.asked
    await one.load(tenant, 5 * rate, 25.0, seed=2)
    assert 0.98 * 25 * rate <= len(one.admitted) - admitted <= 25 * rate + burst
    assert len(one.admitted) <= 30 * rate + burst
    assert one.store.asked - calls <= 0.05 * (one.asked - asked)

"""What a decision costs: CPU per local decision, round trips per request, the cost of a refusal.

Run by hand on an idle machine, with `tests` on the path; it prints a table:

    PYTHONPATH=tests python tests/benchmarks/bench_limits.py
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import time
from collections.abc import Callable

from cbk_gateway.errors import TooManyRequests
from cbk_gateway.limits import Grant, Limiter, LimiterOptions, SilentObserver, Usage
from cbk_gateway.operation import understand
from cbk_gateway.parties import Measure, Period, Quota, Rate, Tenant, TenantLimits
from cbk_gateway.secret import Secret
from cbk_gateway.store import Store, StoreOptions, open_store
from integration.limits_stage import town

LIST = understand("GET", "/api/v1/bot/list")
COUNT = 20_000


class Calls(SilentObserver):
    """Counts round trips."""

    def __init__(self) -> None:
        self.made = 0

    def asked_store(self, calls: int) -> None:
        self.made += calls


def tenant(name: str, *rates: Rate, quotas: tuple[Quota, ...] = ()) -> Tenant:
    """A tenant with limits."""
    return Tenant(name, name, Secret("k"), limits=TenantLimits(rates=rates, quotas=quotas))


def show(what: str, value: float, unit: str) -> None:
    """One line of the table."""
    sys.stdout.write(f"{what:<58}{value:>10.3f} {unit}\n")


def cpu_us(work: Callable[[], object], count: int) -> float:
    """CPU time per call in microseconds."""
    began = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - began) / count * 1e6


QUOTAS = (
    Quota("calls", Period.DAY, Measure.REQUESTS, 10**9),
    Quota("bytes", Period.DAY, Measure.BYTES, 10**15),
)


async def local(limiter: Limiter) -> None:
    """Decisions from leases, their headers, and settling where there is something to settle."""
    one, two = Rate("tenant", 1e9, 4e9), Rate("reads", 1e9, 4e9, match="*:read")
    for label, limits in (
        ("one limit", TenantLimits(rates=(one,))),
        ("two limits", TenantLimits(rates=(one, two))),
        ("a limit, a quota, open requests", TenantLimits((one,), quotas=QUOTAS[:1], max_concurrent=1000)),
        (
            "two limits, two quotas, open requests",
            TenantLimits((one, two), quotas=QUOTAS, max_concurrent=1000),
        ),
    ):
        hot = Tenant(label, label, Secret("k"), limits=limits)
        for _ in range(100):
            await (await limiter.admit(hot, "s", LIST)).settle(Usage(None, 100))
        hold_plenty(limiter)
        grants: list[Grant | None] = []
        cost = cpu_us(lambda hot=hot, kept=grants: kept.append(limiter.admit_now(hot, "s", LIST)), COUNT)  # type: ignore[misc]  # bound at once
        assert None not in grants
        show(f"CPU per local decision, {label}", cost, "us")
        grant = grants[-1]
        show(f"CPU per set of headers, {label}", cpu_us(lambda grant=grant: grant.headers, COUNT), "us")  # type: ignore[misc]  # bound at once
        if grant is not None and grant.slots:
            left = iter(grants)
            settle = cpu_us(lambda left=left: next(left).settle_now(Usage(None, 100)), COUNT)  # type: ignore[misc]  # bound at once
            show(f"CPU per settlement, {label}", settle, "us")


def hold_plenty(limiter: Limiter) -> None:
    """Let leases last, so that nothing but local decisions is measured."""
    until, desk = time.monotonic() + 60, limiter._books.desk
    for view in desk.buckets():
        view.lease, view.lease_until = 1e9, until
    for quota in desk.quotas():
        quota.lease, quota.lease_until = 10**12, until
    for slot in desk.open_slots():
        slot.kept, slot.kept_until = 10**6, until


async def refusals(limiter: Limiter) -> None:
    """Refusals from memory."""
    poor = tenant("poor", Rate("tenant", 0.001, 1))
    await limiter.admit(poor, "s", LIST)
    with contextlib.suppress(TooManyRequests):
        await limiter.admit(poor, "s", LIST)

    def refused() -> None:
        with contextlib.suppress(TooManyRequests):
            limiter.admit_now(poor, "s", LIST)

    show("CPU per refusal, its exception included", cpu_us(refused, COUNT), "us")


async def remote(store: Store, calls: Calls) -> None:
    """Decisions that need the store, because nothing is leased."""
    limiter = Limiter(store, LimiterOptions(lease_min_rate=math.inf), calls)
    await limiter.start()
    for label, one in (
        ("one limit call by call", tenant("slow", Rate("tenant", 10, 1e9))),
        (
            "limit and quota",
            tenant("quota", Rate("t", 10, 1e9), quotas=(Quota("q", Period.DAY, Measure.REQUESTS, 10**9),)),
        ),
    ):
        calls.made, began, cpu = 0, time.perf_counter(), time.process_time()
        for _ in range(2000):
            await limiter.admit(one, "s", LIST)
        show(f"round trips per decision, {label}", calls.made / 2000, "")
        show(f"latency per decision, {label}", (time.perf_counter() - began) / 2000 * 1e6, "us")
        show(f"CPU per decision, {label}", (time.process_time() - cpu) / 2000 * 1e6, "us")
    await limiter.stop()


async def hot(limiter: Limiter, calls: Calls) -> None:
    """A hot tenant below and above its limit."""
    for label, per_second, pause_s in (("below its limit", 1e5, 0.001), ("above its limit", 500.0, 0.0)):
        one = tenant(label.replace(" ", "-"), Rate("tenant", per_second, 2 * per_second))
        calls.made, requests, admitted = 0, 0, 0
        until = time.perf_counter() + 2
        while time.perf_counter() < until:
            requests += 1
            with contextlib.suppress(TooManyRequests):
                await limiter.admit(one, "s", LIST)
                admitted += 1
            if requests % 10 == 0:
                await asyncio.sleep(pause_s)
        show(f"round trips per request, hot tenant {label}", calls.made / requests, "")
        show(f"admitted per second, hot tenant {label}", admitted / 2, "")


async def moderately_hot(store: Store) -> None:
    """Tenants of some requests per second: all that is asked of the store for them, by anybody, ever."""
    for workers in (1, 2, 4):
        for per_second in (1, 20, 50, 100, 500):
            for label, limits in (
                ("a rate", TenantLimits(rates=(Rate("tenant", 200, 400),))),
                (
                    "rate, quotas, open",
                    TenantLimits((Rate("tenant", 200, 400),), quotas=QUOTAS, max_concurrent=100),
                ),
            ):
                await store.client.flushall()
                one = town(store, workers)
                warm = Tenant("warm", "warm", Secret("k"), limits=limits)
                await one.load(warm, per_second, 5.0)
                asked, calls = one.asked, one.store.asked
                await one.load(warm, per_second, min(60.0, 6000 / per_second), seed=2)
                each = (one.store.asked - calls) / (one.asked - asked)
                show(f"calls per request, {workers} workers, {per_second}/s, {label}", each, "")


async def main() -> None:
    """Print the table."""
    calls = Calls()
    async with await open_store(StoreOptions(call_timeout_s=1)) as store:
        limiter = Limiter(store, observer=calls)
        await limiter.start()
        await local(limiter)
        await refusals(limiter)
        await remote(store, calls)
        await hot(limiter, calls)
        await limiter.stop()
        await moderately_hot(store)


if __name__ == "__main__":
    asyncio.run(main())

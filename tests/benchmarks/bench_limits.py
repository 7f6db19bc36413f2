"""What a decision costs: CPU per local decision, round trips per request, the cost of a refusal.

Run by hand on an idle machine; it prints a table and asserts nothing:

    python tests/benchmarks/bench_limits.py
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable

from cbk_gateway.errors import TooManyRequests
from cbk_gateway.limits import Limiter, SilentObserver
from cbk_gateway.operation import understand
from cbk_gateway.parties import Measure, Period, Quota, Rate, Tenant, TenantLimits
from cbk_gateway.secret import Secret
from cbk_gateway.store import StoreOptions, open_store

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


async def local(limiter: Limiter) -> None:
    """Decisions from a lease, two limits deep, and their headers."""
    for label, rates in (
        ("one limit", (Rate("tenant", 1e9, 4e9),)),
        ("two limits", (Rate("tenant", 1e9, 4e9), Rate("reads", 1e9, 4e9, match="*:read"))),
    ):
        hot = tenant(label.replace(" ", "-"), *rates)
        for _ in range(100):
            await limiter.admit(hot, "s", LIST)
        views = limiter._books.desk.buckets()
        for view in views:
            view.lease, view.lease_until = 1e9, time.monotonic() + 60
        cost = cpu_us(lambda hot=hot: limiter.admit_now(hot, "s", LIST), COUNT)  # type: ignore[misc]  # bound at once
        show(f"CPU per local decision, {label}", cost, "us")
        grant = limiter.admit_now(hot, "s", LIST)
        if grant is not None:
            show(f"CPU per set of headers, {label}", cpu_us(lambda grant=grant: grant.headers, COUNT), "us")  # type: ignore[misc]  # bound at once


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


async def remote(limiter: Limiter, calls: Calls) -> None:
    """Decisions that need the store."""
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


async def main() -> None:
    """Print the table."""
    calls = Calls()
    async with await open_store(StoreOptions(call_timeout_s=1)) as store:
        limiter = Limiter(store, observer=calls)
        await limiter.start()
        await local(limiter)
        await refusals(limiter)
        await remote(limiter, calls)
        await hot(limiter, calls)
        await limiter.stop()


if __name__ == "__main__":
    asyncio.run(main())

"""One worker of the saturation test: a program that asks for more than its tenant may have, for a while.

    python limits_worker.py STORE_URL RATE BURST SECONDS QUOTA

With a QUOTA above 0 it has that many requests a day as well, and at most 64 open at a time. It prints
`ready`, waits for a line with the instant to begin at on the monotonic clock, and prints a JSON document: for
each admitted request when it asked and when it was answered, how many it asked, and how many round trips that
took.
"""

from __future__ import annotations

import asyncio
import sys
import time

import orjson

from cbk_gateway.errors import LimitsReached, TooManyRequests
from cbk_gateway.limits import Limiter, SilentObserver, Usage
from cbk_gateway.operation import understand
from cbk_gateway.parties import Measure, Period, Quota, Rate, Tenant, TenantLimits
from cbk_gateway.secret import Secret
from cbk_gateway.store import StoreOptions, open_store

LIST = understand("GET", "/api/v1/bot/list")


class Calls(SilentObserver):
    """Counts round trips."""

    def __init__(self) -> None:
        self.made = 0

    def asked_store(self, calls: int) -> None:
        self.made += calls


async def client(limiter: Limiter, tenant: Tenant, end: float, admitted: list[tuple[float, float]]) -> int:
    """Ask again and again."""
    asked = 0
    while (before := time.monotonic()) < end:
        asked += 1
        try:
            grant = await limiter.admit(tenant, "s", LIST)
        except (TooManyRequests, LimitsReached):
            await asyncio.sleep(0.002)
        else:
            admitted.append((before, time.monotonic()))
            await grant.settle(Usage(None, 0))
    return asked


async def main(url: str, rate: float, burst: float, seconds: float, quota: float) -> None:
    """Run."""
    calls = Calls()
    limits = TenantLimits(rates=(Rate("tenant", rate, burst),))
    if quota:
        daily = Quota("daily", Period.DAY, Measure.REQUESTS, int(quota))
        limits = TenantLimits(limits.rates, quotas=(daily,), max_concurrent=64)
    tenant = Tenant("hot", "acct", Secret("k"), limits=limits)
    async with await open_store(StoreOptions(url=url, call_timeout_s=5.0, connect_timeout_s=5.0)) as store:
        limiter = Limiter(store, observer=calls)
        await limiter.start()
        sys.stdout.buffer.write(b"ready\n")
        sys.stdout.buffer.flush()
        start = float(await asyncio.to_thread(sys.stdin.readline))
        end = start + seconds
        await asyncio.sleep(max(0.0, start - time.monotonic()))
        admitted: list[tuple[float, float]] = []
        asked = await asyncio.gather(*(client(limiter, tenant, end, admitted) for _ in range(8)))
        await limiter.stop()
    document = {"admitted": admitted, "asked": sum(asked), "calls": calls.made}
    sys.stdout.buffer.write(orjson.dumps(document))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(float, sys.argv[2:6])))

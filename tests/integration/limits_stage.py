"""What the suites of limits share: limiters on a real store, an observer that remembers, a time to set.

`Town` runs a load over several workers in a time of its own: the store is real, and its scripts are told the
time instead of reading the server's clock, as the limiters are. A minute of load takes a second, and comes
out the same every time.
"""

from __future__ import annotations

import contextlib
import heapq
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from cbk_gateway.errors import Refusal
from cbk_gateway.limits import Grant, Limiter, LimiterOptions, SilentObserver, Usage
from cbk_gateway.operation import Operation, understand
from cbk_gateway.parties import Tenant
from cbk_gateway.store import Store

LIST = understand("GET", "/api/v1/bot/list")
CREATE = understand("POST", "/api/v1/bot/create")
COMPLETE = understand("POST", "/api/v1/conversation/complete")

MakeTenant = Callable[..., Tenant]
MakeLimiter = Callable[..., Awaitable[Limiter]]

MICRO = 1_000_000
TICK_S = 0.25


class Watch(SilentObserver):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.calls = 0
        self.shadows: list[str] = []
        self.paced_s: list[float] = []
        self.outcomes: list[tuple[str, str]] = []
        self.marks: list[tuple[str, int]] = []

    def asked_store(self, calls: int) -> None:
        self.calls += calls

    def shadow_refused(self, tenant: str, policy: str) -> None:  # noqa: ARG002 - the protocol's
        self.shadows.append(policy)

    def paced(self, tenant: str, waited_s: float) -> None:  # noqa: ARG002 - the protocol's
        self.paced_s.append(waited_s)

    def decided(self, tenant: str, outcome: str, policy: str) -> None:  # noqa: ARG002 - the protocol's
        self.outcomes.append((outcome, policy))

    def quota_reached(self, tenant: str, quota: str, percent: int) -> None:  # noqa: ARG002 - the protocol's
        self.marks.append((quota, percent))


@contextlib.asynccontextmanager
async def limiters(store: Store) -> AsyncIterator[MakeLimiter]:
    """Makes limiters on a store, started, and stops them."""
    started: list[Limiter] = []

    async def make(observer: Watch | None = None, **options: Any) -> Limiter:
        limiter = Limiter(store, LimiterOptions(**options), observer)
        await limiter.start()
        started.append(limiter)
        return limiter

    try:
        yield make
    finally:
        for limiter in started:
            await limiter.stop()


@pytest.fixture
async def make(store: Store) -> AsyncIterator[MakeLimiter]:
    """Makes limiters on this test's store."""
    async with limiters(store) as one:
        yield one


async def admitted(
    limiter: Limiter, tenant: Tenant, operation: Operation, times: int, subject: str = "s"
) -> int:
    """How many of so many requests are admitted, one after the other."""
    count = 0
    for _ in range(times):
        with contextlib.suppress(Refusal):
            await limiter.admit(tenant, subject, operation)
            count += 1
    return count


class Ticker:
    """A clock that stands still until it is set; at first it is noon of today."""

    def __init__(self) -> None:
        self.now = time.time() // 86_400 * 86_400 + 43_200.0

    def __call__(self) -> float:
        return self.now


class ClockedStore:
    """A store whose scripts take the time from a ticker; counts what is asked of it."""

    def __init__(self, store: Store, clock: Ticker) -> None:
        self._store = store
        self._clock = clock
        self.asked = 0
        self.is_cluster = store.is_cluster
        self.shown_url = store.shown_url
        self.call = store.call
        self.ask = store.ask
        self.is_available = True

    def script(self, text: str) -> Callable[..., Awaitable[Any]]:
        """A script that is told the time in its last two arguments."""
        told = text.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}")
        script = self._store.script(told)
        is_roll_call = "ZADD" in text

        async def run(keys: Sequence[str] = (), args: Sequence[Any] = ()) -> Any:
            self.asked += not is_roll_call
            now_us = int(self._clock.now * MICRO)
            return await script(keys, [*args, now_us // MICRO, now_us % MICRO])

        return run


@dataclass
class Town:
    """Workers and their load, in a time of their own.

    Attributes:
        clock: The time.
        store: The store as the workers see it.
        workers: The limiters; None where one died.
        admitted: When requests were admitted.
        refused: The refusals with their times.
        open: Requests open now, and the most at a time.
    """

    clock: Ticker
    store: ClockedStore
    workers: list[Limiter]
    admitted: list[float] = field(default_factory=list)
    refused: list[tuple[float, Refusal]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    _ends: list[tuple[float, int, Grant]] = field(default_factory=list)
    _numbers: int = 0

    @property
    def asked(self) -> int:
        """Requests until now."""
        return len(self.admitted) + len(self.refused)

    async def request(
        self, worker: Limiter, tenant: Tenant, operation: Operation = LIST, lasts_s: float = 0.0
    ) -> Grant | None:
        """One request, which ends after so long."""
        try:
            grant = await worker.admit(tenant, "s", operation)
        except Refusal as refusal:
            self.refused.append((self.clock.now, refusal))
            return None
        self.admitted.append(self.clock.now)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self._numbers += 1
        heapq.heappush(self._ends, (self.clock.now + lasts_s, self._numbers, grant))
        return grant

    async def pass_time(self, until: float) -> None:
        """Let time pass: requests end, books are kept."""
        while self.clock.now < until:
            next_end = self._ends[0][0] if self._ends else until
            next_round = (self.clock.now // TICK_S + 1) * TICK_S
            self.clock.now = max(self.clock.now, min(next_end, next_round, until))
            while self._ends and self._ends[0][0] <= self.clock.now:
                _, _, grant = heapq.heappop(self._ends)
                self.open -= 1
                await grant.settle(Usage(tokens=120, bytes=2000))
            if self.clock.now >= next_round:
                for worker in self.workers:
                    await worker._books.tick(self.clock.now)

    async def load(
        self, tenant: Tenant, per_second: float, seconds: float, *, operation: Operation = LIST, seed: int = 1
    ) -> None:
        """Requests at random times, to workers at random, lasting a tenth of a second on average."""
        chance = random.Random(seed)
        begin = at = self.clock.now
        while (at := at + chance.expovariate(per_second)) < begin + seconds:
            await self.pass_time(at)
            worker = chance.choice(self.workers)
            await self.request(worker, tenant, operation, chance.expovariate(10.0))
        await self.pass_time(begin + seconds)


def town(store: Store, count: int, observer: SilentObserver | None = None, **options: Any) -> Town:
    """So many workers on a store."""
    clock = Ticker()
    clocked = ClockedStore(store, clock)
    names = [f"worker-{number}" for number in range(count)]
    workers = [
        Limiter(
            cast("Store", clocked),
            LimiterOptions(expected_workers=count, worker_id=name, **options),
            observer,
            clock,
        )
        for name in names
    ]
    return Town(clock, clocked, workers)

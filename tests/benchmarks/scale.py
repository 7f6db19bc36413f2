"""What a fleet of gateways asks of its stores and of one another, from one machine to a thousand.

    PYTHONPATH=tests python -m benchmarks.scale [--measure] [--write]

Leases are sized by the product's own code (`BucketView`, `Demand`): one worker's share of each tenant is
played through, arrival by arrival, and what it asks the store is counted. Invalidation, heartbeats and
acknowledgements are counted from the protocol in `cache/membership.py`. Costs per call come from `COSTS`;
`--measure` takes them anew from a real store of this machine. Pure but for `measured`; the product uses
nothing of it.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import math
import operator
import random
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.report import RESULTS
from cbk_gateway.cache.options import CacheOptions
from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.options import LimiterOptions
from cbk_gateway.limits.plan import BucketRef
from cbk_gateway.parties import Rate

GUIDE = Path(__file__).parents[2] / "deploy" / "SCALE.md"
PLAYED_S = 30.0
AT_ONCE = 16
BUSY = 0.6
"""The part of a shard's processor that may be in use: the rest is for bursts and for a shard's failure."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Processor time of the store per call, in microseconds, its input and output included.

    Attributes:
        script: One admission, look-up or invalidation.
        publish: One message published, without its deliveries.
        delivery: One message handed to one subscriber.
    """

    script: float
    publish: float
    delivery: float


COSTS = Costs(script=25.0, publish=5.5, delivery=0.4)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is asked.

    Attributes:
        requests_s: Requests per second.
        tenants: How many tenants; their shares fall as one over their rank.
        writes: Part of the requests that write.
        misses: Part of the reads that a worker's own memory does not answer.
        headroom: A tenant's rate over what it asks.
        burst_s: A tenant's burst, as seconds of its rate.
    """

    requests_s: float
    tenants: int
    writes: float = 0.02
    misses: float = 0.05
    headroom: float = 2.0
    burst_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """What answers.

    Attributes:
        gateways: Machines.
        workers: Processes of each.
        cells: Groups of gateways with a store of their own; a tenant's account belongs to one.
        strict: Whether a write's answer waits for all workers of its cell.
    """

    gateways: int
    workers: int
    cells: int = 1
    strict: bool = True

    @property
    def cell_workers(self) -> int:
        """Workers of one cell."""
        return max(1, self.gateways // self.cells) * self.workers


@dataclass(frozen=True, slots=True)
class Figures:
    """What comes of it, of one cell where nothing else is said.

    Attributes:
        limit_calls_s: Store calls for limits per second.
        calls_per_request: The same per request.
        cache_calls_s: Store calls for cached answers and writes per second.
        shards: Primaries a Cluster needs for these, `BUSY` at most.
        feed_share: Part of one processor that invalidations, acknowledgements and heartbeats take: they
            belong to one hash slot, so no shard more makes it less.
        heard_s: Feed messages per second that each gateway hears.
        acks_per_write: Acknowledgements that a write waits for.
        acks_s: Acknowledgements published per second.
    """

    limit_calls_s: float
    calls_per_request: float
    cache_calls_s: float
    shards: int
    feed_share: float
    heard_s: float
    acks_per_write: int
    acks_s: float


def arrivals(per_second: float, seconds: float, seed: int) -> Iterator[float]:
    """Times of independent requests."""
    chance = random.Random(seed)
    now = chance.expovariate(per_second)
    while now < seconds:
        yield now
        now += chance.expovariate(per_second)


@functools.cache
def calls_per_request(
    per_second: float, rate: Rate, workers: int, life_s: float, min_rate: float, min_tokens: float
) -> float:
    """Store calls per request of one worker that is asked `per_second` of a tenant; its rate is for all."""
    view = BucketView(BucketRef("bucket", rate, "tenant"))
    # Enough to see leases of five seconds, and not more than the rare need.
    seconds = min(PLAYED_S, 20_000 / per_second) if per_second > 1 else PLAYED_S / per_second
    requests = calls = 0
    for now in arrivals(per_second, seconds, seed=1):
        requests += 1
        view.note(1.0, now)
        if view.covers(1.0, now):
            view.lease -= 1.0
            continue
        calls += 1
        want = view.slice_tokens(life_s, min_rate, min_tokens, workers)
        if want:
            view.begin_lease(want, now + life_s, 0)
    return calls / requests if requests else 1.0


def shares(traffic: Traffic, cells: int) -> list[float]:
    """Requests per second of each tenant of one cell: cells get every n-th tenant, so that they are alike."""
    weights = [1.0 / rank for rank in range(1, traffic.tenants + 1)]
    whole = sum(weights)
    own = [weight / whole * traffic.requests_s for weight in weights[cells // 2 :: cells]]
    # What one cell gets of the whole is a cell's part: the first tenants are nobody's average.
    scale = traffic.requests_s / cells / sum(own)
    return [share * scale for share in own]


def _rounded(value: float) -> float:
    """To two digits, so that alike tenants are played once."""
    return round(value, 1 - math.floor(math.log10(value)))


def figures(
    traffic: Traffic,
    fleet: Fleet,
    costs: Costs = COSTS,
    limits: LimiterOptions | None = None,
    cache: CacheOptions | None = None,
) -> Figures:
    """Play a deployment through."""
    limits = limits or LimiterOptions(worker_id="simulated")
    cache = cache or CacheOptions()
    leases = (limits.lease_life_s, limits.lease_min_rate, limits.lease_min_tokens)
    cell_s = traffic.requests_s / fleet.cells
    workers = fleet.cell_workers
    asked = 0.0
    for share in shares(traffic, fleet.cells):
        per_second = max(10.0, _rounded(share * traffic.headroom))
        rate = Rate("tenant", per_second, per_second * traffic.burst_s)
        worker_s = _rounded(share / workers)
        asked += share * calls_per_request(worker_s, rate, workers, *leases)
    roll_calls = workers / limits.roll_call_s
    writes = cell_s * traffic.writes
    # A read that misses is looked up and kept; a write begins, is announced, and finishes.
    looked_up = (cell_s - writes) * traffic.misses * 2
    spread = asked + looked_up + writes * 2
    others = workers - 1
    acks = writes * others
    beats = workers / cache.heartbeat_s
    feed_us = (
        writes * (costs.script + others * costs.delivery)
        + acks * (costs.publish + costs.delivery)
        + beats * (costs.script + costs.publish + costs.delivery)
        + roll_calls * costs.script
    )
    return Figures(
        limit_calls_s=asked,
        calls_per_request=asked / cell_s,
        cache_calls_s=looked_up + writes * 3,
        shards=max(1, math.ceil(spread * costs.script / 1e6 / BUSY)),
        feed_share=feed_us / 1e6,
        heard_s=fleet.workers * (writes * others / workers + acks / workers + 1 / cache.heartbeat_s),
        acks_per_write=others if fleet.strict else 0,
        acks_s=acks,
    )


SCENES: tuple[tuple[str, Traffic, Fleet], ...] = (
    ("1,000/s: 1 gateway of 2", Traffic(1_000, 50), Fleet(1, 2)),
    ("10,000/s: 2 gateways of 4", Traffic(10_000, 200), Fleet(2, 4)),
    ("100,000/s: 16 gateways of 8, one store", Traffic(100_000, 2_000), Fleet(16, 8)),
    ("100,000/s: 16 of 8 in 4 cells", Traffic(100_000, 2_000), Fleet(16, 8, cells=4)),
    ("the same, bursts of 20 s", Traffic(100_000, 2_000, burst_s=20), Fleet(16, 8, cells=4)),
    ("1,000,000/s: 1,000 of 1, one store", Traffic(1_000_000, 20_000), Fleet(1_000, 1)),
    ("1,000,000/s: 1,000 of 1 in 100 cells", Traffic(1_000_000, 20_000), Fleet(1_000, 1, cells=100)),
    ("1,000,000/s: 200 of 8 in 50 cells", Traffic(1_000_000, 20_000), Fleet(200, 8, cells=50)),
)


def table(costs: Costs = COSTS) -> str:
    """All scenes, as Markdown."""
    heads = (
        *("deployment", "workers in a cell", "store calls per request for limits"),
        *("store calls/s in a cell: limits", "cache and writes", "shards in a cell"),
        *("feed messages/s a gateway hears", "acknowledgements per write", "the feed's processor"),
    )
    rows: list[tuple[str, ...]] = [heads, ("---",) * len(heads)]
    for name, traffic, fleet in SCENES:
        found = figures(traffic, fleet, costs)
        rows.append(
            (
                name,
                f"{fleet.cell_workers:,}",
                f"{found.calls_per_request:.2f}",
                f"{found.limit_calls_s:,.0f}",
                f"{found.cache_calls_s:,.0f}",
                f"{found.shards:,}",
                f"{found.heard_s:,.0f}",
                f"{found.acks_per_write:,}",
                f"{found.feed_share:.0%}" + (", **too much**" if found.feed_share > BUSY else ""),
            )
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


WORK = ("cached", "forwarded", "write audited")
MIXES: tuple[tuple[str, tuple[float, float, float]], ...] = (
    ("93 % cached, 5 % forwarded, 2 % written", (0.93, 0.05, 0.02)),
    ("98 % forwarded, 2 % written", (0.0, 0.98, 0.02)),
)


def workers_table(results: str) -> str:
    """How many workers the processors allow, from the results of `make bench`, as Markdown."""
    rows = dict(re.findall(r"^\| ([a-z ,]+) \| ([\d.]+) \|", results, re.MULTILINE))
    costs_us = [float(rows[work]) for work in WORK]
    told = ", ".join(f"{work} {cost:.0f} us" for work, cost in zip(WORK, costs_us, strict=True))
    found = [f"Processor time per request, from the last results: {told}.\n\n"]
    found.append(f"| requests/s | {' | '.join(f'workers: {name}' for name, _ in MIXES)} |\n")
    found.append(f"| --- |{' --- |' * len(MIXES)}\n")
    for requests_s in (1_000, 100_000, 1_000_000):
        needed = [
            math.ceil(requests_s * sum(map(operator.mul, parts, costs_us)) / 1e6 / BUSY) for _, parts in MIXES
        ]
        found.append(f"| {requests_s:,} | {' | '.join(f'{count:,}' for count in needed)} |\n")
    return "".join(found)


def renewed(guide: str) -> str:
    """The guide with its generated parts as they are to be."""
    for name, text in (("workers", workers_table(RESULTS.read_text())), ("scale", table())):
        before, mark, rest = guide.partition(f"<!-- generated: {name} -->\n")
        guide = f"{before}{mark}{text}<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return guide


async def measured(calls: int = 4_000, subscribers: int = 16) -> Costs:
    """The costs on this machine: the embedded store's own processor time, over many calls."""
    from cbk_gateway.limits import Limiter  # noqa: PLC0415 - only where a store is at hand
    from cbk_gateway.operation import understand  # noqa: PLC0415 - likewise
    from cbk_gateway.parties import Tenant, TenantLimits  # noqa: PLC0415 - likewise
    from cbk_gateway.secret import Secret  # noqa: PLC0415 - likewise
    from cbk_gateway.store import EmbeddedServer, StoreOptions, open_store  # noqa: PLC0415 - likewise

    limits = TenantLimits(rates=(Rate("tenant", 1e9, 4e9),))
    tenant, read = Tenant("t", "a", Secret("k"), limits=limits), understand("GET", "/api/v1/bot/list")
    with EmbeddedServer() as server:
        options = StoreOptions(url=server.url, max_connections=64, call_timeout_s=5.0)
        async with await open_store(options) as store:

            async def processor_us() -> float:
                told = await store.client.info("cpu")
                return 1e6 * float(told["used_cpu_sys"] + told["used_cpu_user"])

            async def per_call(work: Callable[[], Awaitable[object]]) -> float:
                began = await processor_us()
                for _ in range(calls // AT_ONCE):
                    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
                return (await processor_us() - began) / calls

            async def publish_to(channel: str) -> object:
                return await store.call(lambda client: client.publish(channel, b"x" * 64))

            limiter = Limiter(store, LimiterOptions(lease_min_rate=math.inf))
            await limiter.start()
            script = await per_call(lambda: limiter.admit(tenant, "s", read))
            await limiter.stop()
            publish = await per_call(lambda: publish_to("nobody"))
            ears = [store.pubsub() for _ in range(subscribers)]
            for ear in ears:
                await ear.subscribe("somebody")
            delivery = (await per_call(lambda: publish_to("somebody")) - publish) / subscribers
            for ear in ears:
                await ear.aclose()  # type: ignore[no-untyped-call]  # untyped in the client library
    return replace(COSTS, script=script, publish=publish, delivery=delivery)


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale")
    parser.add_argument("--measure", action="store_true", help="take the store's costs from this machine")
    parser.add_argument("--write", action="store_true", help="write the tables into deploy/SCALE.md")
    asked = parser.parse_args(arguments)
    if asked.write:
        GUIDE.write_text(renewed(GUIDE.read_text()))
    costs = asyncio.run(measured()) if asked.measure else COSTS
    sys.stdout.write(
        f"store: {costs.script:.1f} us per script, {costs.publish:.1f} us per message published, "
        f"{costs.delivery:.2f} us per delivery\n\n{table(costs)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

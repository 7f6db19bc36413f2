"""What the cache costs: CPU per hit in each tier, bytes per entry, how long a write waits for the others.

Run by hand: `python tests/benchmarks/bench_cache.py`. It starts a store of its own and two more processes.
Figures depend on the machine; compare runs on one machine only.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable

from cbk_gateway.cache import Cache, CacheKeyParts, CacheOptions, Fill
from cbk_gateway.operation import Operation, understand
from cbk_gateway.store import EmbeddedServer, Store, StoreOptions, open_store

PARTS = CacheKeyParts("acme", "key", None, "", "")
BOTS = understand("GET", "/v1/bot/list")
HEADERS = (("Content-Type", "application/json"),)
PAGE = b'{"items":[' + b",".join(b'{"id":"bot-%04d","name":"a bot"}' % n for n in range(100)) + b"]}"


async def worker(url: str, options: CacheOptions) -> tuple[Store, Cache]:
    store = await open_store(StoreOptions(url=url, call_timeout_s=2.0))
    cache = Cache(store, options)
    await cache.start()
    while not cache.is_live and options.l1_max_bytes:
        await asyncio.sleep(0.01)
    return store, cache


async def fill(cache: Cache, operation: Operation = BOTS) -> None:
    found = await cache.recall(operation, PARTS)
    if isinstance(found, Fill):
        await found.store(200, HEADERS, PAGE)


async def hits_from_memory(cache: Cache, count: int) -> float:
    """CPU microseconds per hit in the worker's own tier."""
    await fill(cache)
    started = time.process_time()
    for _ in range(count):
        assert cache.recall_now(BOTS, PARTS, accept_encoding="gzip") is not None
    return (time.process_time() - started) / count * 1e6


async def hits_from_store(cache: Cache, count: int) -> tuple[float, float]:
    """CPU and wall microseconds per hit in the shared tier, one after the other."""
    await fill(cache)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        cache._tiers.memory.clear()
        await cache.recall(BOTS, PARTS)
    return (time.process_time() - cpu) / count * 1e6, (time.perf_counter() - wall) / count * 1e6


async def bytes_per_entry(store: Store, cache: Cache, count: int) -> tuple[float, float]:
    """Bytes in the worker's books and in the store, per entry, beyond the body."""
    before = int((await store.client.info("memory"))["used_memory"])
    booked = cache._tiers.memory.size_bytes
    for number in range(count):
        await fill(cache, understand("GET", f"/v1/bot/b{number}/fetch"))
    used = int((await store.client.info("memory"))["used_memory"]) - before
    return (cache._tiers.memory.size_bytes - booked) / count - len(PAGE), used / count - len(PAGE)


async def invalidations(cache: Cache, count: int) -> list[float]:
    """Milliseconds of a write's beginning and end together: until no process can serve the old answer."""
    spent = []
    for _ in range(count):
        started = time.perf_counter()
        mark = await cache.begin_write("acme", frozenset({"bot"}))
        await mark.finish()
        spent.append((time.perf_counter() - started) * 1e3)
    return sorted(spent)


async def purge_of_one(cache: Cache) -> float:
    """Milliseconds to drop what speaks of one id, among all that the account has, everywhere."""
    started = time.perf_counter()
    await cache.purge("acme", frozenset({"bot"}), "b7")
    return (time.perf_counter() - started) * 1e3


async def listener(url: str) -> None:
    """A process that only hears and answers, until its input ends."""
    store, cache = await worker(url, CacheOptions())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await cache.stop()
    await store.close()


async def main(show: Callable[[str], object]) -> None:
    with EmbeddedServer() as server:
        options = CacheOptions(account_share=1.0)
        store, cache = await worker(server.url, options)
        others = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, server.url),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for _ in range(2)
        ]
        for other in others:
            assert other.stdout is not None
            await other.stdout.readline()
        cpu, wall = await hits_from_store(cache, 2000)
        in_memory, in_store = await bytes_per_entry(store, cache, 1000)
        purged_ms = await purge_of_one(cache)
        waits = await invalidations(cache, 1000)
        figures = {
            "l1_hit_cpu_us": await hits_from_memory(cache, 50_000),
            "l2_hit_cpu_us": cpu,
            "l2_hit_wall_us": wall,
            "l1_bytes_per_entry_beyond_body": in_memory,
            "l2_bytes_per_entry_beyond_body": in_store,
            "body_bytes": len(PAGE),
            "write_wait_ms_median": statistics.median(waits),
            "write_wait_ms_p99": waits[int(len(waits) * 0.99)],
            "purge_of_one_among_1000_ms": purged_ms,
            "processes": len(others) + 1,
        }
        show(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=2) + "\n")
        for other in others:
            assert other.stdin is not None
            other.stdin.close()
            await other.wait()
        await cache.stop()
        await store.close()


if __name__ == "__main__":
    asyncio.run(listener(sys.argv[1]) if len(sys.argv) > 1 else main(sys.stdout.write))

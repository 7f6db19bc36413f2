"""No read returns anything older than a write that was acknowledged to anybody before the read began.

Several processes with two workers each read and write at random, through caches of their own over one real
store, while the invalidation feed is cut, the store is paused, flushed and killed. Behind them stands one
versioned upstream. Every operation is logged with the machine's monotonic clock, which all processes share,
and the logs are judged afterwards. This file is also the program that a worker process runs.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from cbk_gateway.cache import Cache, CacheKeyParts, CacheOptions, Fill, Hit
from cbk_gateway.operation import ALL_TYPES, understand
from cbk_gateway.store import EmbeddedServer, StoreOptions, open_store

TYPES = ("bot", "dataset", "skillset", "portal", "policy")
OPERATIONS = {one: understand("GET", f"/v1/{one}/list") for one in TYPES}
PARTS = CacheKeyParts("acme", "key", None, "", "")
HEADERS = (("Content-Type", "application/json"),)
OPTIONS = CacheOptions(lease_s=1.0, heartbeat_s=0.1, death_after_s=1.5, mark_lease_s=2.0, fill_lease_s=1.0)
PROCESSES, WORKERS, CLIENTS = 3, 2, 6


# The upstream: one counter per type. A write takes effect, and a read looks, at a random moment.


async def serve_upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    chance = random.Random()
    try:
        while line := await reader.readline():
            verb, kind = line.decode().split()
            await asyncio.sleep(chance.random() * 0.004)
            if verb == "PUT":
                for one in TYPES if kind == ALL_TYPES else (kind,):
                    VERSIONS[one] += 1
            versions = dict(VERSIONS)
            await asyncio.sleep(chance.random() * 0.004)
            writer.write(json.dumps(versions).encode() + b"\n")
            await writer.drain()
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


VERSIONS = dict.fromkeys(TYPES, 0)


# A worker process.


class Upstream:
    """Connections to the upstream, one per call in flight. A cancelled call closes its own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, verb: str, kind: str) -> dict[str, int]:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_unix_connection(self._path)
        try:
            writer.write(f"{verb} {kind}\n".encode())
            answer: dict[str, int] = json.loads(await reader.readline())
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return answer

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
            await writer.wait_closed()


@dataclass
class Client:
    """One client of one worker: does one thing after the other and logs it."""

    cache: Cache
    upstream: Upstream
    chance: random.Random
    log: list[tuple[str, str, int, int, int]]

    async def act(self) -> None:
        draw = self.chance.random()
        if draw < 0.08:
            await self.write(self.chance.choice(TYPES), is_open_ended=False)
        elif draw < 0.085:
            await self.write(ALL_TYPES, is_open_ended=True)
        elif draw < 0.10:
            await self.give_up()
        else:
            await self.read(self.chance.choice(TYPES))

    async def write(self, kind: str, *, is_open_ended: bool) -> None:
        began = time.monotonic_ns()
        mark = await self.cache.begin_write("acme", frozenset({kind}), is_open_ended=is_open_ended)
        versions = await self.upstream.ask("PUT", kind)
        await mark.finish()
        ended = time.monotonic_ns()
        for one in TYPES if kind == ALL_TYPES else (kind,):
            self.log.append(("write", one, began, ended, versions[one]))

    async def read(self, kind: str) -> None:
        operation = OPERATIONS[kind]
        began = time.monotonic_ns()
        found = self.cache.recall_now(operation, PARTS) or await self.cache.recall(operation, PARTS)
        if isinstance(found, Hit):
            word, version = "hit", int(orjson.loads(found.body)["items"][0])
        else:
            word = "fill" if isinstance(found, Fill) else "pass"
            try:
                version = (await self.upstream.ask("GET", kind))[kind]
            except BaseException:
                if isinstance(found, Fill):
                    found.abandon()
                raise
            if isinstance(found, Fill):
                await found.store(200, HEADERS, orjson.dumps({"items": [version], "cursor": None}))
        self.log.append((word, kind, began, time.monotonic_ns(), version))

    async def give_up(self) -> None:
        """A client that leaves at a random moment."""
        try:
            async with asyncio.timeout(self.chance.random() * 0.004):
                await self.read(self.chance.choice(TYPES))
        except TimeoutError:
            pass


async def run_process(store_url: str, upstream_path: str, log_path: str, seed: int, count: int) -> None:
    log: list[tuple[str, str, int, int, int]] = []
    upstream = Upstream(upstream_path)
    remaining = count

    async def live(client: Client) -> None:
        nonlocal remaining
        while remaining > 0:
            remaining -= 1
            await client.act()

    stores = [
        await open_store(StoreOptions(url=store_url, call_timeout_s=0.25, breaker_pause_s=0.1))
        for _ in range(WORKERS)
    ]
    caches = [Cache(store, OPTIONS) for store in stores]
    for cache in caches:
        await cache.start()
    async with asyncio.TaskGroup() as group:
        for number in range(WORKERS * CLIENTS):
            chance = random.Random(seed * 1000 + number)
            group.create_task(live(Client(caches[number % WORKERS], upstream, chance, log)))
    for cache, store in zip(caches, stores, strict=True):
        await cache.stop()
        await store.close()
    await upstream.close()
    Path(log_path).write_text(json.dumps(log))


# The judge.


def stale_reads(logs: list[tuple[str, str, int, int, int]]) -> list[str]:
    """Reads whose version is below one that was acknowledged before they began."""
    found = []
    for kind in TYPES:
        acknowledged: list[tuple[int, int]] = []
        newest = 0
        writes = [entry for entry in logs if entry[0] == "write" and entry[1] == kind]
        for _, _, _, ended, version in sorted(writes, key=lambda one: one[3]):
            newest = max(newest, version)
            acknowledged.append((ended, newest))
        times = [ended for ended, _ in acknowledged]
        for word, read_kind, began, _, version in logs:
            if word == "write" or read_kind != kind:
                continue
            position = bisect.bisect_left(times, began)
            least = acknowledged[position - 1][1] if position else 0
            if version < least:
                late_ms = (began - times[position - 1]) / 1e6
                found.append(f"{word} of {kind} gave {version}, {late_ms:.1f} ms after {least} was known")
    return found


def test_the_judge_finds_a_stale_read() -> None:
    logs = [("write", "bot", 0, 10, 1), ("hit", "bot", 11, 12, 0), ("hit", "bot", 9, 12, 0)]
    assert stale_reads(logs) == ["hit of bot gave 0, 0.0 ms after 1 was known"]


# The faults, each told from outside the workers.


async def disturb(
    server: EmbeddedServer, workers: list[int], chance: random.Random, faults: tuple[str, ...], pause_s: float
) -> None:
    while faults:
        await asyncio.sleep(pause_s * (0.5 + chance.random()))
        fault = chance.choice(faults)
        if fault == "crash":
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start_again)
        elif fault in {"freeze", "stall"}:
            frozen = server.pid if fault == "freeze" else chance.choice(workers)
            with contextlib.suppress(ProcessLookupError):
                os.kill(frozen, signal.SIGSTOP)
                try:
                    await asyncio.sleep(chance.random() * 1.8)
                finally:
                    os.kill(frozen, signal.SIGCONT)
        else:
            async with await open_store(StoreOptions(url=server.url, call_timeout_s=2.0)) as store:
                if fault == "flush":
                    await store.client.flushall()
                else:
                    await store.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


@asynccontextmanager
async def upstream_at(path: Path) -> AsyncIterator[None]:
    VERSIONS.update(dict.fromkeys(TYPES, 0))
    server = await asyncio.start_unix_server(serve_upstream, str(path))
    try:
        yield
    finally:
        server.close()


async def run(
    directory: Path, count: int, faults: tuple[str, ...], pause_s: float = 1.0
) -> list[tuple[str, str, int, int, int]]:
    """The whole scene: `count` operations per process. Returns the log of all."""
    seed = random.SystemRandom().randrange(1 << 30)
    socket_path = directory / "up.sock"
    with EmbeddedServer() as server:
        async with upstream_at(socket_path):
            processes = [
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-W", "error", __file__, server.url, str(socket_path)),
                    *(str(directory / f"log-{number}"), str(seed + number), str(count)),
                )
                for number in range(PROCESSES)
            ]
            pids = [process.pid for process in processes]
            trouble = asyncio.create_task(disturb(server, pids, random.Random(seed), faults, pause_s))
            codes = await asyncio.gather(*(process.wait() for process in processes))
            trouble.cancel()
            await asyncio.wait((trouble,))
            assert codes == [0] * PROCESSES
    log: list[tuple[str, str, int, int, int]] = []
    for number in range(PROCESSES):
        log += [tuple(entry) for entry in json.loads((directory / f"log-{number}").read_text())]
    return log


ALL_FAULTS = ("cut", "stall", "stall", "flush", "freeze", "crash")


async def test_no_read_is_older_than_an_acknowledged_write(tmp_path: Path) -> None:
    log = await run(tmp_path, 1500, ())
    assert stale_reads(log) == []
    hits = sum(entry[0] == "hit" for entry in log)
    assert hits > len(log) / 5, "too few hits to have tested anything"


async def test_nor_when_the_feed_and_the_store_fail(tmp_path: Path) -> None:
    log = await run(tmp_path, 2000, ALL_FAULTS, pause_s=0.4)
    assert stale_reads(log) == []
    assert any(entry[0] == "hit" for entry in log)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_hundred_thousand_operations_under_faults(tmp_path: Path) -> None:
    log = await run(tmp_path, 40_000, ALL_FAULTS, pause_s=4.0)
    assert len(log) >= 100_000
    assert stale_reads(log) == []
    assert sum(entry[0] == "hit" for entry in log) > 10_000


if __name__ == "__main__":
    asyncio.run(run_process(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))

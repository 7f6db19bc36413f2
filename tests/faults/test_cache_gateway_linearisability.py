"""Through whole gateways, no read is older than a write that was acknowledged to anybody before it began.

Three gateways share a store; every object has one writer, who sends each of its versions to a gateway chosen
at random, and anybody reads it, alone or in a list, from another. A write whose outcome is unknown counts for
nothing until a later one is acknowledged.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.store import EmbeddedServer, StoreOptions, open_store
from integration.cache_gateway_fleet import Clients, fleet

OBJECTS, READERS = 6, 18


class Run:
    """So many operations, and what was wrong with them."""

    def __init__(self, those: Clients, bots: list[str], operations: int, seed: int) -> None:
        self.those = those
        self.bots = bots
        self.remaining = operations
        self.chance = random.Random(seed)
        self.acknowledged = dict.fromkeys(bots, 0)
        self.counts: Counter[str] = Counter()
        self.stale: list[str] = []

    async def go(self) -> None:
        async with asyncio.TaskGroup() as group:
            for bot in self.bots:
                group.create_task(self._write(bot))
            for _ in range(READERS):
                group.create_task(self._read())

    def _gateway(self) -> int:
        return self.chance.randrange(len(self.those.urls))

    async def _write(self, bot: str) -> None:
        version = 0
        while self.remaining > 0:
            self.remaining -= 1
            version += 1
            try:
                seen = await self.those.post(
                    self._gateway(), f"bot/{bot}/update", {"name": f"version {version}"}
                )
            except aiohttp.ClientError:
                self.counts["broken"] += 1
                continue
            if seen.status == 200:
                self.acknowledged[bot] = version
                self.counts["written"] += 1
            else:
                self.counts["refused"] += 1
            await asyncio.sleep(self.chance.random() * 0.1)

    async def _read(self) -> None:
        while self.remaining > 0:
            self.remaining -= 1
            wants_list = self.chance.random() < 0.4
            path = "bot/list" if wants_list else f"bot/{self.chance.choice(self.bots)}/fetch"
            known = dict(self.acknowledged)
            try:
                seen = await self.those.get(self._gateway(), path)
            except aiohttp.ClientError:
                self.counts["broken"] += 1
                continue
            if seen.status != 200:
                self.counts["failed"] += 1
                continue
            self.counts["hit" if seen.is_hit else "fetched"] += 1
            for row in seen.json["items"] if wants_list else [seen.json]:
                version = int(row["name"].split()[1])
                if version < known[row["id"]]:
                    self.stale.append(f"{path} gave {version} after {known[row['id']]}: {seen.said}")


async def run(folder: Path, store_url: str, operations: int) -> Run:
    settings = {"store": {"timeout_ms": 250}, "cache": {"config_s": 600}}
    async with fleet(folder, store_url, 3, **settings) as those:
        bots = [await those.bot("version 0") for _ in range(OBJECTS)]
        one = Run(those, bots, operations, random.SystemRandom().randrange(1 << 30))
        trouble = asyncio.create_task(disturb(those, store_url, one)) if operations > 10_000 else None
        await one.go()
        if trouble is not None:
            await trouble
        return one


async def disturb(those: Clients, store_url: str, one: Run) -> None:
    """Cut the feed, flush or pause the store, and let the upstream drop answers, while operations go on."""
    chance = random.Random(one.remaining)
    while one.remaining > 0:
        before = one.remaining
        while one.remaining > max(0, before - 1500):
            await asyncio.sleep(0.02)
        fault = chance.choice(("cut", "flush", "pause", "drop"))
        one.counts[fault] += 1
        if fault == "drop":
            those.sandbox.add_fault("/v1/bot/*/update", "drop_after_effect", times=3)
            continue
        async with await open_store(StoreOptions(url=store_url, call_timeout_s=5.0)) as store:
            command = {
                "cut": ("CLIENT", "KILL", "TYPE", "pubsub"),
                "flush": ("FLUSHALL",),
                "pause": ("CLIENT", "PAUSE", str(chance.randrange(100, 1800)), "ALL"),
            }[fault]
            await store.client.execute_command(*command)


async def test_no_read_through_any_gateway_is_older_than_an_acknowledged_write(tmp_path: Path) -> None:
    with EmbeddedServer() as server:
        done = await run(tmp_path, server.url, 2000)
    assert done.stale == []
    assert done.counts["hit"] > 200, done.counts
    assert done.counts["written"] > 50, done.counts
    assert set(done.counts) <= {"hit", "fetched", "written"}, done.counts


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_nor_while_feed_store_and_upstream_fail(tmp_path: Path) -> None:
    with EmbeddedServer() as server:
        done = await run(tmp_path, server.url, 40_000)
    assert done.stale == []
    assert done.counts["hit"] > 4_000, done.counts
    assert sum(done.counts[fault] for fault in ("cut", "flush", "pause", "drop")) > 10, done.counts

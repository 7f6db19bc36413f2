"""Through real processes, no read is older than a write that was acknowledged to anybody before it began.

Three times `serve` with two workers each share a store and an API; whoever writes or reads takes any of them,
and any of its workers. The feed is cut; the store is flushed, paused, frozen and killed; workers are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.sandbox import Sandbox
from cbk_gateway.store import EmbeddedServer, StoreFault, StoreOptions, open_store
from faults.test_cache_gateway_linearisability import OBJECTS, Run
from fleet_stage import FleetStage, serving
from harness import KEYS
from integration.cache_gateway_fleet import Clients

GATEWAYS, WORKERS = 3, 2
FAULTS = ("cut", "cut", "flush", "pause", "freeze", "kill", "worker")
COMMANDS = {"cut": ("CLIENT", "KILL", "TYPE", "pubsub"), "flush": ("FLUSHALL",)}


@contextlib.asynccontextmanager
async def serves(folder: Path, store_url: str) -> AsyncIterator[tuple[Clients, list[FleetStage]]]:
    """The gateways, all in front of one sandbox of their own."""
    async with contextlib.AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox({KEYS["acme"]: "acme-account"}))
        stages = []
        for number in range(GATEWAYS):
            place = folder / f"gateway-{number}"
            place.mkdir()
            serve = serving(
                place,
                store_url,
                workers=WORKERS,
                upstream={"url": sandbox.url},
                store={"timeout_ms": 250},
                cache={"config_s": 600},
            )
            stages.append(await stack.enter_async_context(serve))
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), connector=connector)
        )
        urls = [one.url for one in stages]
        yield Clients(urls, sandbox, session, stages[0].bearer()), stages


async def disturb(server: EmbeddedServer, stages: list[FleetStage], one: Run, every: int) -> None:
    """Let something fail every so many operations."""
    chance = random.Random(one.remaining)
    while one.remaining > 0:
        before = one.remaining
        while one.remaining > max(0, before - every):
            await asyncio.sleep(0.02)
        fault = chance.choice(FAULTS)
        one.counts[fault] += 1
        if fault == "worker":
            workers = await chance.choice(stages).workers()
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(list(workers.values())), signal.SIGKILL)
        elif fault == "kill":
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start_again)
        elif fault == "freeze":
            os.kill(server.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(chance.random() * 2.5)
            finally:
                os.kill(server.pid, signal.SIGCONT)
        else:
            with contextlib.suppress(StoreFault):
                async with await open_store(StoreOptions(url=server.url, call_timeout_s=5.0)) as store:
                    command = COMMANDS.get(fault) or (
                        "CLIENT",
                        "PAUSE",
                        str(chance.randrange(100, 1800)),
                        "ALL",
                    )
                    await store.client.execute_command(*command)


async def run(folder: Path, operations: int, faults_every: int | None) -> Run:
    with EmbeddedServer() as server:
        async with serves(folder, server.url) as (those, stages):
            bots = [await those.bot("version 0") for _ in range(OBJECTS)]
            one = Run(those, bots, operations, random.SystemRandom().randrange(1 << 30))
            async with asyncio.TaskGroup() as group:
                if faults_every is not None:
                    group.create_task(disturb(server, stages, one, faults_every))
                group.create_task(one.go())
            return one


@pytest.mark.timeout(180)
async def test_no_read_through_any_worker_is_older_than_an_acknowledged_write(tmp_path: Path) -> None:
    done = await run(tmp_path, 1200, None)
    assert done.stale == []
    assert done.counts["hit"] > 100, done.counts
    assert done.counts["written"] > 20, done.counts


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_nor_in_a_hundred_thousand_operations_while_feed_store_and_workers_fail(tmp_path: Path) -> None:
    done = await run(tmp_path, 110_000, 2500)
    print(dict(done.counts))  # noqa: T201 - the figures of a long run are what it is made for
    assert done.stale == []
    assert sum(done.counts[kind] for kind in ("hit", "fetched", "written")) >= 100_000, done.counts
    assert done.counts["hit"] > 10_000, done.counts
    assert sum(done.counts[fault] for fault in FAULTS[1:]) > 20, done.counts

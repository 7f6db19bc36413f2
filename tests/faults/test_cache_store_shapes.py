"""The cache over Sentinel and over a Cluster: whoever takes over from a primary, no invalidation is lost.

A replica may lack the last bumps of its primary, and the register of leases with them. Workers read and write
at random while a primary dies, or hands over politely, and every read is judged afterwards.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import cast

import pytest
from redis import Redis
from redis.crc import key_slot

from cbk_gateway.cache import Cache
from cbk_gateway.store import EmbeddedServer, StoreOptions, open_store
from integration.store_servers import clients, command, free_ports, raw_info, sentinel, server, wait_until
from integration.test_cache_linearisability import OPTIONS, Client, Upstream, stale_reads, upstream_at

WORKERS, CLIENTS = 2, 3
SLOTS = (0, 5461, 10923, 16384)
"""Where the parts of a Cluster's nodes begin and end."""


async def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition while everything goes on."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)


class Run:
    """Workers that read and write until the scene is over."""

    def __init__(self, caches: list[Cache], upstream: Upstream) -> None:
        self.caches = caches
        self.log: list[tuple[str, str, int, int, int]] = []
        self.is_over = False
        chance = random.SystemRandom()
        self._clients = [
            Client(cache, upstream, random.Random(chance.random()), self.log)
            for cache in caches
            for _ in range(CLIENTS)
        ]

    async def go(self) -> None:
        async with asyncio.TaskGroup() as group:
            for client in self._clients:
                group.create_task(self._live(client))

    async def _live(self, client: Client) -> None:
        while not self.is_over:
            await client.act()

    async def works(self, hits: int = 150) -> None:
        """Wait until so many more answers came from the cache, of each worker's memory too."""
        await until(lambda: all(cache.is_live for cache in self.caches), 60)
        wanted = sum(entry[0] == "hit" for entry in self.log) + hits
        await until(lambda: sum(entry[0] == "hit" for entry in self.log) >= wanted, 60)


async def run(folder: Path, url: str, script: Callable[[Run], Awaitable[None]]) -> Run:
    """The whole scene, played to the end of its script."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(upstream_at(folder / "up.sock"))
        upstream = Upstream(str(folder / "up.sock"))
        stack.push_async_callback(upstream.close)
        caches = []
        for _ in range(WORKERS):
            options = StoreOptions(url=url, call_timeout_s=0.25, breaker_pause_s=0.1, open_timeout_s=15)
            store = await stack.enter_async_context(await open_store(options))
            caches.append(Cache(store, OPTIONS))
            await caches[-1].start()
            stack.push_async_callback(caches[-1].stop)
        one = Run(caches, upstream)
        going = asyncio.ensure_future(one.go())
        try:
            await one.works()
            await script(one)
            await one.works()
        finally:
            one.is_over = True
            await going
    return one


async def test_a_primary_that_dies_behind_sentinel_takes_no_invalidation_with_it(tmp_path: Path) -> None:
    with sentinel(tmp_path) as (url, primary, replica):

        async def script(_: Run) -> None:
            os.kill(primary.pid, signal.SIGKILL)
            await until(lambda: raw_info(replica).startswith(b"role:master"))

        done = await run(tmp_path, url, script)
    assert stale_reads(done.log) == []


@pytest.mark.long
async def test_nor_does_one_that_hands_over_and_lives_on(tmp_path: Path) -> None:
    with sentinel(tmp_path) as (url, _, replica):

        async def script(_: Run) -> None:
            watcher = Redis.from_url(url.replace("redis+sentinel", "redis").rpartition("/")[0])
            try:
                await asyncio.to_thread(command, watcher, "SENTINEL", "FAILOVER", "main")
            finally:
                watcher.close()
            await until(lambda: raw_info(replica).startswith(b"role:master"))

        done = await run(tmp_path, url, script)
    assert stale_reads(done.log) == []


@contextmanager
def cluster_with_replica() -> Iterator[tuple[str, EmbeddedServer, Redis]]:
    """Three primaries; the last has feed, account and a replica. Gives the URL, that primary, the replica."""
    assert all(key_slot(tag) >= SLOTS[2] for tag in (b"cache-feed", b"acme"))
    ports = free_ports(8)
    data, buses = ports[:4], ports[4:]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                server(
                    port,
                    *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
                    *("--cluster-announce-ip", "127.0.0.1", "--cluster-node-timeout", "1000"),
                    *("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"),
                )
            )
            for port, bus in zip(data, buses, strict=True)
        ]
        nodes = stack.enter_context(clients(data))
        for i, node in enumerate(nodes[:3]):
            command(node, "CLUSTER", "ADDSLOTSRANGE", SLOTS[i], SLOTS[i + 1] - 1)
            command(node, "CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for port, bus in zip(data[1:], buses[1:], strict=True):
            command(nodes[0], "CLUSTER", "MEET", "127.0.0.1", port, bus)
        wait_until(lambda: all(known(node) == ("ok", "4") for node in nodes[:3]))
        name = str(nodes[2].execute_command("CLUSTER", "MYID"), "ascii")  # type: ignore[no-untyped-call]
        wait_until(lambda: name in str(nodes[3].execute_command("CLUSTER", "NODES")))  # type: ignore[no-untyped-call]
        command(nodes[3], "CLUSTER", "REPLICATE", name)
        wait_until(lambda: b"master_link_status:up" in raw_info(nodes[3]))
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in data)
        yield url, servers[2], nodes[3]


def known(node: Redis) -> tuple[str, str]:
    """What a node says of its Cluster: its state, and how many nodes it knows."""
    state = cast("dict[str, str]", node.cluster("INFO"))
    return state["cluster_state"], state["cluster_known_nodes"]


@pytest.mark.parametrize(
    "dies", [True, pytest.param(False, marks=pytest.mark.long)], ids=["dies", "hands-over"]
)
async def test_nor_on_a_cluster(tmp_path: Path, dies: bool) -> None:
    with cluster_with_replica() as (url, primary, replica):

        async def script(_: Run) -> None:
            if dies:
                os.kill(primary.pid, signal.SIGKILL)
            else:
                await asyncio.to_thread(command, replica, "CLUSTER", "FAILOVER")
            await until(lambda: raw_info(replica).startswith(b"role:master"))

        done = await run(tmp_path, url, script)
    assert stale_reads(done.log) == []

"""The store goes away and comes back: reads pass, writes go on, and nothing old is served afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from cbk_gateway.cache import Cache, CacheKeyParts, CacheOptions, Fill, Hit, Pass
from cbk_gateway.operation import understand
from cbk_gateway.store import EmbeddedServer, StoreFault, StoreOptions, open_store

OPTIONS = CacheOptions(lease_s=1.0, heartbeat_s=0.1, death_after_s=1.2, mark_lease_s=2.0)
PARTS = CacheKeyParts("acme", "key", None, "", "")
BOTS = understand("GET", "/v1/bot/list")
HEADERS = (("Content-Type", "application/json"),)
OLD, NEW = b'{"items":["old"]}', b'{"items":["new"]}'


@asynccontextmanager
async def worker(server: EmbeddedServer, options: CacheOptions = OPTIONS) -> AsyncIterator[Cache]:
    async with await open_store(
        StoreOptions(url=server.url, call_timeout_s=0.2, breaker_pause_s=0.05)
    ) as store:
        cache = Cache(store, options)
        await cache.start()
        await eventually(lambda: cache.is_live)
        try:
            yield cache
        finally:
            await cache.stop()


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def fill(cache: Cache, body: bytes = OLD) -> None:
    found = await cache.recall(BOTS, PARTS)
    assert isinstance(found, Fill), found
    assert (await found.store(200, HEADERS, body)).is_stored
    await cache._tiers.kept()


async def read(cache: Cache) -> Hit | Pass | Fill:
    found = await cache.recall(BOTS, PARTS)
    if isinstance(found, Fill):
        found.abandon()
    return found


async def until_served_or_due(cache: Cache) -> Hit | Fill:
    """Read until the cache works again; what it gives first is what counts."""
    async with asyncio.timeout(15.0):
        while isinstance(found := await read(cache), Pass):
            await asyncio.sleep(0.01)
    return found


async def until_passing(cache: Cache) -> Pass:
    async with asyncio.timeout(10.0):
        while not isinstance(found := await read(cache), Pass):
            await asyncio.sleep(0.01)
    return found


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as one:
        yield one


async def test_reads_pass_while_the_store_is_away(server: EmbeddedServer) -> None:
    async with worker(server) as cache:
        await fill(cache)
        server.kill()
        found = await until_passing(cache)
        assert found.cache_status == "cbk-gateway; fwd=miss; detail=store-away"
        assert cache.recall_now(BOTS, PARTS) is None
        server.start_again()
        assert isinstance(await until_served_or_due(cache), Fill)


async def test_a_write_while_the_store_is_frozen_is_made_up_for(server: EmbeddedServer) -> None:
    """The store keeps its memory, and with it the entry from before the write."""
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(worker(server))
        reader = await stack.enter_async_context(worker(server))
        await fill(writer)
        assert isinstance(await read(reader), Hit)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            mark = await writer.begin_write("acme", frozenset({"bot"}))
            await mark.finish()
            assert reader.recall_now(BOTS, PARTS) is None
            assert writer.recall_now(BOTS, PARTS) is None
        finally:
            os.kill(server.pid, signal.SIGCONT)
        for cache in (reader, writer):
            assert isinstance(await until_served_or_due(cache), Fill)


async def test_a_write_that_began_before_the_outage_is_made_up_for(server: EmbeddedServer) -> None:
    async with worker(server) as writer, worker(server) as reader:
        await fill(writer)
        mark = await writer.begin_write("acme", frozenset({"bot"}))
        os.kill(server.pid, signal.SIGSTOP)
        try:
            await mark.finish()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        for cache in (reader, writer):
            assert isinstance(await until_served_or_due(cache), Fill)


async def test_a_writer_that_dies_during_the_outage_is_noticed_by_the_others(server: EmbeddedServer) -> None:
    """Nobody but the dead worker knew of its write; nothing is served before its death is noticed."""
    options = replace(OPTIONS, death_after_s=4.0)
    async with worker(server, options) as reader:
        async with worker(server, options) as writer:
            await fill(writer)
            os.kill(server.pid, signal.SIGSTOP)
            mark = await writer.begin_write("acme", frozenset({"bot"}))
            await mark.finish()
            # Stopping with a write that nobody was told of is no proper leave.
            assert not writer._writes.are_all_told
        os.kill(server.pid, signal.SIGCONT)
        assert isinstance(await until_served_or_due(reader), Fill)


async def test_an_outage_delays_a_write_by_one_lease_at_most(server: EmbeddedServer) -> None:
    async with worker(server) as writer:
        server.kill()
        await until_passing(writer)
        first = await writer.begin_write("acme", frozenset({"bot"}))
        await first.finish()
        # Once no lease can last any more, there is nothing left to wait for.
        assert writer._membership.leases_end_at() <= writer._tiers.now()
        second = await writer.begin_write("acme", frozenset({"bot"}))
        await second.finish()
        server.start_again()
        await until_served_or_due(writer)


async def test_a_restart_that_brings_old_contents_back_brings_no_old_answer_back(
    server: EmbeddedServer,
) -> None:
    """As after a snapshot, or on a replica that had not heard of the last bump: epochs and entry agree."""
    async with worker(server) as cache:
        await fill(cache)
        client = cache._membership._store.client
        saved = {name: await client.dump(name) for name in await client.keys("cbkgw:{acme}:*")}
        mark = await cache.begin_write("acme", frozenset({"bot"}))
        await mark.finish()
        server.kill()
        await until_passing(cache)
        server.start_again()
        async with await open_store(StoreOptions(url=server.url, call_timeout_s=2.0)) as beside:
            for name, value in saved.items():
                assert value is not None
                await beside.client.restore(name, 600_000, value, replace=True)
        assert isinstance(await until_served_or_due(cache), Fill)


async def test_a_purge_while_the_store_is_away_says_so_and_is_made_up_for(server: EmbeddedServer) -> None:
    async with worker(server) as cache, worker(server) as other:
        await fill(cache)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreFault):
                await cache.purge("acme")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await eventually(lambda: cache._writes.are_all_told)
        for one in (cache, other):
            assert isinstance(await until_served_or_due(one), Fill)


async def test_a_cache_started_without_its_store_works_when_that_comes(server: EmbeddedServer) -> None:
    async with await open_store(
        StoreOptions(url=server.url, call_timeout_s=0.2, breaker_pause_s=0.05)
    ) as store:
        server.kill()
        cache = Cache(store, OPTIONS)
        await cache.start()
        assert isinstance(await read(cache), Pass)
        server.start_again()
        assert isinstance(await until_served_or_due(cache), Fill)
        await eventually(lambda: cache.is_live)
        await cache.stop()

"""Between an answer and its keeping: it is in one worker's memory, and the store does not have it yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cbk_gateway.cache import Cache, CacheKeyParts, CacheOptions, Fill, Hit, Pass, StoredAnswer
from cbk_gateway.operation import understand
from faults.feed_relay import Relay, eventually, relay, worker

PARTS = CacheKeyParts("acme", "key", None, "", "")
BOTS = understand("GET", "/v1/bot/list")
HEADERS = (("Content-Type", "application/json"),)
BODY = b'{"items":["one"]}'
STORED = "cbk-gateway; fwd=miss; fwd-status=200; ttl=60; stored"
# Patient, so that nothing that is held back for a moment counts as lost; nobody has leases from before.
OPTIONS = CacheOptions(lease_s=10.0, heartbeat_s=0.1, death_after_s=30.0, store_is_new=True)
PATIENCE_S = 8.0


@dataclass
class Stage:
    """A worker whose store can be held back, and another one."""

    between: Relay
    reader: Cache
    other: Cache


@asynccontextmanager
async def staged(
    tmp_path: Path, url: str, options: CacheOptions = OPTIONS, call_timeout_s: float = PATIENCE_S
) -> AsyncIterator[Stage]:
    async with (
        relay(tmp_path, url) as between,
        worker(url, options, PATIENCE_S) as other,
        worker(f"unix://{between.path}", options, call_timeout_s) as reader,
    ):
        yield Stage(between, reader, other)


@pytest.fixture
async def url(store: object, valkey_url: str) -> str:
    """The store's URL, emptied."""
    return valkey_url


async def right(cache: Cache) -> Fill:
    found = await cache.recall(BOTS, PARTS)
    assert isinstance(found, Fill), found
    return found


async def answered(fill: Fill) -> StoredAnswer:
    """The answer to who caused the fetch, which does not wait for a store that is held back."""
    async with asyncio.timeout(PATIENCE_S / 2):
        return await fill.store(200, HEADERS, BODY)


async def is_waited_for(cache: Cache) -> None:
    """Wait until another worker has left word that it waits for the fetch."""
    client = cache._membership._store.client
    async with asyncio.timeout(PATIENCE_S):
        while not any(
            [await client.getrange(key, 0, 0) in {b"w", "w"} for key in await client.keys("*:l:*")]
        ):
            await asyncio.sleep(0.005)


async def test_who_asks_the_same_worker_next_finds_what_the_store_has_not_taken_in_yet(
    tmp_path: Path, url: str
) -> None:
    async with staged(tmp_path, url) as stage:
        fill = await right(stage.reader)
        follower = asyncio.ensure_future(stage.reader.recall(BOTS, PARTS))
        await eventually(lambda: fill.is_awaited)
        stage.between.hold_commands()
        given = await answered(fill)
        assert (given.is_stored, given.cache_status) == (True, STORED)
        followed, after = await follower, await stage.reader.recall(BOTS, PARTS)
        assert isinstance(followed, Hit)
        assert "collapsed" in followed.cache_status
        assert isinstance(after, Hit)
        assert after.body == BODY
        assert after.cache_status.startswith("cbk-gateway; hit; ttl=")
        assert await stage.other.show("acme") == []
        stage.between.resume()


async def test_another_worker_waits_for_the_store_to_have_it_and_does_not_fetch(
    tmp_path: Path, url: str
) -> None:
    async with staged(tmp_path, url) as stage:
        fill = await right(stage.reader)
        stage.between.hold_commands()
        await answered(fill)
        elsewhere = [asyncio.ensure_future(stage.other.recall(BOTS, PARTS)) for _ in range(3)]
        await is_waited_for(stage.other)
        assert not any(one.done() for one in elsewhere)
        stage.between.resume()
        for found in await asyncio.gather(*elsewhere):
            assert isinstance(found, Hit)
            assert found.body == BODY


async def test_a_write_begun_meanwhile_leaves_no_copy_anywhere(tmp_path: Path, url: str) -> None:
    async with staged(tmp_path, url) as stage:
        fill = await right(stage.reader)
        stage.between.hold_commands()
        await answered(fill)
        mark = await stage.other.begin_write("acme", frozenset({"bot"}))
        ending = asyncio.ensure_future(mark.finish())
        await eventually(lambda: stage.reader.recall_now(BOTS, PARTS) is None)
        stage.between.resume()
        await ending
        await stage.reader._tiers.kept()
        assert await stage.other.show("acme") == []
        for cache in (stage.reader, stage.other):
            found = await cache.recall(BOTS, PARTS)
            assert not isinstance(found, Hit)
            if isinstance(found, Fill):
                found.abandon()


async def test_a_write_that_was_not_heard_of_yet_takes_the_copy_away_by_the_store_s_word(
    tmp_path: Path, url: str
) -> None:
    async with staged(tmp_path, url) as stage:
        fill = await right(stage.reader)
        stage.between.silence()
        mark = await stage.other.begin_write("acme", frozenset({"bot"}))
        assert (await answered(fill)).is_stored, "it was, for a moment"
        await stage.reader._tiers.kept()
        assert not fill.flight.is_void
        assert stage.reader.recall_now(BOTS, PARTS) is None
        assert await stage.other.show("acme") == []
        stage.between.resume()
        await mark.finish()


@pytest.mark.parametrize("is_open_ended", [False, True])
async def test_what_is_fetched_beside_a_write_is_answered_with_the_store_s_word_only(
    tmp_path: Path, url: str, is_open_ended: bool
) -> None:
    async with staged(tmp_path, url) as stage:
        mark = await stage.other.begin_write("acme", frozenset({"bot"}), is_open_ended=is_open_ended)
        found = await stage.reader.recall(BOTS, PARTS)
        if is_open_ended:
            assert isinstance(found, Pass)
        else:
            assert isinstance(found, Fill)
            assert found.flight.is_beside_write
            await mark.finish()
            given = await answered(found)
            assert (given.is_stored, given.cache_status.partition("; detail=")[2]) == (False, "moved")
        await mark.finish()
        assert stage.reader.recall_now(BOTS, PARTS) is None


async def test_without_a_memory_the_answer_waits_for_the_store(tmp_path: Path, url: str) -> None:
    async with staged(tmp_path, url, replace(OPTIONS, l1_max_bytes=0)) as stage:
        fill = await right(stage.reader)
        stage.between.hold_commands()
        storing = asyncio.ensure_future(answered(fill))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not storing.done()
        stage.between.resume()
        assert (await storing).is_stored
        assert len(await stage.other.show("acme")) == 1


async def test_a_store_lost_meanwhile_leaves_the_answer_and_no_right_to_fetch(
    tmp_path: Path, url: str
) -> None:
    """What was answered stays in memory while the feed is live; others fetch when the right has ended."""
    options = replace(OPTIONS, fill_lease_s=0.5)
    async with staged(tmp_path, url, options, call_timeout_s=0.3) as stage:
        fill = await right(stage.reader)
        stage.between.hold()
        assert (await answered(fill)).is_stored
        await stage.reader._tiers.kept()
        assert stage.reader.recall_now(BOTS, PARTS) is not None
        found = await stage.other.recall(BOTS, PARTS)
        assert isinstance(found, Fill), "the right of a worker that is not heard of ends"
        found.abandon()
        stage.between.resume()


async def test_a_worker_that_stops_lets_the_store_have_it_first(tmp_path: Path, url: str) -> None:
    async with staged(tmp_path, url) as stage:
        await answered(await right(stage.reader))
        await stage.reader.stop()
        found = await stage.other.recall(BOTS, PARTS)
        assert isinstance(found, Hit)
        assert found.body == BODY

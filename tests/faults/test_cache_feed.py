"""The invalidation feed is cut, or goes silent without being cut: memory is not served, writes wait."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from cbk_gateway.cache import Cache, CacheKeyParts, CacheOptions, Consistency, Fill
from cbk_gateway.cache.shelf import FEED
from cbk_gateway.operation import understand
from faults import feed_relay
from faults.feed_relay import eventually, relay

PARTS = CacheKeyParts("acme", "key", None, "", "")
BOTS = understand("GET", "/v1/bot/list")
HEADERS = (("Content-Type", "application/json"),)
LEASE_S = 1.0
OPTIONS = CacheOptions(lease_s=LEASE_S, heartbeat_s=0.1, death_after_s=20.0)


def worker(url: str, options: CacheOptions = OPTIONS) -> AbstractAsyncContextManager[Cache]:
    return feed_relay.worker(url, options)


async def fill(cache: Cache) -> None:
    found = await cache.recall(BOTS, PARTS)
    assert isinstance(found, Fill)
    await found.store(200, HEADERS, b'{"items":["old"]}')
    await cache._tiers.kept()
    assert cache.recall_now(BOTS, PARTS) is not None


@pytest.fixture
async def url(store: object, valkey_url: str) -> str:
    """The store's URL, emptied."""
    return valkey_url


async def test_a_write_waits_for_the_lease_of_a_worker_whose_feed_is_silent(url: str, tmp_path: Path) -> None:
    """Its connection looks alive, its heartbeats pass; only what it should hear does not arrive."""
    async with (
        relay(tmp_path, url) as between,
        worker(url) as writer,
        worker(f"unix://{between.path}") as deaf,
    ):
        await fill(deaf)
        between.silence()
        mark = await writer.begin_write("acme", frozenset({"bot"}))
        assert deaf.recall_now(BOTS, PARTS) is not None, "its lease lasts, so the write has to wait"
        await mark.finish()
        assert deaf.recall_now(BOTS, PARTS) is None
        between.resume()
        await eventually(lambda: deaf.is_live)
        assert deaf.recall_now(BOTS, PARTS) is None


@pytest.mark.parametrize("birth", [None, b"0123abcd 1000 flush"])
async def test_a_write_waits_for_workers_that_the_register_forgot(
    url: str, tmp_path: Path, birth: bytes | None
) -> None:
    """In a flush, which leaves no birth behind, or when another server took over with an older register."""
    async with (
        relay(tmp_path, url) as between,
        worker(url) as writer,
        worker(f"unix://{between.path}") as deaf,
    ):
        await fill(deaf)
        between.silence()
        client = writer._membership._store.client
        await client.delete("cbkgw:{cache-feed}:leases", "cbkgw:{cache-feed}:birth")
        if birth is not None:
            await client.set("cbkgw:{cache-feed}:birth", birth)
        mark = await writer.begin_write("acme", frozenset({"bot"}))
        assert deaf.recall_now(BOTS, PARTS) is not None, "its lease lasts, so the write has to wait"
        await mark.finish()
        assert deaf.recall_now(BOTS, PARTS) is None


async def test_a_bounded_write_does_not_wait(url: str, tmp_path: Path) -> None:
    bounded = CacheOptions(
        lease_s=LEASE_S, heartbeat_s=0.1, death_after_s=20.0, consistency=Consistency.BOUNDED
    )
    async with (
        relay(tmp_path, url) as between,
        worker(url, bounded) as writer,
        worker(f"unix://{between.path}", bounded) as deaf,
    ):
        await fill(deaf)
        between.silence()
        mark = await writer.begin_write("acme", frozenset({"bot"}))
        await mark.finish()
        assert deaf.recall_now(BOTS, PARTS) is not None
        await eventually(lambda: deaf.recall_now(BOTS, PARTS) is None, seconds=LEASE_S * 5)


async def test_memory_is_off_while_the_feed_is_cut_and_empty_when_it_is_back(
    url: str, tmp_path: Path
) -> None:
    async with relay(tmp_path, url) as between, worker(f"unix://{between.path}") as cache:
        await fill(cache)
        between.silence()
        between.cut()
        await eventually(lambda: not cache.is_live)
        assert cache.recall_now(BOTS, PARTS) is None
        assert len(cache._tiers.memory) == 0
        between.resume()
        await eventually(lambda: cache.is_live)


async def test_a_worker_that_does_not_answer_loses_its_lease_and_delays_nobody_again(
    url: str, tmp_path: Path
) -> None:
    """Its beats still reach the store; they must not renew what a writer took away."""
    async with (
        relay(tmp_path, url) as between,
        worker(url) as writer,
        worker(f"unix://{between.path}") as deaf,
    ):
        await fill(deaf)
        between.silence()
        first = await writer.begin_write("acme", frozenset({"bot"}))
        assert first.announcement is not None
        assert deaf._tiers.worker in first.announcement.waiting_for
        await first.finish()
        beats = deaf._membership._beat_number
        await eventually(lambda: deaf._membership._beat_number > beats + 2)
        second = await writer.begin_write("acme", frozenset({"bot"}))
        assert second.announcement is not None
        assert deaf._tiers.worker not in second.announcement.waiting_for
        await second.finish()


async def test_a_later_write_waits_for_the_lease_that_was_refused_a_worker(url: str, tmp_path: Path) -> None:
    """It does not know yet that it is refused, and serves: a second write must not count it as gone."""
    options = replace(OPTIONS, lease_s=2.0)
    async with (
        relay(tmp_path, url) as between,
        worker(url, options) as writer,
        worker(f"unix://{between.path}", options) as deaf,
    ):
        await fill(deaf)
        between.hold()
        first = await writer.begin_write("acme", frozenset({"dataset"}))
        ending = asyncio.ensure_future(first.finish())
        client, name = writer._membership._store.client, deaf._tiers.worker
        async with asyncio.timeout(10):
            while await client.zscore("cbkgw:{cache-feed}:leases", name) is not None:
                await asyncio.sleep(0.01)
        assert deaf.recall_now(BOTS, PARTS) is not None
        second = await writer.begin_write("acme", frozenset({"bot"}))
        await second.finish()
        assert deaf.recall_now(BOTS, PARTS) is None
        await ending


@pytest.mark.parametrize("identifier", [None, "b1"])
async def test_a_purge_while_an_answer_is_being_stored_keeps_it_out_of_memory(
    url: str, tmp_path: Path, identifier: str | None
) -> None:
    """The store has taken it in, and has dropped it again before the worker knows of either."""
    async with (
        relay(tmp_path, url) as between,
        worker(url) as operator,
        worker(f"unix://{between.path}") as cache,
    ):
        found = await cache.recall(BOTS, PARTS)
        assert isinstance(found, Fill)
        between.hold_replies()
        storing = asyncio.ensure_future(found.store(200, HEADERS, b'{"items":[{"id":"b1"}]}'))
        async with asyncio.timeout(10):
            while not await operator.show("acme"):
                await asyncio.sleep(0.005)
        await operator.purge("acme", frozenset({"bot"}), identifier)
        between.resume()
        await storing
        assert cache.recall_now(BOTS, PARTS) is None
        again = await operator.recall(BOTS, PARTS)
        assert isinstance(again, Fill)
        again.abandon()


async def test_a_worker_that_hears_its_beats_but_not_of_a_write_serves_nothing_old(
    url: str, tmp_path: Path
) -> None:
    """As on a Cluster whose nodes lost a message between them: a lease renewed meanwhile counts as well."""
    async with (
        relay(tmp_path, url) as between,
        worker(url) as writer,
        worker(f"unix://{between.path}") as deaf,
    ):
        await fill(deaf)
        between.muffle()
        mark = await writer.begin_write("acme", frozenset({"bot"}))
        await mark.finish()
        assert deaf.recall_now(BOTS, PARTS) is None
        assert mark.announcement is not None
        assert deaf._tiers.worker not in mark.announcement.answered


async def test_a_silent_feed_is_given_up_and_opened_anew(url: str, tmp_path: Path) -> None:
    async with relay(tmp_path, url) as between, worker(f"unix://{between.path}") as cache:
        before = len(between._feeds)
        between.silence()
        await eventually(lambda: len(between._feeds) > before)
        between.resume()
        await eventually(lambda: cache.is_live)


async def test_a_worker_that_vanishes_makes_everything_from_before_old(url: str) -> None:
    options = CacheOptions(lease_s=0.4, heartbeat_s=0.1, death_after_s=0.6)
    async with worker(url, options) as survivor:
        async with worker(url, options) as victim:
            await fill(victim)
            await victim._membership.stop(is_clean=False)
            generation = survivor._tiers.shelf.generation
            await eventually(lambda: survivor._tiers.shelf.generation > generation)
        await eventually(lambda: survivor.is_live)
        found = await survivor.recall(BOTS, PARTS)
        assert isinstance(found, Fill)
        found.abandon()


async def test_a_worker_that_leaves_properly_takes_nothing_with_it(url: str) -> None:
    options = CacheOptions(lease_s=0.4, heartbeat_s=0.1, death_after_s=0.6)
    async with worker(url, options) as survivor:
        async with worker(url, options) as leaver:
            await fill(leaver)
        generation = survivor._tiers.shelf.generation
        beats = survivor._membership._beat_number
        await eventually(lambda: survivor._membership._beat_number > beats + 12)
        assert survivor._tiers.shelf.generation == generation
        assert await survivor.recall(BOTS, PARTS) is not None
        assert survivor.recall_now(BOTS, PARTS) is not None


@pytest.mark.parametrize("message", [b"I nonsense", b"I [1]", b"B x", b"A 5", b"Z what", b"", b"\xff\xfe"])
async def test_a_message_that_cannot_be_read_counts_as_one_missed(url: str, message: bytes) -> None:
    async with worker(url) as cache:
        await fill(cache)
        session = cache._membership._session
        await cache._membership._store.client.publish(FEED, message)
        await eventually(lambda: cache._membership._session > session)
        await eventually(lambda: cache.is_live)
        assert cache.recall_now(BOTS, PARTS) is None

"""Five hundred requests for one missing answer, over two workers, make one request to the upstream."""

from __future__ import annotations

import asyncio

import pytest

from cbk_gateway.cache import Cache, CacheKeyParts, CacheOptions, Fill, Hit
from cbk_gateway.operation import understand
from cbk_gateway.store import Store
from faults.feed_relay import eventually, worker

PARTS = CacheKeyParts("acme", "key", None, "", "")
BOTS = understand("GET", "/v1/bot/list")
HEADERS = (("Content-Type", "application/json"),)
BODY = b'{"items":[]}'


class Upstream:
    """Counts fetches; each ends when it is let go. The first `dying` of them never end."""

    def __init__(self, dying: int = 0) -> None:
        self.fetches = 0
        self._dying = dying
        self.gate = asyncio.Event()

    async def fetch(self) -> bytes:
        self.fetches += 1
        if self.fetches <= self._dying:
            raise ConnectionError("the upstream broke off")
        await self.gate.wait()
        return BODY


async def request(cache: Cache, upstream: Upstream) -> str:
    found = await cache.recall(BOTS, PARTS)
    if isinstance(found, Hit):
        assert found.body == BODY
        return "collapsed" if "collapsed" in found.cache_status else "hit"
    body: bytes | None = None
    try:
        body = await upstream.fetch()
    except ConnectionError:
        return "failed"
    finally:
        if isinstance(found, Fill) and body is None:
            found.abandon()
    if isinstance(found, Fill):
        await found.store(200, HEADERS, body)
        return "filled"
    return "passed"


@pytest.mark.parametrize("is_feed_live", [True, False])
async def test_a_herd_makes_one_request(store: Store, valkey_url: str, is_feed_live: bool) -> None:
    options = CacheOptions()
    async with worker(valkey_url, options, 2.0) as first, worker(valkey_url, options, 2.0) as second:
        upstream = Upstream()
        if not is_feed_live:
            for cache in (first, second):
                cache._membership.feed_lost()
        herd = [
            asyncio.ensure_future(request(cache, upstream)) for _ in range(250) for cache in (first, second)
        ]
        await eventually(lambda: upstream.fetches > 0)
        upstream.gate.set()
        ends = await asyncio.gather(*herd)
        assert upstream.fetches == 1
        assert ends.count("filled") == 1
        assert set(ends) <= {"filled", "collapsed", "hit"}


async def test_a_leader_that_fails_costs_one_more_request(store: Store, valkey_url: str) -> None:
    options = CacheOptions()
    async with worker(valkey_url, options, 2.0) as first, worker(valkey_url, options, 2.0) as second:
        upstream = Upstream(dying=1)
        upstream.gate.set()
        herd = [
            asyncio.ensure_future(request(cache, upstream)) for _ in range(250) for cache in (first, second)
        ]
        ends = await asyncio.gather(*herd)
        assert upstream.fetches == 2
        assert (ends.count("failed"), ends.count("filled")) == (1, 1)


async def test_a_leader_whose_worker_dies_costs_one_more_request(store: Store, valkey_url: str) -> None:
    """It gives nothing back: its lease on the fetch has to end."""
    options = CacheOptions(fill_lease_s=0.5)
    async with worker(valkey_url, options, 2.0) as first:
        async with worker(valkey_url, options, 2.0) as victim:
            dead = await victim.recall(BOTS, PARTS)
            assert isinstance(dead, Fill)
            victim._tiers.fills.clear()
        upstream = Upstream()
        upstream.gate.set()
        ends = await asyncio.gather(*(request(first, upstream) for _ in range(100)))
        assert upstream.fetches == 1
        assert ends.count("filled") == 1


async def test_a_slow_fetch_keeps_its_lease(store: Store, valkey_url: str) -> None:
    options = CacheOptions(fill_lease_s=0.4, lease_s=1.0, heartbeat_s=0.05)
    async with worker(valkey_url, options, 2.0) as first, worker(valkey_url, options, 2.0) as second:
        upstream = Upstream()
        leader = asyncio.ensure_future(request(first, upstream))
        await eventually(lambda: upstream.fetches == 1)
        follower = asyncio.ensure_future(request(second, upstream))
        beats = first._membership._beat_number
        await eventually(lambda: first._membership._beat_number > beats + 20)
        assert upstream.fetches == 1
        upstream.gate.set()
        assert (await leader, await follower) == ("filled", "hit")

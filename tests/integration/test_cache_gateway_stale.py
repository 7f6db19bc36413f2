"""Answers past their lifetime, through a whole gateway: when they stand in, what they say of themselves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.store import Store
from integration.cache_gateway_fleet import Fleet, Seen, fleet

ERROR = {"config_s": 1.0, "stale_if_error_s": 300.0, "negative_s": 0}
REVALIDATE = {"config_s": 1.0, "stale_while_revalidate_s": 300.0}
LIST = "bot/list"


@asynccontextmanager
async def kept(
    folder: Path, url: str, *, gateways: int = 1, **sections: Mapping[str, object]
) -> AsyncIterator[Fleet]:
    """Gateways that have the list of one bot, which has outlived its time."""
    async with fleet(folder, url, gateways, **sections) as those:
        await those.bot("Before")
        async with asyncio.timeout(30):
            while not all(one.gateway.parts.cache.is_live for one in those.stages):
                await asyncio.sleep(0.01)
            while not (await those.get(0, LIST)).is_hit:
                await asyncio.sleep(0.01)
        cache = those.stages[0].gateway.parts.cache
        async with asyncio.timeout(30):
            # The store's clock may say so later than this process's, by as long as a call takes.
            while any(
                one.fresh_until > cache._tiers.now() - 0.5 for one in cache._tiers.memory._order.values()
            ):
                await asyncio.sleep(0.02)
        yield those


def is_stale(seen: Seen, why: str) -> bool:
    """Whether an answer says that it is stale, since when, and why."""
    said = re.fullmatch(rf"cbk-gateway; hit; ttl=-\d+; detail={why}", seen.said)
    return seen.status == 200 and said is not None and int(seen.age or 0) >= 1


async def test_an_open_breaker_has_stale_answers_until_they_are_purged(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    breaker = {"breaker": {"minimum_samples": 3, "open_s": 120.0, "longest_open_s": 120.0}}
    async with kept(tmp_path, valkey_url, cache=ERROR, upstream=breaker) as those:
        parts = those.stages[0].gateway.parts
        those.sandbox.add_fault("*", "drop_before")
        async with asyncio.timeout(30):
            while not parts.upstream.is_open("acme-account"):
                assert is_stale(await those.get(0, LIST), "stale-if-error")
        before = len(those.sandbox.requests)
        seen = await those.get(0, LIST)
        assert is_stale(seen, "stale-if-error"), seen
        assert b"Before" in seen.body
        assert (await those.get(0, "dataset/list")).status == 503, "there is nothing to stand in"
        written = await those.post(0, "bot/create", {"name": "After"})
        assert written.status == 503
        assert is_stale(await those.get(0, LIST), "stale-if-error"), "what was not sent changed nothing"
        await parts.cache.purge("acme-account", frozenset({"bot"}))
        assert (await those.get(0, LIST)).status == 503
        assert len(those.sandbox.requests) == before, "the breaker lets nothing through"


@pytest.mark.parametrize(("status", "stands_in"), [(500, True), (503, True), (429, False), (403, False)])
async def test_an_old_answer_stands_in_for_a_failure_and_for_no_refusal(
    tmp_path: Path, valkey_url: str, store: Store, status: int, stands_in: bool
) -> None:
    async with kept(tmp_path, valkey_url, cache=ERROR) as those:
        those.sandbox.add_fault("/v1/bot/list", "status", value=status)
        seen = await those.get(0, LIST)
        assert is_stale(seen, "stale-if-error") is stands_in
        assert seen.status == (200 if stands_in else status)


async def test_who_waits_for_a_fetch_that_fails_gets_the_old_answer_too(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with kept(tmp_path, valkey_url, cache=ERROR) as those:
        those.sandbox.add_fault("/v1/bot/list", "latency", value=2000)
        those.sandbox.add_fault("/v1/bot/list", "status", value=503)
        before = those.asked(LIST)
        herd = await asyncio.gather(*(those.get(0, LIST) for _ in range(30)))
        assert all(is_stale(one, "stale-if-error") for one in herd), herd
        assert those.asked(LIST) == before + 1


async def test_an_old_answer_covers_one_refresh_and_none_after_a_write(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with kept(tmp_path, valkey_url, gateways=2, cache=REVALIDATE) as those:
        those.sandbox.world.store.add("acme-account", "bot", {"name": "Made beside"}, parent=None)
        those.sandbox.add_fault("/v1/bot/list", "latency", value=1000, times=1)
        before = those.asked(LIST)
        herd = await asyncio.gather(*(those.get(number % 2, LIST) for number in range(20)))
        assert all(is_stale(one, "stale-while-revalidate") for one in herd), herd
        assert not any(b"Made beside" in one.body for one in herd)
        async with asyncio.timeout(30):
            while b"Made beside" not in (await those.get(0, LIST)).body:
                await asyncio.sleep(0.02)
        assert those.asked(LIST) - before <= 2, "one refresh, or two when the first was slow to be kept"
        await those.bot("After")
        for number in (1, 0):
            assert b"After" in (await those.get(number, LIST)).body


async def test_a_refresh_that_fails_leaves_the_old_answer(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with kept(tmp_path, valkey_url, cache=REVALIDATE) as those:
        those.sandbox.add_fault("/v1/bot/list", "drop_before")
        for _ in range(3):
            try:
                seen = await those.get(0, LIST)
            except aiohttp.ClientError as exc:
                pytest.fail(f"a refresh reached the client: {exc}")
            assert is_stale(seen, "stale-while-revalidate"), seen

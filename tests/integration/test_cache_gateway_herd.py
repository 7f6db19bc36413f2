"""Many clients of two gateways that miss one answer make one request; a dead upstream has stale answers.

The gateways are whole, and share nothing but the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from cbk_gateway.store import Store
from integration.cache_gateway_fleet import fleet


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_five_hundred_misses_over_two_gateways_make_one_request(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with fleet(tmp_path, valkey_url, 2) as those:
        await those.bot("Wanted")
        await eventually(lambda: all(one.gateway.parts.cache.is_live for one in those.stages))
        those.sandbox.add_fault("/v1/bot/list", "latency", value=4000)
        herd = await asyncio.gather(*(those.get(number % 2, "bot/list") for number in range(500)))
        assert those.asked("bot/list") == 1
        assert {(one.status, one.body) for one in herd} == {(200, herd[0].body)}
        assert herd[0].json["items"][0]["name"] == "Wanted"
        assert sum("collapsed" in one.said for one in herd) > 0


async def test_those_who_wait_get_the_answer_though_the_client_that_caused_the_fetch_has_left(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with fleet(tmp_path, valkey_url, 2) as those:
        await those.bot("Wanted")
        # After the store was emptied for this test, fills begin only when its caches trust it again.
        await eventually(lambda: all(one.gateway.parts.cache.is_live for one in those.stages))
        those.sandbox.add_fault("/v1/bot/list", "latency", value=5000)
        leader = asyncio.ensure_future(those.get(0, "bot/list"))
        await eventually(lambda: those.asked("bot/list") == 1)
        fills = those.stages[0].gateway.parts.cache._tiers.fills
        others = [asyncio.ensure_future(those.get(number % 2, "bot/list")) for number in range(20)]
        await eventually(lambda: any(one.is_awaited for one in fills))
        leader.cancel()
        answers = await asyncio.gather(*others)
        assert those.asked("bot/list") == 1
        assert [one.json["items"][0]["name"] for one in answers] == ["Wanted"] * 20


@pytest.mark.parametrize("writer", [0, 1])
async def test_a_dead_upstream_has_stale_answers_but_never_across_a_write(
    tmp_path: Path, valkey_url: str, store: Store, writer: int
) -> None:
    lasting = {"config_s": 1.0, "stale_if_error_s": 300.0}
    async with fleet(tmp_path, valkey_url, 2, cache=lasting) as those:
        bot = await those.bot("Before")
        path = f"bot/{bot}/fetch"
        assert (await those.get(0, path)).json["name"] == "Before"
        those.sandbox.add_fault("*/fetch", "drop_before")
        async with asyncio.timeout(30):
            while "stale-if-error" not in (seen := await those.get(0, path)).said:
                assert seen.is_hit, seen
                await asyncio.sleep(0.05)
        assert (seen.status, seen.json["name"]) == (200, "Before")
        assert int(seen.age or 0) >= 1
        assert "ttl=-" in seen.said or "ttl=0" in seen.said, "it has outlived its time, and says so"
        written = await those.post(writer, f"bot/{bot}/update", {"name": "After"})
        assert written.status == 200, written.body
        for number in (0, 1):
            failed = await those.get(number, path)
            assert (failed.status >= 500, b"Before" in failed.body) == (True, False)
        those.sandbox.clear_faults()
        async with asyncio.timeout(30):
            while (found := await those.get(1 - writer, path)).status != 200:
                await asyncio.sleep(0.05)
        assert found.json["name"] == "After"

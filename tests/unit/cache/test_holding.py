"""An answer held on to: what memory would give at that very moment, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cbk_gateway.cache import Cache, Holding

if TYPE_CHECKING:
    from unit.cache.conftest import Scene

PAGE = b'{"items":[' + b",".join(b'{"id":"b%d"}' % number for number in range(200)) + b"]}"


async def held(scene: Scene, cache: Cache, accept: str = "", coding: str | None = None) -> Holding:
    found = cache.hold(scene.get("/bot/list"), scene.parts(accept=accept), None, coding)
    assert found is not None
    return found


@pytest.mark.parametrize("change", ["write", "purge", "purge of one", "variant", "stop"])
async def test_it_is_good_until_memory_would_say_otherwise(scene: Scene, change: str) -> None:
    cache, other = await scene.worker(), await scene.worker()
    await scene.fill(cache, body=PAGE)
    await scene.fill(cache, "/dataset/list", b'{"items":[]}')
    holding = await held(scene, cache, coding="zstd")
    assert holding.look() is not None
    if change == "write":
        await scene.write(other, "bot")
    elif change == "purge":
        await other.purge("acme")
    elif change == "purge of one":
        await other.purge("acme", frozenset({"bot"}), "b7")
    elif change == "variant":
        assert holding.hit.body == PAGE
        await cache._tiers.settle(5.0)
        assert (await held(scene, cache, coding="zstd")).hit.body != PAGE
    else:
        await cache.stop()
        await scene.eventually(lambda: not cache.is_live)
    assert holding.look() is None


async def test_what_does_not_concern_it_leaves_it_good(scene: Scene) -> None:
    cache, other = await scene.worker(), await scene.worker()
    await scene.fill(cache, body=PAGE)
    holding = await held(scene, cache)
    await scene.write(other, "dataset")
    await scene.write(other, "bot", account="globex")
    await other.purge("acme", identifier="b1000")
    assert holding.look() is not None


async def test_the_lines_of_a_page_take_room_too(scene: Scene) -> None:
    cache = await scene.worker()
    await scene.fill(cache)
    before = cache._tiers.memory.size_bytes
    holding = await held(scene, cache, accept="application/jsonl")
    assert cache._tiers.memory.size_bytes == before + len(holding.hit.body)

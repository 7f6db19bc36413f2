"""What surrounds a write: its mark, its announcement, its end; and purges."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from cbk_gateway.cache import CacheOptions, Fill, Hit
from cbk_gateway.operation import ALL_TYPES

if TYPE_CHECKING:
    from unit.cache.conftest import Scene

MARKS = "cbkgw:{acme}:cache:marks"
LIST = "/bot/list"


@pytest.mark.parametrize(
    ("types", "is_open_ended", "mark"),
    [
        ({"bot"}, False, "s bot"),
        ({"task", "bot"}, False, "s bot task"),
        ({"bot"}, True, "o *"),
        ({ALL_TYPES}, False, "o *"),
        ({"bot", ALL_TYPES}, True, "o *"),
    ],
)
async def test_a_mark_says_what_is_held_back(
    scene: Scene, types: set[str], is_open_ended: bool, mark: str
) -> None:
    cache = await scene.worker()
    write = await cache.begin_write("acme", frozenset(types), is_open_ended=is_open_ended)
    (stands,) = cast("list[bytes]", await scene.store.client.zrange(MARKS, 0, -1))
    kind, _, changed = stands.decode().split(" ", 2)
    assert f"{kind} {changed}" == mark
    assert not cache._writes.are_all_told
    await write.finish()
    await write.finish()
    assert await scene.store.client.zcard(MARKS) == 0
    assert cache._writes.are_all_told


async def test_a_write_bumps_before_it_is_forwarded_and_when_it_ends(scene: Scene) -> None:
    cache = await scene.worker()

    async def epoch() -> int:
        return int(await scene.store.client.hget("cbkgw:{acme}:cache:epochs", "bot") or 0)

    before = await epoch()
    write = await cache.begin_write("acme", frozenset({"bot"}))
    begun = await epoch()
    await write.finish()
    assert (begun - before, await epoch() - begun) == (1, 1)


async def test_a_purge_of_one_object_leaves_what_does_not_speak_of_it(scene: Scene) -> None:
    operator, other = await scene.worker(), await scene.worker()
    pages = {
        LIST: b'{"items":[{"id":"b1"},{"id":"b2"}]}',
        "/bot/b1/fetch": b'{"id":"b1"}',
        "/bot/@alias/fetch": b'{"id":"b1","alias":"alias"}',
        "/bot/b2/fetch": b'{"id":"b2"}',
        "/dataset/list": b'{"items":[{"id":"d1"}]}',
        "/conversation/list": b'{"items":[{"id":"c1","botId":"b1"}]}',
    }
    for path, body in pages.items():
        await scene.fill(operator, path, body)
        assert await scene.body(other, path) == body
    assert await operator.purge("acme", frozenset({"bot"}), "b1") == 3
    gone = {LIST, "/bot/b1/fetch", "/bot/@alias/fetch"}
    for cache in (operator, other):
        left = {path for path in pages if cache.recall_now(scene.get(path), scene.parts()) is not None}
        assert left == set(pages) - gone
        for path, body in pages.items():
            assert await scene.body(cache, path) == (None if path in gone else body)
    assert await operator.purge("acme", identifier="b1") == 1, "a conversation names it too"
    assert await operator.purge("globex", identifier="b2") == 0
    assert await scene.body(other, "/bot/b2/fetch") is not None


async def test_a_purge_of_one_object_reaches_what_only_memory_still_has(scene: Scene) -> None:
    operator, other = await scene.worker(), await scene.worker()
    await scene.fill(other, "/bot/b1/fetch", b'{"id":"b1"}')
    await scene.store.client.delete("cbkgw:{acme}:cache:index", "cbkgw:{acme}:cache:sizes")
    assert await operator.purge("acme", identifier="b1") == 0
    assert other.recall_now(scene.get("/bot/b1/fetch"), scene.parts()) is None


async def test_what_was_fetched_before_a_purge_of_one_object_is_answered_and_not_kept(scene: Scene) -> None:
    operator, other = await scene.worker(), await scene.worker()
    fills = [await scene.right(cache, path) for cache, path in ((operator, LIST), (other, "/bot/b1/fetch"))]
    follower = asyncio.ensure_future(scene.ask(operator))
    await scene.eventually(lambda: fills[0].is_awaited)
    await operator.purge("acme", frozenset({"bot"}), "b1")
    after = asyncio.ensure_future(scene.ask(operator))
    for fill in fills:
        assert not (await scene.answer(fill, b'{"items":[],"id":"b1"}')).is_stored
    assert isinstance(await follower, Hit)
    found = await after
    assert isinstance(found, Fill), "who asks after the purge gets nothing from before it"
    assert (await scene.answer(found, scene.newer)).is_stored
    assert await scene.body(other) == scene.newer


async def test_one_object_of_the_shared_tier_is_purged_with_everybody_s_copies(scene: Scene) -> None:
    options = CacheOptions(shared_platform=True, shared_quorum=1, shared_sample=0.0, l1_max_bytes=0)
    cache = await scene.worker(options)
    models = "/platform/model/list"
    await scene.fill(cache, models, b'{"items":[{"id":"m1"}]}')
    await cache._tiers.settle(2.0)
    assert await scene.body(cache, models) is not None
    await cache.purge("acme", frozenset({"platform/model"}), "m1")
    assert await scene.body(cache, models) is None

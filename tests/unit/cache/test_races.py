"""The catalogue of races between fetches and writes, each as one scripted interleaving."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cbk_gateway.cache import CacheOptions, Fill, Hit, Pass

if TYPE_CHECKING:
    from unit.cache.conftest import Scene


async def test_a_fetch_begun_before_a_write_and_ended_after_it_is_not_kept(scene: Scene) -> None:
    reader, writer = await scene.worker(), await scene.worker()
    fetch = await scene.right(reader)
    await scene.write(writer, "bot")
    answer = await scene.answer(fetch)
    assert (answer.status, answer.body, answer.is_stored) == (200, scene.page, False)
    assert answer.cache_status.endswith("detail=moved")
    assert await scene.body(reader) is None
    assert await scene.body(writer) is None


async def test_a_fetch_within_a_write_is_not_kept(scene: Scene) -> None:
    """It may show either state, and nobody can tell which."""
    cache = await scene.worker()
    mark = await cache.begin_write("acme", frozenset({"bot"}))
    answer = await scene.fill(cache)
    assert answer.cache_status.endswith("detail=write-open")
    await mark.finish()
    assert await scene.body(cache) is None


async def test_a_fetch_begun_within_a_write_and_ended_after_it_is_not_kept(scene: Scene) -> None:
    cache = await scene.worker()
    mark = await cache.begin_write("acme", frozenset({"bot"}))
    fetch = await scene.right(cache)
    await mark.finish()
    assert not (await scene.answer(fetch)).is_stored
    assert await scene.body(cache) is None


async def test_a_write_begun_within_a_fetch_makes_its_answer_unfit_to_keep(scene: Scene) -> None:
    reader, writer = await scene.worker(), await scene.worker()
    fetch = await scene.right(reader)
    mark = await writer.begin_write("acme", frozenset({"bot"}))
    await scene.eventually(lambda: fetch.flight.is_void)
    assert not (await scene.answer(fetch)).is_stored
    await mark.finish()
    assert await scene.body(reader) is None


async def test_of_two_writes_the_end_of_one_does_not_end_the_other(scene: Scene) -> None:
    cache = await scene.worker()
    first = await cache.begin_write("acme", frozenset({"bot"}))
    second = await cache.begin_write("acme", frozenset({"bot"}))
    await first.finish()
    assert not (await scene.fill(cache)).is_stored
    await second.finish()
    assert (await scene.fill(cache)).is_stored


async def test_an_answer_fetched_before_a_write_is_not_given_to_one_who_asks_after_it(scene: Scene) -> None:
    """Joining a fetch under way would hand a newcomer the state from before the write."""
    reader, writer = await scene.worker(), await scene.worker()
    old = await scene.right(reader)
    await scene.write(writer, "bot")
    late = await scene.ask(reader)
    assert isinstance(late, Fill)
    await scene.answer(old, scene.page)
    assert (await scene.answer(late, scene.newer)).is_stored
    assert await scene.body(reader) == scene.newer


async def test_those_who_joined_before_a_write_began_still_get_the_answer(scene: Scene) -> None:
    reader, writer = await scene.worker(), await scene.worker()
    fetch = await scene.right(reader)
    follower = asyncio.ensure_future(scene.ask(reader))
    await scene.turn()
    await scene.write(writer, "bot")
    await scene.answer(fetch)
    found = await follower
    assert isinstance(found, Hit)
    assert "collapsed" in found.cache_status


async def test_one_who_asks_after_a_write_does_not_follow_a_fetch_begun_within_it(scene: Scene) -> None:
    """The worker heard of the write when it began; of its end only the store can tell."""
    reader, writer = await scene.worker(), await scene.worker()
    mark = await writer.begin_write("acme", frozenset({"bot"}))
    within = await scene.right(reader)
    await mark.finish()
    after = await scene.ask(reader)
    assert isinstance(after, Fill)
    within.abandon()
    after.abandon()


async def test_a_slow_answer_that_ends_as_an_error_under_200_is_not_kept(scene: Scene) -> None:
    cache = await scene.worker()
    answer = await scene.answer(
        await scene.right(cache), b'{"message":"late","code":"INTERNAL_SERVER_ERROR"}'
    )
    assert not answer.is_stored
    assert answer.cache_status.endswith("detail=error-body")
    assert await scene.body(cache) is None


async def test_a_leader_that_is_cancelled_hands_over_to_one_follower(scene: Scene) -> None:
    cache = await scene.worker()
    leader = await scene.right(cache)
    followers = [asyncio.ensure_future(scene.ask(cache)) for _ in range(5)]
    await scene.turn()
    leader.abandon()
    leader.abandon()
    await scene.turn()
    promoted = [one.result() for one in followers if one.done()]
    assert len(promoted) == 1
    heir = promoted[0]
    assert isinstance(heir, Fill)
    assert (await scene.answer(heir)).is_stored
    others = await asyncio.gather(*followers)
    assert sum(isinstance(one, Hit) for one in others) == 4


async def test_a_promoted_follower_that_is_cancelled_at_once_passes_the_right_on(scene: Scene) -> None:
    """The right may arrive in the very turn in which its receiver is cancelled."""
    cache = await scene.worker()
    leader = await scene.right(cache)
    first, second = (asyncio.ensure_future(scene.ask(cache)) for _ in range(2))
    await scene.turn()
    leader.abandon()
    first.cancel()
    heir = await second
    assert first.cancelled()
    assert isinstance(heir, Fill)
    assert (await scene.answer(heir)).is_stored


async def test_a_request_cancelled_while_it_looks_in_the_store_leaves_no_lease_behind(scene: Scene) -> None:
    cache = await scene.worker()
    looking = asyncio.ensure_future(scene.ask(cache))
    await scene.turn(1)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    async with asyncio.timeout(2.0):
        (await scene.right(cache)).abandon()


async def test_a_purge_within_a_fetch_keeps_its_answer_out(scene: Scene) -> None:
    reader, operator = await scene.worker(), await scene.worker()
    fetch = await scene.right(reader)
    await operator.purge("acme")
    assert not (await scene.answer(fetch)).is_stored
    assert await scene.body(reader) is None


async def test_a_purge_of_a_type_leaves_the_others(scene: Scene) -> None:
    cache = await scene.worker()
    await scene.fill(cache, "/bot/list")
    await scene.fill(cache, "/dataset/list")
    await cache.purge("acme", frozenset({"bot"}))
    assert await scene.body(cache, "/bot/list") is None
    assert await scene.body(cache, "/dataset/list") == scene.page


async def test_epochs_lost_in_a_flush_bring_no_old_entry_back(scene: Scene) -> None:
    """The entry is put back as it was, under epochs that were born again: their birth differs."""
    cache = await scene.worker(CacheOptions(l1_max_bytes=0))
    await scene.fill(cache)
    saved = {name: await scene.store.client.dump(name) for name in await scene.store.client.keys("*:e:*")}
    assert saved
    await scene.write(cache, "bot")
    await scene.store.client.flushall()
    for name, value in saved.items():
        assert value is not None
        await scene.store.client.restore(name, 60_000, value)
    await scene.eventually(lambda: cache.is_live)
    assert await scene.body(cache) is None


async def test_a_write_that_may_change_anything_stops_serving_while_it_is_open(scene: Scene) -> None:
    reader, writer = await scene.worker(), await scene.worker()
    await scene.fill(reader, "/bot/list")
    await scene.fill(reader, "/dataset/list")
    mark = await writer.begin_write("acme", frozenset({"bot"}), is_open_ended=True)
    for path in ("/bot/list", "/dataset/list", "/skillset/list"):
        found = await scene.ask(reader, path)
        assert isinstance(found, Pass)
        assert found.reason == "write-open"
        assert reader.recall_now(scene.get(path), scene.parts()) is None
    other = await scene.right(reader, account="globex")
    other.abandon()
    await mark.finish()
    assert (await scene.fill(reader, "/bot/list")).is_stored


async def test_a_write_cancelled_before_it_is_forwarded_ends(scene: Scene) -> None:
    cache = await scene.worker()
    begin = asyncio.ensure_future(cache.begin_write("acme", frozenset({"*"})))
    await scene.turn(2)
    begin.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begin
    async with asyncio.timeout(5.0):
        while not isinstance(found := await scene.ask(cache), Fill):
            await asyncio.sleep(0.005)
    assert (await scene.answer(found)).is_stored


async def test_the_end_of_a_write_goes_on_when_its_client_leaves(scene: Scene) -> None:
    cache = await scene.worker()
    mark = await cache.begin_write("acme", frozenset({"bot"}))
    ending = asyncio.ensure_future(mark.finish())
    await scene.turn(1)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    await mark.finish()
    assert (await scene.fill(cache)).is_stored


async def test_the_mark_of_a_dead_writer_holds_back_for_its_lease_and_ends_with_a_bump(scene: Scene) -> None:
    options = CacheOptions(mark_lease_s=0.4)
    reader, writer = await scene.worker(options), await scene.worker(options)
    await writer.begin_write("acme", frozenset({"bot"}), is_open_ended=True)
    await writer._writes.stop()
    assert isinstance(await scene.ask(reader), Pass)
    async with asyncio.timeout(5.0):
        while not isinstance(found := await scene.ask(reader), Fill):
            await asyncio.sleep(0.01)
    assert (await scene.answer(found)).is_stored


async def test_an_open_write_keeps_its_mark_alive(scene: Scene) -> None:
    options = CacheOptions(mark_lease_s=0.4)
    reader, writer = await scene.worker(options), await scene.worker(options)
    mark = await writer.begin_write("acme", frozenset({"bot"}), is_open_ended=True)
    for _ in range(8):
        renewed = mark.renewed_at
        await scene.eventually(lambda renewed=renewed: mark.renewed_at > renewed)  # type: ignore[misc]  # a default binds it
        assert isinstance(await scene.ask(reader), Pass)
    await mark.finish()


async def test_a_refresh_in_the_background_hears_of_writes(scene: Scene) -> None:
    """Else its answer could enter memory when the reply from the store comes after the news of a write."""
    options = CacheOptions(config_ttl_s=0.05, stale_while_revalidate_s=60)
    cache, writer = await scene.worker(options), await scene.worker(options)
    await scene.fill(cache)
    refresh: Fill | None = None
    async with asyncio.timeout(5.0):
        while refresh is None:
            found = await scene.ask(cache)
            assert isinstance(found, Hit)
            refresh = found.refresh
            await asyncio.sleep(0.01)
    voids = [refresh.flight.is_void]
    await scene.write(writer, "bot")
    voids.append(refresh.flight.is_void)
    assert voids == [False, True]
    assert not (await scene.answer(refresh)).is_stored


async def test_a_write_whose_mark_was_lost_drops_what_was_kept_meanwhile(scene: Scene) -> None:
    """As after a flush of the store: the second bump reaches the store, but only news reach memory."""
    reader, writer = await scene.worker(), await scene.worker()
    mark = await writer.begin_write("acme", frozenset({"bot"}))
    await scene.store.client.delete("cbkgw:{acme}:cache:marks")
    assert (await scene.fill(reader)).is_stored
    assert reader.recall_now(scene.get("/bot/list"), scene.parts()) is not None
    await mark.finish()
    assert reader.recall_now(scene.get("/bot/list"), scene.parts()) is None
    assert await scene.body(reader) is None


async def test_a_fetch_that_was_waited_for_in_vain_still_hears_of_writes(scene: Scene) -> None:
    cache, writer = await scene.worker(CacheOptions(collapse_wait_s=0.05)), await scene.worker()
    leader = await scene.right(cache)
    assert isinstance(await scene.ask(cache), Pass)
    await scene.write(writer, "bot")
    assert leader.flight.is_void
    leader.abandon()

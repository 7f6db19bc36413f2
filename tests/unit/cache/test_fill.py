"""The right to fetch: how it ends, what is answered, what others learn of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cbk_gateway.cache import CacheOptions, Fill, Hit, Pass

if TYPE_CHECKING:
    from unit.cache.conftest import Scene

JSON = ("Content-Type", "application/json")


async def test_an_answer_that_is_kept_says_so_in_words_of_ours(scene: Scene) -> None:
    fill = await scene.right(await scene.worker())
    given = (
        JSON,
        ("ETag", '"theirs"'),
        ("Content-Length", "5"),
        ("X-Failure-Code", "none"),
        ("Vary", "Origin"),
    )
    answer = await scene.answer(fill, headers=given)
    fields = [name for name, _ in answer.headers]
    assert sorted(fields) == ["Content-Type", "ETag", "Vary", "X-Failure-Code"]
    assert dict(answer.headers)["ETag"] != '"theirs"'
    assert answer.cache_status == "cbk-gateway; fwd=miss; fwd-status=200; ttl=60; stored"
    assert answer.is_stored


@pytest.mark.parametrize(
    ("status", "headers", "body", "word"),
    [
        (200, (JSON, ("Set-Cookie", "a=b")), b'{"items":[]}', "set-cookie"),
        (200, (JSON,), b'{"message":"late","code":"TIMEOUT"}', "error-body"),
        (503, (JSON,), b"{}", "status-5xx"),
        (200, (("Content-Type", "text/html"),), b"<p>", "media-type"),
    ],
)
async def test_an_answer_that_is_not_kept_is_passed_as_it_came(
    scene: Scene, status: int, headers: tuple[tuple[str, str], ...], body: bytes, word: str
) -> None:
    fill = await scene.right(await scene.worker())
    answer = await scene.answer(fill, body, status, headers)
    assert (answer.status, answer.headers, answer.body, answer.is_stored) == (status, headers, body, False)
    assert answer.cache_status.endswith(f"detail={word}")


async def test_giving_up_is_idempotent_and_gives_the_right_back(scene: Scene) -> None:
    cache = await scene.worker()
    fill = await scene.right(cache)
    fill.abandon()
    fill.abandon()
    await cache._tiers.settle(2.0)
    again = await scene.right(cache)
    await scene.answer(again)
    again.abandon()
    assert isinstance(await scene.ask(cache), Hit)


async def test_it_is_awaited_while_somebody_follows(scene: Scene) -> None:
    cache = await scene.worker()
    fill = await scene.right(cache)
    assert not fill.is_awaited
    follower = asyncio.ensure_future(scene.ask(cache))
    await scene.eventually(lambda: fill.is_awaited)
    await scene.answer(fill)
    assert isinstance(await follower, Hit)
    assert not fill.is_awaited


async def test_a_stale_answer_ends_the_fetch_for_all_who_wait(scene: Scene) -> None:
    counts = scene.counts()
    cache = await scene.worker(CacheOptions(config_ttl_s=0.05, stale_if_error_s=60.0), counts)
    await scene.fill(cache)
    found = await scene.ask(cache)
    while not isinstance(found, Fill):
        assert isinstance(found, Hit)
        found = await scene.ask(cache)
    followers = [asyncio.ensure_future(scene.ask(cache)) for _ in range(3)]
    await scene.eventually(lambda: found.flight.followers == 3)
    old = found.stale()
    assert old is not None
    for hit in (old, *await asyncio.gather(*followers)):
        assert isinstance(hit, Hit)
        assert (hit.body, hit.refresh) == (scene.page, None)
        assert hit.cache_status.endswith("; detail=stale-if-error")
    assert counts.events.count("stale error") == 4
    assert found.stale() is None, "it ended by then"
    await cache._tiers.settle(2.0)
    (await scene.right(cache)).abandon()


async def test_a_write_heard_of_meanwhile_leaves_no_stale_answer(scene: Scene) -> None:
    cache = await scene.worker(CacheOptions(config_ttl_s=0.05, stale_if_error_s=60.0))
    other = await scene.worker(CacheOptions(config_ttl_s=0.05, stale_if_error_s=60.0))
    await scene.fill(cache)
    found = await scene.ask(cache)
    while not isinstance(found, Fill):
        found = await scene.ask(cache)
    await scene.write(other, "bot")
    assert found.stale() is None
    found.abandon()


async def test_a_fetch_given_up_for_good_sends_everybody_upstream(scene: Scene) -> None:
    cache = await scene.worker()
    fill = await scene.right(cache)
    follower = asyncio.ensure_future(scene.ask(cache))
    await scene.eventually(lambda: fill.is_awaited)
    fill.abandon("too-large")
    passed = await follower
    assert isinstance(passed, Pass)
    assert passed.reason == "too-large"
    later = await scene.ask(cache)
    assert isinstance(later, Pass)
    assert later.reason == "uncacheable"


async def test_it_tells_what_it_is_and_nothing_of_the_answer(scene: Scene) -> None:
    fill = await scene.right(await scene.worker())
    assert repr(fill) == "<Fill bot:list 0 waiting>"
    fill.abandon()
    assert repr(fill) == "<Fill bot:list done>"

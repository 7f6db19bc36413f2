"""What the pipeline gets from the cache, one rule at a time."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING

import pytest

from cbk_gateway.cache import CacheKeyParts, CacheOptions, Fill, Hit, Pass
from cbk_gateway.operation import understand

if TYPE_CHECKING:
    from unit.cache.conftest import Scene


async def test_a_miss_gives_the_right_to_fetch_and_the_next_one_hits(scene: Scene) -> None:
    counts = scene.counts()
    cache = await scene.worker(observer=counts)
    stored = await scene.fill(cache)
    assert stored.cache_status == "cbk-gateway; fwd=miss; fwd-status=200; ttl=60; stored"
    found = await scene.ask(cache)
    assert isinstance(found, Hit)
    assert found.cache_status == "cbk-gateway; hit; ttl=59"
    assert dict(found.headers)["Age"] == "0"
    assert dict(found.headers)["ETag"] == dict(stored.headers)["ETag"]
    assert counts.events == ["missed miss", "hit l1"]


async def test_what_one_worker_fetched_another_serves(scene: Scene) -> None:
    counts = scene.counts()
    first, second = await scene.worker(), await scene.worker(observer=counts)
    await scene.fill(first)
    assert await scene.body(second) == scene.page
    assert second.recall_now(scene.get("/bot/list"), scene.parts()) is not None
    assert counts.events == ["hit l2", "hit l1"]


async def test_a_new_worker_starts_warm(scene: Scene) -> None:
    first = await scene.worker()
    await scene.fill(first)
    await first.stop()
    assert await scene.body(await scene.worker()) == scene.page


async def test_a_write_drops_what_depends_on_it_in_every_worker_and_nothing_else(scene: Scene) -> None:
    first, second = await scene.worker(), await scene.worker()
    for path in ("/bot/list", "/bot/b1/fetch", "/dataset/list"):
        await scene.fill(first, path, b'{"id":"b1","items":[]}')
        assert await scene.body(second, path) is not None
    await scene.fill(first, "/bot/list", account="globex")
    await scene.write(second, "bot")
    for cache in (first, second):
        assert cache.recall_now(scene.get("/bot/list"), scene.parts()) is None
        assert await scene.body(cache, "/bot/list") is None
        assert await scene.body(cache, "/bot/b1/fetch") is None
        assert await scene.body(cache, "/dataset/list") is not None
        assert await scene.body(cache, "/bot/list", account="globex") is not None


@pytest.mark.parametrize(
    "other",
    [
        CacheKeyParts("globex", "key", None, "", ""),
        CacheKeyParts("acme", "jwt", None, "", ""),
        CacheKeyParts("acme", "key", "child", "", ""),
        CacheKeyParts("acme", "key", "", "", ""),
        CacheKeyParts("acme", "key", None, "", "Europe/Zurich"),
    ],
)
async def test_nobody_else_gets_the_answer(scene: Scene, other: CacheKeyParts) -> None:
    cache = await scene.worker()
    await scene.fill(cache)
    found = await cache.recall(scene.get("/bot/list"), other)
    assert isinstance(found, Fill)
    found.abandon()


@pytest.mark.parametrize(
    ("method", "path", "reason", "forward"),
    [
        ("POST", "/bot/create", "not-cacheable", "method"),
        ("GET", "/secret/list", "not-cacheable", "bypass"),
        ("GET", "/file/f1/download", "not-cacheable", "bypass"),
        ("GET", "/bot/@@parent/fetch", "not-cacheable", "bypass"),
        ("GET", "/usage/fetch", "not-cacheable", "bypass"),
    ],
)
async def test_what_may_never_be_kept_passes(
    scene: Scene, method: str, path: str, reason: str, forward: str
) -> None:
    cache = await scene.worker()
    found = await cache.recall(understand(method, f"/v1{path}"), scene.parts())
    assert isinstance(found, Pass)
    assert found.cache_status == f"cbk-gateway; fwd={forward}; detail={reason}"
    assert found.reason == reason


async def test_a_bypass_forwards_and_leaves_the_entry_alone(scene: Scene) -> None:
    cache = await scene.worker()
    await scene.fill(cache)
    found = await scene.ask(cache, bypass=True)
    assert isinstance(found, Pass)
    assert found.cache_status == "cbk-gateway; fwd=bypass; detail=asked"
    assert await scene.body(cache) == scene.page


async def test_a_disabled_cache_keeps_nothing_and_still_announces_writes(scene: Scene) -> None:
    enabled, disabled = await scene.worker(), await scene.worker(CacheOptions(enabled=False))
    await scene.fill(enabled)
    assert isinstance(await scene.ask(disabled), Pass)
    await scene.write(disabled, "bot")
    assert await scene.body(enabled) is None


async def test_a_client_that_holds_the_body_gets_304(scene: Scene) -> None:
    cache = await scene.worker()
    fill = await scene.ask(cache, if_none_match='"other"')
    assert isinstance(fill, Fill)
    tag = dict((await scene.answer(fill)).headers)["ETag"]
    for header in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        found = await scene.ask(cache, if_none_match=header)
        assert isinstance(found, Hit)
        assert (found.status, found.body) == (304, b"")
        assert dict(found.headers)["ETag"] == tag
        assert "Content-Type" not in dict(found.headers)
    again = await scene.ask(cache, if_none_match='"x"')
    assert isinstance(again, Hit)
    assert again.status == 200


async def test_the_request_that_fetches_may_get_304_too(scene: Scene) -> None:
    cache = await scene.worker()
    tag = dict((await scene.fill(cache)).headers)["ETag"]
    await scene.write(cache, "bot")
    fill = await scene.ask(cache, if_none_match=tag)
    assert isinstance(fill, Fill)
    answer = await scene.answer(fill)
    assert (answer.status, answer.body, answer.is_stored) == (304, b"", True)


async def test_the_entity_tag_is_the_same_after_the_entry_was_fetched_anew_elsewhere(scene: Scene) -> None:
    first, second = await scene.worker(), await scene.worker()
    tags = []
    for cache in (first, second):
        tags.append(dict((await scene.fill(cache)).headers)["ETag"])
        await scene.write(cache, "bot")
    assert tags[0] == tags[1]


async def test_gzip_is_served_once_it_was_prepared_in_the_background(scene: Scene) -> None:
    cache = await scene.worker()
    page = b'{"items":[' + b",".join(b'{"id":"b%d"}' % number for number in range(200)) + b"]}"
    await scene.fill(cache, body=page)

    def packed() -> bool:
        found = cache.recall_now(scene.get("/bot/list"), scene.parts(), accept_encoding="gzip, br")
        assert found is not None
        return ("Content-Encoding", "gzip") in found.headers

    assert not packed()
    await scene.eventually(packed)
    found = cache.recall_now(scene.get("/bot/list"), scene.parts(), accept_encoding="gzip")
    plain = cache.recall_now(scene.get("/bot/list"), scene.parts())
    assert found is not None
    assert plain is not None
    assert gzip.decompress(found.body) == page == plain.body
    assert dict(found.headers)["ETag"] != dict(plain.headers)["ETag"]
    assert "Accept-Encoding" in dict(found.headers)["Vary"]


async def test_one_page_serves_json_and_json_lines(scene: Scene) -> None:
    cache = await scene.worker()
    await scene.fill(cache, "/bot/list?take=2", scene.newer)
    found = await scene.ask(cache, "/bot/list?take=2", accept="application/jsonl")
    assert isinstance(found, Hit)
    assert found.body == b'{"type":"item","data":{"id":"b1"}}\n{"type":"item","data":{"id":"b2"}}\n'
    assert dict(found.headers)["Content-Type"] == "application/jsonl"


async def test_json_lines_of_one_page_are_fetched_as_json(scene: Scene) -> None:
    cache = await scene.worker()
    fill = await scene.right(cache, "/bot/list?take=2", accept="application/jsonl")
    assert fill.upstream_accept == "application/json"
    answer = await scene.answer(fill, scene.newer)
    assert answer.body.count(b'"type":"item"') == 2
    assert dict(answer.headers)["Content-Type"] == "application/jsonl"
    assert await scene.body(cache, "/bot/list?take=2") == scene.newer


async def test_a_walk_without_a_size_is_served_from_a_page_that_is_the_whole_collection(scene: Scene) -> None:
    cache = await scene.worker()
    before = await scene.ask(cache, accept="application/jsonl")
    assert isinstance(before, Pass)
    assert before.reason == "representation"
    await scene.fill(cache)
    assert isinstance(await scene.ask(cache, accept="application/jsonl"), Hit)
    await scene.write(cache, "bot")
    await scene.fill(cache, body=b'{"items":[' + b",".join([b"{}"] * 100) + b"]}")
    full = await scene.ask(cache, accept="application/jsonl")
    assert isinstance(full, Pass), "a full page may have more behind it"


async def test_walks_are_kept_where_that_is_configured(scene: Scene) -> None:
    cache = await scene.worker(CacheOptions(cache_jsonl_walks=True))
    fill = await scene.right(cache, accept="application/jsonl")
    lines = b'{"type":"item","data":{}}\n'
    stored = await scene.answer(fill, lines, headers=(("Content-Type", "application/jsonl"),))
    assert stored.is_stored
    found = await scene.ask(cache, accept="application/jsonl")
    assert isinstance(found, Hit)
    assert found.body == lines


async def test_a_missing_object_is_remembered_until_one_is_created(scene: Scene) -> None:
    cache = await scene.worker(CacheOptions(negative_ttl_s=30))
    fill = await scene.right(cache, "/bot/b9/fetch")
    missing = b'{"message":"Bot not found","code":"NOT_FOUND"}'
    assert (await scene.answer(fill, missing, 404)).is_stored
    found = await scene.ask(cache, "/bot/b9/fetch")
    assert isinstance(found, Hit)
    assert (found.status, found.body) == (404, missing)
    await scene.write(cache, "bot")
    assert await scene.body(cache, "/bot/b9/fetch") is None


async def test_a_shared_failure_is_answered_once_for_those_who_wait(scene: Scene) -> None:
    cache = await scene.worker()
    leader = await scene.right(cache)
    followers = [asyncio.ensure_future(scene.ask(cache)) for _ in range(3)]
    await scene.turn()
    assert leader.is_awaited
    answer = await scene.answer(leader, b'{"message":"down","code":"BAD_GATEWAY"}', 502)
    assert not answer.is_stored
    for found in await asyncio.gather(*followers):
        assert isinstance(found, Hit)
        assert found.status == 502
        assert found.cache_status == "cbk-gateway; fwd=miss; fwd-status=502; collapsed"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ((("Content-Type", "application/json"), ("Set-Cookie", "a=b")), "set-cookie"),
        ((("Content-Type", "application/json"), ("Cache-Control", "no-store")), "upstream-forbids"),
        ((("Content-Type", "text/html"),), "media-type"),
        ((("Content-Type", "application/json"), ("Vary", "Accept-Language")), "vary"),
    ],
)
async def test_an_answer_for_one_alone_is_given_to_nobody_else(
    scene: Scene, headers: tuple[tuple[str, str], ...], reason: str
) -> None:
    cache = await scene.worker()
    leader = await scene.right(cache)
    follower = asyncio.ensure_future(scene.ask(cache))
    await scene.turn()
    answer = await scene.answer(leader, headers=headers)
    assert (answer.is_stored, answer.headers) == (False, headers)
    found = await follower
    assert isinstance(found, Pass)
    assert found.reason == reason
    # Nobody waits again for what cannot be kept.
    assert isinstance(await scene.ask(cache), Pass)


async def test_a_follower_in_another_worker_waits_for_the_same_fetch(scene: Scene) -> None:
    first, second = await scene.worker(), await scene.worker()
    leader = await scene.right(first)
    follower = asyncio.ensure_future(scene.ask(second))
    await scene.turn(20)
    assert not follower.done()
    await scene.answer(leader)
    found = await follower
    assert isinstance(found, Hit)


async def test_a_leader_that_fails_in_one_worker_hands_over_to_another(scene: Scene) -> None:
    first, second = await scene.worker(), await scene.worker()
    leader = await scene.right(first)
    follower = asyncio.ensure_future(scene.ask(second))
    await scene.turn(20)
    leader.abandon()
    heir = await follower
    assert isinstance(heir, Fill)
    heir.abandon()


async def test_a_follower_forwards_by_itself_when_the_wait_is_too_long(scene: Scene) -> None:
    cache = await scene.worker(CacheOptions(collapse_wait_s=0.1))
    leader = await scene.right(cache)
    found = await scene.ask(cache)
    assert isinstance(found, Pass)
    assert found.reason == "collapse-timeout"
    leader.abandon()


async def test_a_fetch_given_up_as_too_large_is_waited_for_by_nobody(scene: Scene) -> None:
    cache = await scene.worker()
    leader = await scene.right(cache)
    followers = [asyncio.ensure_future(scene.ask(cache)) for _ in range(2)]
    await scene.turn()
    leader.abandon("too-large")
    for found in [*await asyncio.gather(*followers), await scene.ask(cache)]:
        assert isinstance(found, Pass)


async def test_stale_while_revalidate_serves_and_asks_one_to_refresh(scene: Scene) -> None:
    counts = scene.counts()
    options = CacheOptions(config_ttl_s=0.05, stale_while_revalidate_s=60)
    cache = await scene.worker(options, counts)
    await scene.fill(cache)
    hits: list[Hit] = []
    async with asyncio.timeout(5.0):
        while not hits or hits[-1].refresh is None:
            found = await scene.ask(cache)
            assert isinstance(found, Hit)
            hits.append(found)
            await asyncio.sleep(0.01)
    assert hits[-1].cache_status == "cbk-gateway; hit; ttl=-1; detail=stale-while-revalidate"
    beside = await scene.ask(cache)
    assert isinstance(beside, Hit)
    assert beside.refresh is None
    refresh = hits[-1].refresh
    assert refresh is not None
    assert (await scene.answer(refresh, scene.newer)).is_stored
    assert await scene.body(cache) == scene.newer
    assert "stale revalidate" in counts.events


async def test_stale_if_error_serves_within_its_bound_and_never_across_a_write(scene: Scene) -> None:
    options = CacheOptions(config_ttl_s=0.05, stale_if_error_s=60)
    cache, writer = await scene.worker(options), await scene.worker(options)
    await scene.fill(cache)
    async with asyncio.timeout(5.0):
        while isinstance(found := await scene.ask(cache), Hit):
            await asyncio.sleep(0.01)
    assert isinstance(found, Fill)
    stale = found.stale()
    assert stale is not None
    assert stale.body == scene.page
    assert stale.cache_status == "cbk-gateway; hit; ttl=-1; detail=stale-if-error"
    await scene.write(writer, "bot")
    assert found.stale() is None
    found.abandon()
    fresh = await scene.right(cache)
    assert fresh.stale() is None
    fresh.abandon()


async def test_entries_at_rest_are_sealed_with_a_key_and_open_only_with_it(scene: Scene) -> None:
    sealed = await scene.worker(CacheOptions(encryption_key=b"k" * 32, l1_max_bytes=0))
    await scene.fill(sealed, "/bot/list?meta.email=a@b.c", b'{"items":[{"name":"confidential"}]}')
    for key in await scene.store.client.keys("*"):
        kind = await scene.store.client.type(key)
        values: list[bytes | str | None] = []
        if kind == b"string":
            values.append(await scene.store.client.get(key))
        elif kind == b"hash":
            values += (await scene.store.client.hgetall(key)).values()
        for value in values:
            assert isinstance(value, bytes)
            assert b"confidential" not in value
            assert b"meta.email" not in value
    assert await scene.body(sealed, "/bot/list?meta.email=a@b.c") is not None
    (shown,) = await sealed.show("acme")
    assert shown.label == "bot /bot/list?meta.email=a@b.c"
    other = await scene.worker(CacheOptions(encryption_key=b"x" * 32, l1_max_bytes=0))
    assert await scene.body(other, "/bot/list?meta.email=a@b.c") is None


async def test_an_account_that_fills_its_room_evicts_its_own_entries(scene: Scene) -> None:
    cache = await scene.worker(CacheOptions(l2_account_max_bytes=4000, l1_max_bytes=0))
    await scene.fill(cache, "/bot/list", account="globex")
    for number in range(8):
        await scene.fill(cache, f"/bot/b{number}/fetch")
    shown = await cache.show("acme")
    assert 1 < len(shown) < 8
    assert sum(one.size_bytes for one in shown) <= 4000
    assert await scene.body(cache, "/bot/b7/fetch") is not None
    assert await scene.body(cache, "/bot/b0/fetch") is None
    assert await scene.body(cache, "/bot/list", account="globex") is not None


async def test_an_overridden_lifetime_of_zero_keeps_nothing(scene: Scene) -> None:
    cache = await scene.worker(CacheOptions(type_ttl_s={"bot": 0}))
    assert isinstance(await scene.ask(cache), Pass)


async def test_an_answer_is_not_served_past_its_lifetime(scene: Scene) -> None:
    cache = await scene.worker(CacheOptions(config_ttl_s=0.1))
    await scene.fill(cache)
    assert await scene.body(cache) == scene.page
    async with asyncio.timeout(5.0):
        while await scene.body(cache) is not None:
            await asyncio.sleep(0.01)
    assert cache.recall_now(scene.get("/bot/list"), scene.parts()) is None

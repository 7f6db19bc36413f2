"""One copy for all accounts: only after several agreed, and not after the first that did not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cbk_gateway.cache import Cache, CacheOptions, Fill, Hit
from cbk_gateway.cache.shared import fingerprint

if TYPE_CHECKING:
    from unit.cache.conftest import Scene

MODELS = "/platform/model/list"
SHARING = CacheOptions(shared_platform=True, shared_quorum=3, shared_sample=0.0, l1_max_bytes=0)


def models(stamp: int, name: str = "m") -> bytes:
    return b'{"items":[{"id":"%s","updatedAt":%d}]}' % (name.encode(), stamp)


async def prove(scene: Scene, cache: Cache, *accounts: str) -> None:
    """Let the upstream have answered each account's credential."""
    for account in accounts:
        await scene.fill(cache, "/bot/list", account=account)


async def agree(scene: Scene, cache: Cache, accounts: str) -> None:
    for number, account in enumerate(accounts):
        await scene.fill(cache, MODELS, models(number), account=account)
        await cache._tiers.settle(2.0)


async def test_accounts_that_agree_make_a_copy_for_the_rest(scene: Scene) -> None:
    counts = scene.counts()
    cache = await scene.worker(SHARING, counts)
    await agree(scene, cache, "ab")
    await prove(scene, cache, "x", "y")
    early = await scene.ask(cache, MODELS, account="x")
    assert isinstance(early, Fill)
    early.abandon()
    await agree(scene, cache, "c")
    found = await scene.ask(cache, MODELS, account="x")
    assert isinstance(found, Hit)
    assert found.body == models(0), "the latest that agreed"
    assert found.cache_status.endswith("detail=shared")
    assert "hit shared" in counts.events


async def test_an_account_whose_credential_is_not_proven_is_not_served(scene: Scene) -> None:
    cache = await scene.worker(SHARING)
    await agree(scene, cache, "abc")
    found = await scene.ask(cache, MODELS, account="stranger")
    assert isinstance(found, Fill)
    found.abandon()


async def test_the_first_difference_ends_it(scene: Scene) -> None:
    cache = await scene.worker(SHARING)
    await agree(scene, cache, "abc")
    await prove(scene, cache, "x")
    await scene.fill(cache, MODELS, models(9, "special"), account="d")
    await cache._tiers.settle(2.0)
    for _ in range(2):
        found = await scene.ask(cache, MODELS, account="x")
        assert isinstance(found, Fill)
        found.abandon()
        await agree(scene, cache, "efgh") if _ == 0 else None


async def test_one_account_that_asks_often_is_one_vote(scene: Scene) -> None:
    cache = await scene.worker(SHARING)
    for _ in range(5):
        await agree(scene, cache, "a")
        await cache.purge("a")
    await prove(scene, cache, "x")
    found = await scene.ask(cache, MODELS, account="x")
    assert isinstance(found, Fill)
    found.abandon()


async def test_a_sample_goes_upstream_all_the_same(scene: Scene) -> None:
    cache = await scene.worker(CacheOptions(shared_platform=True, shared_sample=1.0, l1_max_bytes=0))
    await agree(scene, cache, "abc")
    await prove(scene, cache, "x")
    found = await scene.ask(cache, MODELS, account="x")
    assert isinstance(found, Fill)
    found.abandon()


@pytest.mark.parametrize("path", ["/bot/list", "/magic/list"])
async def test_nothing_but_platform_types_is_shared(scene: Scene, path: str) -> None:
    cache = await scene.worker(SHARING)
    for account in "abc":
        await scene.fill(cache, path, account=account)
    await cache._tiers.settle(2.0)
    await prove(scene, cache, *(["x"] if path != "/bot/list" else []))
    found = await scene.ask(cache, path, account="x")
    assert isinstance(found, Fill)
    found.abandon()


async def test_it_is_off_unless_configured_and_can_be_purged(scene: Scene) -> None:
    off = await scene.worker(CacheOptions(l1_max_bytes=0))
    await agree(scene, off, "abc")
    await prove(scene, off, "x")
    found = await scene.ask(off, MODELS, account="x")
    assert isinstance(found, Fill)
    found.abandon()
    cache = await scene.worker(SHARING)
    await agree(scene, cache, "def")
    await scene.fill(cache, "/dataset/list", account="x")
    await cache.purge("nobody", frozenset({"bot"}))
    assert isinstance(await scene.ask(cache, MODELS, account="x"), Hit), "bots are nothing that is shared"
    await cache.purge("nobody", frozenset({"platform/model"}))
    found = await scene.ask(cache, MODELS, account="x")
    assert isinstance(found, Fill)
    found.abandon()


def test_stamps_and_the_order_of_keys_do_not_count_and_all_else_does() -> None:
    assert fingerprint(b'{"a":1,"createdAt":5}') == fingerprint(b'{"createdAt":6,"a":1}')
    assert fingerprint(b'{"a":[{"updatedAt":1}]}') == fingerprint(b'{"a":[{}]}')
    assert fingerprint(b'{"a":1}') != fingerprint(b'{"a":2}')
    assert fingerprint(b'{"a":[1,2]}') != fingerprint(b'{"a":[2,1]}')

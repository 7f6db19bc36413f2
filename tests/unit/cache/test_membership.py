"""A worker's place among the others: leases, refusals, doubt, generations."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from cbk_gateway.cache import Cache, CacheOptions
from cbk_gateway.cache.shelf import script

if TYPE_CHECKING:
    from unit.cache.conftest import Scene

LEASES, LIVES, BIRTH = (f"cbkgw:{{cache-feed}}:{word}" for word in ("leases", "lives", "birth"))
BRISK = CacheOptions(lease_s=3.0, heartbeat_s=0.1, death_after_s=20.0)


async def leases(scene: Scene) -> dict[str, float]:
    rows = await scene.store.client.zrange(LEASES, 0, -1, withscores=True)
    return {name.decode(): end for name, end in cast("list[tuple[bytes, float]]", rows)}


async def test_whoever_is_live_stands_in_the_register_and_leaves_it(scene: Scene) -> None:
    stayer = await scene.worker(BRISK)
    leaver = await scene.worker(BRISK)
    assert set(await leases(scene)) == {stayer._tiers.worker, leaver._tiers.worker}
    await leaver.stop()
    assert set(await leases(scene)) == {stayer._tiers.worker}
    assert await scene.store.client.zscore(LIVES, leaver._tiers.worker) is None


async def test_a_worker_joins_as_soon_as_it_hears_and_not_with_the_next_heartbeat(scene: Scene) -> None:
    """It takes two beats, and what asks for the second comes while the first is under way."""
    slow = CacheOptions(lease_s=160.0, heartbeat_s=40.0, death_after_s=200.0)
    assert (await scene.worker(slow)).is_live


async def test_a_refused_worker_drops_everything_and_joins_again(scene: Scene) -> None:
    cache = await scene.worker(BRISK)
    await scene.fill(cache)
    session, name = cache._membership._session, cache._tiers.worker
    leave = script(scene.store, "leave", prelude=None)
    before = (await leases(scene))[name]
    now_ms, end_ms = await leave(keys=(LEASES, LIVES), args=("refused", name))
    # It may have renewed its lease in between, which is what is answered then.
    assert end_ms >= before
    assert end_ms > now_ms
    assert set(await leases(scene)) & {f"!{name}", name}
    await scene.eventually(lambda: cache._membership._session > session)
    await scene.eventually(lambda: cache.is_live)
    assert len(cache._tiers.memory) == 0
    assert set(await leases(scene)) == {name}


async def test_a_refused_lease_is_told_of_to_every_writer_until_it_ends(scene: Scene) -> None:
    """Without the refused worker's knowing: nobody beats for this one."""
    heartbeat = script(scene.store, "heartbeat", prelude="register")
    keys = (LEASES, BIRTH, LIVES, "cbkgw:{cache-feed}:generation")

    async def beat(wanted: str) -> int:
        goes_on, _, _ = await heartbeat(keys=keys, args=("ghost", 60_000, 60_000, "nowhere", 1, wanted))
        return int(goes_on)

    cache = await scene.worker(BRISK)
    assert await beat("renew") == 0, "nothing to renew"
    assert (await beat("join"), await beat("renew")) == (1, 1)
    leave = script(scene.store, "leave", prelude=None)
    for _ in range(2):
        now_ms, end_ms = await leave(keys=(LEASES, LIVES), args=("refused", "ghost"))
        assert 50_000 < end_ms - now_ms <= 60_000, "however often it is refused"
        told = await cache._membership.announcer.announce("acme", ("bot",))
        assert set(told.waiting_for) == {"ghost"}
    assert await beat("renew") == 0
    assert await beat("none") == 0
    assert set((await cache._membership.announcer.announce("acme", ("bot",))).waiting_for) == set(), (
        "it has dropped all"
    )
    assert await beat("join") == 1
    assert set(await leases(scene)) == {"ghost", cache._tiers.worker}
    await leave(keys=(LEASES, LIVES), args=("gone", "ghost"))


async def test_a_lost_register_is_doubted_for_a_lease_unless_the_store_is_new(scene: Scene) -> None:
    options = CacheOptions(lease_s=30.0, heartbeat_s=0.1, death_after_s=60.0)
    cache = await scene.worker(options)
    doubted = await cache._membership.announcer.announce("acme", ("bot",))
    assert doubted.doubt_ends_at > cache._tiers.now() + 20.0
    founder = Cache(
        scene.store, CacheOptions(lease_s=30.0, heartbeat_s=0.1, store_is_new=True, death_after_s=60.0)
    )
    await founder.start()
    try:
        trusted = await founder._membership.announcer.announce("acme", ("bot",))
        assert trusted.doubt_ends_at == 0.0
        # What was said of this server holds for no other that takes its place.
        await scene.store.client.set(BIRTH, "0123abcd 0 restart")
        assert (
            await founder._membership.announcer.announce("acme", ("bot",))
        ).doubt_ends_at > founder._tiers.now() + 20.0
    finally:
        await founder.stop()


async def test_an_announcement_is_obeyed_by_the_others_and_not_by_its_writer(scene: Scene) -> None:
    counts = scene.counts()
    writer, reader = await scene.worker(observer=counts), await scene.worker()
    await scene.fill(reader)
    assert await scene.body(writer) == scene.page
    told = await writer._membership.announcer.announce("acme", ("bot",))
    await writer._membership.announcer.obeyed(told)
    assert reader.recall_now(scene.get("/bot/list"), scene.parts()) is None
    assert "invalidated feed" not in counts.events, "it drops what is its own before it tells the others"


@pytest.mark.parametrize("death", [True, False])
async def test_a_worker_that_is_silent_for_long_begins_a_generation(scene: Scene, death: bool) -> None:
    cache = await scene.worker(CacheOptions(lease_s=0.8, heartbeat_s=0.1, death_after_s=1.0))
    generation = cache._tiers.shelf.generation
    beats = cache._membership._beat_number
    if death:
        await scene.store.client.zadd(LIVES, {"ghost": 1.0})
        await scene.eventually(lambda: cache._tiers.shelf.generation > generation)
    else:
        await scene.eventually(lambda: cache._membership._beat_number > beats + 3)
        assert cache._tiers.shelf.generation == generation

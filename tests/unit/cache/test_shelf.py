"""The shared tier's scripts, one by one: epochs, leases, marks, the fence, the account's room."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cbk_gateway.cache.entry import Entry, EntryCodec
from cbk_gateway.cache.inventory import Inventory
from cbk_gateway.cache.mention import Mention
from cbk_gateway.cache.options import CacheOptions
from cbk_gateway.cache.shelf import Kept, Look, Shelf, Word

if TYPE_CHECKING:
    from unit.cache.conftest import Scene

ENTRY = Entry(200, "application/json", "", '"t"', b'{"items":[{"id":"b1"}]}', 0, 0)
READS = ("bot",)


class Bench:
    """A shelf, and the inventory over the same store."""

    def __init__(self, scene: Scene, options: CacheOptions | None = None) -> None:
        options = options or CacheOptions()
        codec = EntryCodec(options.encryption_key)
        self.shelf = Shelf(scene.store, options, codec)
        self.shelf.generation = 1
        self.inventory = Inventory(scene.store, codec)

    async def look(self, token: str = "t1", digest: str = "d", *, wants_lease: bool = True) -> Look:
        return await self.shelf.look("acme", digest, READS, token, wants_lease=wants_lease)

    async def keep(self, look: Look, token: str = "t1", digest: str = "d", ttl_s: float = 60.0) -> Kept:
        return await self.shelf.keep(
            "acme",
            digest,
            READS,
            token=token,
            vector=look.vector,
            entry=ENTRY,
            ttl_s=ttl_s,
            label=f"bot /bot/{digest}/fetch",
        )

    async def filled(self, digest: str = "d") -> None:
        assert (await self.keep(await self.look(digest=digest), digest=digest)).outcome == "stored"


@pytest.fixture
def bench(scene: Scene) -> Bench:
    return Bench(scene)


async def test_one_gets_the_right_to_fetch_and_the_others_wait_until_it_is_given_back(bench: Bench) -> None:
    first = await bench.look("t1")
    second = await bench.look("t2")
    assert (first.word, second.word, second.holder) == (Word.OWN, Word.WAIT, "t1")
    assert (await bench.look("t1")).word is Word.OWN
    await bench.shelf.release("acme", "d", "t2")
    assert (await bench.look("t2")).word is Word.WAIT, "only its holder gives a right back"
    await bench.shelf.release("acme", "d", "t1")
    assert (await bench.look("t2")).word is Word.OWN


async def test_who_may_not_fetch_takes_no_right(bench: Bench) -> None:
    assert (await bench.look(wants_lease=False)).word is Word.MISS
    assert (await bench.look("t2")).word is Word.OWN


async def test_a_right_is_prolonged_by_its_holder_only(scene: Scene) -> None:
    bench = Bench(scene, CacheOptions(fill_lease_s=0.3))
    await bench.look("t1")
    lease = "cbkgw:{acme}:cache:l:d"
    await bench.shelf.prolong("acme", "d", "t2")
    await scene.store.client.pexpire(lease, 50)
    await bench.shelf.prolong("acme", "d", "t1")
    assert await scene.store.client.pttl(lease) > 50


async def test_what_is_kept_is_found_with_its_times(bench: Bench) -> None:
    await bench.filled()
    found = await bench.look("t2")
    assert (found.word, found.entry is not None) == (Word.HIT, True)
    assert found.entry is not None
    assert found.entry.body == ENTRY.body
    assert found.entry.fresh_until_ms - found.entry.stored_at_ms == 60_000


@pytest.mark.parametrize("kind", ["write", "purge", "flush", "fence"])
async def test_what_was_fetched_before_a_change_is_not_kept_after_it(
    scene: Scene, bench: Bench, kind: str
) -> None:
    look = await bench.look()
    if kind == "write":
        await bench.shelf.begin_write("acme", "s", "m", ("bot",))
        await bench.shelf.finish_write("acme", "s", "m", ("bot",))
    elif kind == "purge":
        await bench.shelf.finish_write("acme", "s", "", ("*",))
    elif kind == "flush":
        await scene.store.client.flushall()
    else:
        await bench.inventory.drop("acme", Mention(identifier="no such thing"))
    assert (await bench.keep(look)).outcome == "moved"


async def test_a_write_of_another_type_or_account_changes_nothing(bench: Bench) -> None:
    look = await bench.look()
    for account, kind in (("acme", "dataset"), ("globex", "bot")):
        await bench.shelf.begin_write(account, "s", "m", (kind,))
        await bench.shelf.finish_write(account, "s", "m", (kind,))
    assert (await bench.keep(look)).outcome == "stored"


async def test_while_a_write_is_open_its_types_are_fetched_and_not_kept(bench: Bench) -> None:
    await bench.shelf.begin_write("acme", "s", "m", ("bot",))
    look = await bench.look()
    assert (look.word, look.is_write_open) == (Word.OWN, True)
    assert (await bench.keep(look)).outcome == "write-open"
    await bench.shelf.begin_write("acme", "o", "n", ("*",))
    assert (await bench.look()).word is Word.HELD
    assert await bench.shelf.finish_write("acme", "o", "n", ("*",))
    assert (await bench.look()).word is Word.OWN


async def test_a_mark_that_was_lost_is_missed_and_set_again(scene: Scene, bench: Bench) -> None:
    await bench.shelf.begin_write("acme", "s", "m", ("bot",))
    assert await bench.shelf.renew_write("acme", "s", "m", ("bot",))
    await scene.store.client.flushall()
    assert not await bench.shelf.renew_write("acme", "s", "m", ("bot",))
    assert (await bench.look()).is_write_open
    await scene.store.client.flushall()
    assert not await bench.shelf.finish_write("acme", "s", "m", ("bot",))


async def test_a_worker_that_has_not_heard_of_a_generation_is_behind(scene: Scene, bench: Bench) -> None:
    newer = Bench(scene)
    newer.shelf.generation = 2
    await newer.filled()
    assert (await bench.look("t2")).word is Word.BEHIND
    bench.shelf.generation = 2
    assert (await bench.look("t2")).word is Word.HIT


async def test_an_account_s_room_is_kept_by_its_oldest_giving_way(scene: Scene) -> None:
    bench = Bench(scene, CacheOptions(l2_account_max_bytes=3 * ENTRY.size_bytes))
    for digest in "abcd":
        await bench.filled(digest)
    left = await bench.inventory.shown("acme", Mention(), 10)
    assert sorted(one.digest for one in left) == ["b", "c", "d"]
    sizes = await scene.store.client.hget("cbkgw:{acme}:cache:sizes", "#bytes")
    assert int(sizes or 0) == 3 * ENTRY.size_bytes


async def test_what_is_dropped_is_gone_from_the_books_and_the_rest_is_as_good_as_before(
    scene: Scene, bench: Bench
) -> None:
    for number in range(40):
        await bench.filled(f"b{number}")
    assert await bench.inventory.drop("acme", Mention(identifier="b7")) == 1
    assert await bench.inventory.drop("acme", Mention(frozenset({"dataset"}), "b8")) == 0
    assert (await bench.look("t2", "b7")).word is Word.OWN
    assert (await bench.look("t2", "b8")).word is Word.HIT
    assert len(await bench.inventory.shown("acme", Mention(), 100)) == 39
    assert len(await bench.inventory.shown("acme", Mention(), 10)) == 10
    sizes = await scene.store.client.hget("cbkgw:{acme}:cache:sizes", "#bytes")
    assert int(sizes or 0) == 39 * ENTRY.size_bytes
    # Every body names b1, whatever the path.
    assert await bench.inventory.drop("acme", Mention(identifier="b1")) == 39


async def test_epochs_after_a_flush_are_no_epochs_from_before(scene: Scene, bench: Bench) -> None:
    """They begin from the store's own clock, so what is brought back from a backup fits none of them."""
    await bench.filled()
    saved = await scene.store.client.dump("cbkgw:{acme}:cache:e:d")
    await scene.store.client.flushall()
    assert saved is not None
    await scene.store.client.restore("cbkgw:{acme}:cache:e:d", 60_000, saved)
    assert (await bench.look("t2")).word is Word.OWN


async def test_many_at_once_get_one_right(bench: Bench) -> None:
    looks = await asyncio.gather(*(bench.look(f"t{number}") for number in range(20)))
    assert [one.word for one in looks].count(Word.OWN) == 1

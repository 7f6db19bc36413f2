"""The rule of admission, and what a worker does in the background."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cbk_gateway.cache.copy import Copy
from cbk_gateway.cache.entry import Entry
from cbk_gateway.cache.mention import Mention
from cbk_gateway.cache.observer import SilentObserver
from cbk_gateway.cache.options import CacheOptions
from cbk_gateway.cache.tiers import Tiers

if TYPE_CHECKING:
    from unit.cache.conftest import Scene


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tiers(scene: Scene, session: int | None = 1, options: CacheOptions | None = None) -> tuple[Tiers, Clock]:
    clock = Clock()
    one = Tiers(scene.store, options or CacheOptions(), SilentObserver(), clock)
    one.session = lambda _: session
    return one, clock


def copy(name: str = "d", body: bytes = b"{}") -> Copy:
    entry = Entry(200, "application/json", "", '"t"', body, 0, 60_000)
    return Copy(
        entry,
        account="acme",
        digest=name,
        label=f"bot /bot/{name}/fetch",
        reads=("bot",),
        sent_at=0.0,
        now_ms=0,
    )


@pytest.mark.parametrize(
    ("begun_in", "now_in", "heard", "is_admitted"),
    [
        (1, 1, None, True),
        (1, 1, "dataset", True),
        (1, 1, "bot", False),
        (1, 1, "*", False),
        (1, 2, None, False),
        (1, None, None, False),
        (None, 1, None, False),
        (None, None, None, False),
    ],
)
async def test_an_answer_enters_memory_only_if_no_write_can_have_passed_unheard(
    scene: Scene, begun_in: int | None, now_in: int | None, heard: str | None, is_admitted: bool
) -> None:
    one, _ = tiers(scene, now_in)
    flight = one.flights.open("acme", "d", ("bot",), begun_in)
    if heard is not None:
        one.drop("acme", (heard,), "feed")
    assert one.admit(flight, copy()) is is_admitted
    assert (one.memory.find("d") is not None) is is_admitted


async def test_an_answer_that_does_not_fit_is_not_said_to_be_in_memory(scene: Scene) -> None:
    one, _ = tiers(scene, options=CacheOptions(l1_max_bytes=0))
    assert not one.admit(one.flights.open("acme", "d", ("bot",), 1), copy())


async def test_after_single_answers_were_dropped_nothing_that_was_under_way_enters(scene: Scene) -> None:
    one, _ = tiers(scene)
    before = one.flights.open("acme", "d", ("bot",), 1)
    elsewhere = one.flights.open("globex", "e", ("bot",), 1)
    one.memory.put(copy("kept"))
    one.memory.put(copy("dropped"))
    one.drop_mentions("acme", Mention(identifier="dropped"))
    assert (one.memory.find("kept") is not None, one.memory.find("dropped")) == (True, None)
    assert (before.is_void, elsewhere.is_void) == (True, False)


async def test_what_cannot_be_kept_is_remembered_for_a_while_and_within_bounds(scene: Scene) -> None:
    one, clock = tiers(scene)
    one.decline("d")
    assert one.is_declined("d", clock.now)
    clock.now = 11.0
    assert not one.is_declined("d", clock.now)
    for number in range(5000):
        one.decline(f"d{number}")
    assert len(one._declined) == 4096


@pytest.mark.parametrize(
    ("options", "body", "codings"),
    [
        (CacheOptions(), b"x" * 2000, {"gzip", "zstd"}),
        (CacheOptions(compress=False), b"x" * 2000, set()),
        (CacheOptions(), b"x" * 1000, set()),
        (CacheOptions(compress_min_bytes=0), b"{}", set()),
    ],
)
async def test_variants_are_prepared_once_where_they_pay(
    scene: Scene, options: CacheOptions, body: bytes, codings: set[str]
) -> None:
    one, _ = tiers(scene, options=options)
    held = copy(body=body)
    one.memory.put(held)
    for coding in ("gzip", "zstd", "gzip"):
        one.compress_later(held, held.form, coding)
    await one.settle(5.0)
    assert sorted(variant.coding for variant in held.form.coded) == sorted(codings)
    assert one.memory.size_bytes == held.size_bytes


async def test_waiting_for_a_fetch_ends_when_it_ends_or_when_the_time_is_up(scene: Scene) -> None:
    one, _ = tiers(scene)
    waiting = asyncio.ensure_future(one.wait_for_fill("d", 60.0))
    await scene.turn()
    one.woken("other")
    await scene.turn()
    assert not waiting.done()
    one.woken("d")
    await waiting
    await one.wait_for_fill("d", 0.0)
    assert one._wakers == {}


async def test_background_work_that_does_not_end_in_time_is_cancelled(scene: Scene) -> None:
    one, _ = tiers(scene)
    task = one.spawn(asyncio.Event().wait())  # type: ignore[arg-type]  # its result is of no interest
    await one.settle(0.01)
    assert task.cancelled()

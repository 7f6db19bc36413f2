"""What a worker knows and holds of quotas and open requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.limits.calendar import Span
from cbk_gateway.limits.counters import QuotaView, SlotView
from cbk_gateway.parties import Measure, Period, Quota

DAY = Span("2026-11-22", 0, 10**15)


def quota(used: int = 0, limit: int = 1000, **kind: bool) -> QuotaView:
    one = QuotaView("acme", Quota("q", Period.DAY, Measure.REQUESTS, limit, **kind), DAY)
    one.learn(used)
    return one


@pytest.mark.parametrize(
    ("used", "hard", "top"),
    [(0, True, 800), (799, True, 800), (800, True, 1000), (800, False, 1000), (1200, False, 2200)],
)
def test_leases_end_at_the_next_mark(used: int, hard: bool, top: int) -> None:
    assert quota(used, hard=hard).question(1, wanted=50, workers=2).top == top


def test_a_question_hands_over_what_the_store_was_not_told_once() -> None:
    one = quota()
    assert one.correct(7, 5.0)
    assert one.correct(-2, 5.0)
    assert [one.question(1, wanted=0, workers=1).correction for _ in range(2)] == [5, 0]
    assert one.report().correction == 0


def test_a_lease_pays_until_its_end_and_takes_corrections_meanwhile() -> None:
    one = quota(100)
    one.lease, one.lease_until = 10, 5.0
    assert one.spent == 90
    assert one.covers(10, 4.9)
    assert not one.covers(11, 4.9)
    assert not one.covers(1, 5.0)
    assert not one.correct(4, 4.9)
    assert (one.lease, one.pending) == (6, 0)
    assert not one.correct(-4, 4.9)
    assert one.correct(11, 4.9)
    assert (one.lease, one.pending) == (10, 11)
    one.give_back(3)
    assert (one.lease, one.pending) == (3, 4)


@given(st.lists(st.integers(0, 1500), max_size=30))
def test_each_mark_is_reported_once_and_in_order(counts: list[int]) -> None:
    one = quota()
    marks = [mark for mark in map(one.learn, sorted(counts)) if mark]
    assert marks in ([], [80], [100], [80, 100])
    assert bool(marks) == (max(counts, default=0) >= 800)


@pytest.mark.parametrize(
    ("kind", "blocks"), [({}, True), ({"hard": False}, False), ({"shadow": True}, False)]
)
def test_only_an_enforced_quota_refuses_from_memory(kind: dict[str, bool], blocks: bool) -> None:
    one = quota(**kind)
    one.block(5, 10.0)
    assert [one.blocks(amount, at) for amount, at in ((5, 9.9), (4, 9.9), (5, 10.0))] == [
        blocks,
        False,
        False,
    ]


class Store:
    """The table of open requests as `admit.lua` keeps it, for one tenant."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: dict[str, int] = {}

    def ask(self, name: str, slot: SlotView, wanted: int) -> bool:
        """A place, and so many spare ones."""
        asked = slot.question(wanted=wanted, workers=2)
        total = sum(self.kept.values()) - self.kept.get(name, 0) + asked.own
        is_admitted, places = total < self.most, 0
        if is_admitted:
            places = max(0, min(asked.want, (self.most - total - 1) // asked.part))
        self.kept[name] = asked.own + is_admitted + places
        if not is_admitted:
            slot.own -= 1
        slot.enter(asked, sum(self.kept.values()), places, 1e9, is_admitted=is_admitted)
        return is_admitted

    def tell(self, name: str, slot: SlotView) -> None:
        """A report."""
        asked = slot.report(2)
        self.kept[name] = asked.own
        slot.enter(asked, sum(self.kept.values()), 0, 1e9, is_admitted=True)


_acts = st.lists(
    st.tuples(
        st.sampled_from(["open", "open", "close", "tell", "turn", "lose"]),
        st.sampled_from("ab"),
        st.integers(0, 6),
    ),
    max_size=120,
)


@given(st.integers(1, 30), _acts)
def test_whatever_workers_do_no_more_is_open_than_kept_and_no_more_kept_than_allowed(
    most: int, acts: list[tuple[str, str, int]]
) -> None:
    store = Store(most)
    slots = {name: SlotView("acme", "requests", most) for name in "ab"}
    for act, name, wanted in acts:
        slot = slots[name]
        if act == "open":
            if slot.covers(5.0):
                slot.open()
            else:
                store.ask(name, slot, wanted)
        elif act == "close" and slot.own:
            if slot.close():
                store.tell(name, slot)
        elif act == "tell":
            store.tell(name, slot)
        elif act == "turn":
            slot.turn()
        elif act == "lose":
            slot.lose()
        for one, view in slots.items():
            assert view.own <= max(view.kept, view.own if view.is_stale else 0)
            assert view.kept <= store.kept.get(one, 0)
        assert sum(store.kept.values()) <= most
        assert sum(view.own for view in slots.values()) <= most


def test_where_there_is_no_room_a_place_goes_back_when_it_is_free() -> None:
    store, slot = Store(2), SlotView("acme", "requests", 2)
    assert store.ask("a", slot, 9)
    assert (slot.kept, slot.spare) == (1, 0)
    assert slot.close()


def test_where_there_is_room_places_are_kept_for_the_next() -> None:
    store, slot = Store(100), SlotView("acme", "requests", 100)
    assert store.ask("a", slot, 4)
    assert (slot.kept, slot.own) == (5, 1)
    assert not slot.close()
    assert slot.covers(5.0)
    slot.turn()
    slot.turn()
    store.tell("a", slot)
    assert store.kept["a"] == 0


def test_an_answer_that_was_overtaken_is_void() -> None:
    slot = SlotView("acme", "requests", 100)
    first = slot.question(wanted=4, workers=1)
    second = slot.question(wanted=4, workers=1)
    slot.enter(first, 5, 4, 9.0, is_admitted=True)
    assert slot.kept == 2
    slot.enter(second, 6, 4, 9.0, is_admitted=True)
    assert slot.kept == 6


@pytest.mark.parametrize(("most", "workers", "room"), [(10, 2, 5), (1, 4, 1), (7, 3, 2)])
def test_without_the_store_each_worker_has_its_share_of_places(most: int, workers: int, room: int) -> None:
    slot = SlotView("acme", "requests", most)
    count = 0
    while slot.has_local_room(workers):
        slot.open()
        count += 1
    assert count == room

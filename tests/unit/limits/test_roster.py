"""Who is alive, and who is back."""

from __future__ import annotations

from cbk_gateway.limits.roster import Roster


def test_no_fewer_are_counted_than_expected() -> None:
    roster = Roster(4, 7)
    roster.note(1, 1, 100, 10.0)
    assert roster.alive == 4


def test_a_lower_count_is_believed_only_after_a_while() -> None:
    roster = Roster(1, 7)
    roster.note(4, 4, 100, 10.0)
    roster.note(1, 1, 200, 16.0)
    assert roster.alive == 4
    roster.note(1, 1, 300, 17.5)
    assert roster.alive == 1


def test_the_store_rules_again_when_all_are_back() -> None:
    roster = Roster(1, 7)
    roster.note(3, 3, 100, 10.0)
    roster.lose_store()
    assert not roster.is_complete(11.0, 3)
    roster.note(1, 0, 500, 20.0)
    assert roster.returned_at_us == 500
    assert not roster.is_complete(20.0, 3)
    roster.note(3, 3, 600, 20.5)
    assert roster.is_complete(20.5, 3)


def test_a_worker_that_never_returns_is_waited_for_only_so_long() -> None:
    roster = Roster(3, 7)
    roster.lose_store()
    roster.note(1, 0, 500, 20.0)
    assert not roster.is_complete(22.9, 3)
    assert roster.is_complete(23.0, 3)

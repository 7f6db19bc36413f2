"""Who has to answer an announcement, and until when."""

from __future__ import annotations

import pytest

from cbk_gateway.cache.announcement import Announcement


def sent(**lists: float) -> Announcement:
    one = Announcement(waiting_for=dict(lists), is_sent=True)
    one.settle()
    return one


def test_it_is_heard_when_all_have_answered() -> None:
    one = sent(a=5.0, b=7.0)
    one.note("a")
    assert not one.is_heard.is_set()
    assert one.ends_at == 7.0
    one.note("b")
    assert one.is_heard.is_set()


def test_with_nobody_else_it_is_heard_at_once() -> None:
    assert sent().is_heard.is_set()


def test_answers_may_come_before_it_is_known_who_owes_one() -> None:
    one = Announcement()
    one.note("a")
    assert not one.is_heard.is_set()
    one.is_sent = True
    one.settle()
    assert one.is_heard.is_set()


def test_who_is_refused_already_is_waited_for_and_not_refused_again() -> None:
    one = Announcement()
    one.note("early")
    for name, ends_at in (("early", 9.0), ("a", 5.0), ("!b", 7.0)):
        one.owe(name, ends_at)
    assert one.waiting_for == {"a": 5.0, "b": 7.0}
    assert (one.laggards, one.ends_at) == (("a",), 7.0)
    one.is_sent = True
    for name in ("a", "b"):
        assert not one.is_heard.is_set()
        one.note(name)
    assert one.is_heard.is_set()


@pytest.mark.parametrize(
    ("needed", "answers", "is_heard"), [(2, ["a"], False), (2, ["a", "b"], True), (2, ["a", "a"], False)]
)
def test_in_doubt_as_many_must_answer_as_are_there(needed: int, answers: list[str], is_heard: bool) -> None:
    one = Announcement(needed=needed, doubt_ends_at=9.0, is_sent=True)
    for name in answers:
        one.note(name)
    assert one.is_heard.is_set() is is_heard
    assert one.ends_at == 9.0

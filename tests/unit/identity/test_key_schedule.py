from __future__ import annotations

import pytest

from cbk_gateway.identity import JwksOptions
from cbk_gateway.identity.key_schedule import KeySchedule

OPTIONS = JwksOptions(cooldown_s=10, unknown_kid_s=100, max_age_s=1000)


def test_nothing_is_known_at_first() -> None:
    schedule = KeySchedule(OPTIONS)
    assert schedule.may_ask_for("k", "ES256", 0)
    assert not schedule.is_usable(0)
    assert schedule.wait_s(5) == 0


@pytest.mark.parametrize(("now", "may"), [(100, False), (109.9, False), (110, True)])
def test_the_cooldown_runs_from_the_last_fetch_whatever_came_of_it(now: float, may: bool) -> None:
    for ending in ("succeeded", "failed", "hanging"):
        schedule = KeySchedule(OPTIONS)
        schedule.attempted(100)
        if ending == "succeeded":
            schedule.succeeded(100, 300, 0)
        elif ending == "failed":
            schedule.failed(100)
        assert schedule.may_ask_for("k", "ES256", now) is may


def test_a_key_not_found_is_asked_for_again_only_later_and_alone() -> None:
    schedule = KeySchedule(OPTIONS)
    schedule.succeeded(0, 300, 0)
    schedule.not_found("k", "ES256", 0)
    assert not schedule.may_ask_for("k", "ES256", 99)
    assert schedule.may_ask_for("k", "ES256", 100)
    assert schedule.may_ask_for("k", "RS256", 50)
    assert schedule.may_ask_for("l", "ES256", 50)


def test_a_new_set_forgets_what_was_not_found() -> None:
    schedule = KeySchedule(OPTIONS)
    schedule.not_found("k", "ES256", 0)
    schedule.succeeded(20, 300, 0)
    assert schedule.may_ask_for("k", "ES256", 40)


def test_what_was_not_found_is_bounded() -> None:
    schedule = KeySchedule(OPTIONS)
    for number in range(5000):
        schedule.not_found(str(number), "ES256", 0)
    assert sum(not schedule.may_ask_for(str(number), "ES256", 1) for number in range(5000)) == 1024


def test_the_last_good_set_serves_up_to_its_age() -> None:
    schedule = KeySchedule(OPTIONS)
    schedule.succeeded(0, 300, 0)
    schedule.failed(500)
    assert schedule.is_usable(999)
    assert not schedule.is_usable(1000)


@pytest.mark.parametrize(("spread", "wait"), [(0.0, 300), (1.0, 270)])
def test_workers_ask_at_different_times(spread: float, wait: float) -> None:
    schedule = KeySchedule(OPTIONS)
    schedule.succeeded(0, 300, spread)
    assert schedule.wait_s(0) == wait


def test_after_a_failure_the_next_try_is_a_cooldown_away() -> None:
    schedule = KeySchedule(OPTIONS)
    schedule.failed(50)
    assert schedule.wait_s(50) == 10
    assert schedule.wait_s(70) == 0


def test_the_end_of_the_last_good_set_is_something_to_wake_for() -> None:
    schedule = KeySchedule(OPTIONS)
    schedule.succeeded(0, 300, 0)
    schedule.failed(995)
    assert schedule.wait_s(995) == 5

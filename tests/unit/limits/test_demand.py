"""How much is asked for: steady streams are measured as they are, floods are seen at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.limits.demand import Demand


def steady(per_second: float, seconds: float) -> Demand:
    one, at = Demand(), 1000.0
    while at < 1000.0 + seconds:
        one.note(1, at)
        at += 1 / per_second
    return one


@given(st.floats(0.1, 2000))
def test_a_steady_stream_is_never_overrated(per_second: float) -> None:
    assert steady(per_second, 10).per_second <= per_second * 1.01


@pytest.mark.parametrize("per_second", [1, 3, 20, 500])
def test_a_steady_stream_is_measured_as_it_is(per_second: float) -> None:
    assert steady(per_second, 10).per_second == pytest.approx(per_second, rel=0.1)


def test_one_or_two_at_a_time_are_no_flood() -> None:
    one = Demand()
    for second in range(10):
        one.note(1, 1000.0 + second)
        one.note(1, 1000.0 + second)
        assert one.per_second <= 2


def test_a_flood_is_seen_before_its_second_is_over() -> None:
    one = Demand()
    for _ in range(50):
        one.note(1, 1000.0)
    assert one.per_second > 100


def test_a_quiet_second_halves_the_rate_and_silence_ends_it() -> None:
    one = steady(100, 5)
    one.note(1, 1006.5)
    one.note(1, 1007.6)
    assert 20 < one.per_second < 60
    one.note(1, 1020.0)
    assert one.per_second < 1

"""The adaptive bound, time moved by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.upstream import ConcurrencyOptions
from cbk_gateway.upstream.concurrency import AdaptiveBound

OPTIONS = ConcurrencyOptions(start=10, least=4, most=20, tolerance=3, decrease=0.5)


def taught() -> AdaptiveBound:
    bound = AdaptiveBound(OPTIONS)
    for _ in range(40):
        bound.record(0.0, 0.1, 1, overloaded=False)
    return bound


def test_it_grows_by_about_one_per_bound_of_good_calls_while_it_is_used() -> None:
    bound = AdaptiveBound(OPTIONS)
    for _ in range(10):
        bound.record(0.0, 0.1, 10, overloaded=False)
    assert 10.9 < bound.value < 11.1


def test_it_does_not_grow_while_it_is_not_used() -> None:
    assert taught().value == 10


def test_it_never_leaves_its_limits() -> None:
    bound = AdaptiveBound(OPTIONS)
    for _ in range(1000):
        bound.record(0.0, 0.1, 100, overloaded=False)
    assert bound.value == 20
    for second in range(10):
        bound.record(10.0 * second + 10, 0.1, 1, overloaded=True)
    assert bound.value == 4


def test_one_burst_of_bad_news_counts_once() -> None:
    bound = taught()
    assert bound.record(50.0, 0.1, 10, overloaded=True)
    assert not bound.record(50.01, 0.1, 10, overloaded=True)
    assert bound.value == 5
    assert bound.record(50.2, 0.1, 10, overloaded=True)


def test_unusual_slowness_is_a_sign_of_overload() -> None:
    bound = taught()
    assert not bound.record(50.0, 0.29, 1, overloaded=False)
    assert bound.record(50.0, 0.5, 1, overloaded=False)


def test_lasting_slowness_becomes_usual() -> None:
    bound = taught()
    for second in range(400):
        bound.record(100.0 + second, 0.5, 1, overloaded=False)
    assert bound.usual_s > 0.4
    assert not bound.record(900.0, 0.5, 1, overloaded=False)


@given(st.lists(st.sampled_from([0.01, 0.02, 0.05, 0.3, 2.0]), max_size=120), st.integers(1, 20))
def test_every_good_call_teaches_the_usual_time(times_s: list[float], in_flight: int) -> None:
    """A plain mean of the first fifty, then one in which a call weighs a fiftieth; none teaches too much."""
    bound, usual_s = AdaptiveBound(OPTIONS), 0.0
    for count, took_s in enumerate(times_s, 1):
        bound.record(0.0, took_s, in_flight, overloaded=False)
        learnt_s = min(took_s, usual_s * OPTIONS.tolerance) if count > 20 else took_s
        usual_s += max(1 / count, 0.02) * (learnt_s - usual_s)
        assert bound.usual_s == pytest.approx(usual_s)


def test_it_grows_and_rests_as_ever_when_it_has_learnt_for_long() -> None:
    bound = AdaptiveBound(OPTIONS)
    for _ in range(100):
        bound.record(0.0, 0.1, 4, overloaded=False)
    assert bound.value == 10
    for _ in range(10):
        bound.record(0.0, 0.1, 6, overloaded=False)
    assert 10.9 < bound.value < 11.1
    assert bound.record(50.0, 0.5, 1, overloaded=False)

"""The breaker, on a clock of the test's own."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.store import Breaker


def opened(at: float = 10.0) -> Breaker:
    breaker = Breaker(threshold=3, pause_s=0.5)
    assert [breaker.failed(at) for _ in range(3)] == [False, False, True]
    return breaker


def test_failures_in_a_row_open_it_and_an_answer_between_does_not() -> None:
    breaker = Breaker(threshold=3, pause_s=0.5)
    for _ in range(5):
        breaker.failed(0)
        breaker.failed(0)
        breaker.succeeded()
    assert breaker.is_closed
    assert not opened().is_closed


def test_one_probe_goes_out_after_the_pause() -> None:
    breaker = opened()
    assert not breaker.may_probe(10.4)
    assert breaker.may_probe(10.5)
    assert not breaker.may_probe(10.5)


def test_a_probe_without_an_answer_opens_it_for_another_pause() -> None:
    breaker = opened()
    assert breaker.may_probe(10.5)
    assert not breaker.failed(10.7)
    assert breaker.seconds_to_probe(10.7) == 0.5
    assert breaker.may_probe(11.3)


def test_an_answered_probe_closes_it() -> None:
    breaker = opened()
    assert breaker.may_probe(11)
    assert breaker.succeeded()
    assert breaker.is_closed


def test_late_failures_do_not_put_the_probe_off() -> None:
    breaker = opened()
    breaker.failed(10.49)
    assert breaker.may_probe(10.5)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60))
def test_at_most_one_probe_is_out_per_pause(steps: list[tuple[float, bool]]) -> None:
    # Invariant: two claims of a probe are at least a pause apart, whatever fails in between.
    breaker, now, claims = opened(0.0), 0.0, []
    for gap, fails in steps:
        now += gap
        if breaker.may_probe(now):
            claims.append(now)
        if fails:
            breaker.failed(now)
    assert all(later - earlier >= 0.5 - 1e-9 for earlier, later in itertools.pairwise(claims))

"""The breaker's rules, time moved by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.upstream import BreakerOptions
from cbk_gateway.upstream.breaker import Breaker, BreakerState

OPTIONS = BreakerOptions(
    window_s=10, minimum_samples=4, failure_share=0.5, open_s=1, longest_open_s=3, max_accounts=9
)


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker(OPTIONS)
    for _ in range(3):
        assert not breaker.record(now, failed=True)
    assert breaker.record(now, failed=True)
    return breaker


def test_too_few_samples_never_open_it() -> None:
    breaker = Breaker(OPTIONS)
    assert not any(breaker.record(100.0, failed=True) for _ in range(3))
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize(("good", "opens"), [(4, True), (5, False)])
def test_a_share_of_failures_opens_it(good: int, opens: bool) -> None:
    breaker = Breaker(OPTIONS)
    for _ in range(good):
        breaker.record(100.0, failed=False)
    assert [breaker.record(100.0, failed=True) for _ in range(4)][-1] is opens


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_a_success_that_turns_out_a_failure_counts_once(share: float) -> None:
    """A 200 whose body was an error is one call that failed, not one that did and one that did not."""
    breaker = Breaker(dataclasses.replace(OPTIONS, failure_share=share))
    opened_by = []
    for _ in range(4):
        assert not breaker.record(100.0, failed=False)
        opened_by.append(breaker.amend(100.0))
    assert opened_by == [False, False, False, True]


def test_a_success_that_left_the_window_is_counted_when_it_turns_out_a_failure() -> None:
    breaker = Breaker(OPTIONS)
    for _ in range(4):
        breaker.record(100.0, failed=False)
    assert [breaker.amend(200.0) for _ in range(5)] == [False, False, False, True, False]


def test_failures_that_left_the_window_are_forgotten() -> None:
    breaker = Breaker(OPTIONS)
    for _ in range(3):
        breaker.record(100.0, failed=True)
    assert not breaker.record(111.0, failed=True)
    assert breaker.state is BreakerState.CLOSED


def test_samples_of_one_window_count_together() -> None:
    breaker = Breaker(OPTIONS)
    assert [breaker.record(100.0 + second * 2, failed=True) for second in range(4)][-1]


def test_one_probe_may_go_when_the_pause_is_over() -> None:
    breaker = opened()
    assert not breaker.begin_probe(100.9)
    assert breaker.begin_probe(101.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.begin_probe(101.0)


def test_a_healthy_probe_closes_it_and_forgets() -> None:
    breaker = opened()
    breaker.begin_probe(101.0)
    breaker.end_probe(101.1, healthy=True)
    assert breaker.state is BreakerState.CLOSED
    assert not breaker.record(101.1, failed=True)


def test_failed_probes_double_the_pause_up_to_a_bound() -> None:
    breaker = opened()
    pauses = []
    now = breaker.probe_at
    for _ in range(4):
        assert breaker.begin_probe(now)
        breaker.end_probe(now, healthy=False)
        pauses.append(breaker.probe_at - now)
        now = breaker.probe_at
    assert pauses == [2, 3, 3, 3]


def test_late_answers_do_not_move_an_open_breaker() -> None:
    breaker = opened()
    assert not breaker.record(100.5, failed=True)
    assert breaker.probe_at == 101.0


EVENTS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.01, 0.3, 1.0, 4.0]), st.sampled_from("ggggggggfa")), max_size=60
)


@given(EVENTS)
def test_it_opens_exactly_when_the_samples_of_its_window_say_so(events: list[tuple[float, str]]) -> None:
    """However good outcomes are kept: as if every one of them stood in its tenth of the window."""
    breaker, now = Breaker(OPTIONS), 100.0
    samples: list[tuple[int, int, int]] = []
    for passed_s, kind in events:
        now += passed_s
        tick = int(now * 10 / OPTIONS.window_s)
        samples = [one for one in samples if one[0] > tick - 10]
        counted, failed = (sum(one[place] for one in samples) for place in (1, 2))
        adds = 0 if kind == "a" and failed < counted else 1
        samples.append((tick, adds, 0 if kind == "g" else 1))
        counted, failed = counted + adds, failed + samples[-1][2]
        opens = kind != "g" and counted >= OPTIONS.minimum_samples and failed * 2 >= counted
        told = breaker.amend(now) if kind == "a" else breaker.record(now, failed=kind == "f")
        assert told is opens
        if opens:
            assert breaker.state is BreakerState.OPEN
            assert not breaker.record(now, failed=False)
            breaker.begin_probe(breaker.probe_at)
            breaker.end_probe(breaker.probe_at, healthy=True)
            samples = []

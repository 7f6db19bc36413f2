"""The rule of the token bucket, on values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.limits.bucket import MICRO, BucketState, Draw, Verdict, decide, refilled

LIFE = MICRO


# Seconds since the first request, cost, admitted?, tokens left, wait in seconds: one bucket of 2/s, burst 4.
@pytest.mark.parametrize(
    ("history", "is_admitted", "left", "wait_s"),
    [
        ([(0, 1)], True, 3, 0),
        ([(0, 4)], True, 0, 0),
        ([(0, 4), (0, 1)], False, 0, 0.5),
        ([(0, 4), (0.5, 1)], True, 0, 0),
        ([(0, 4), (0.25, 1)], False, 0.5, 0.25),
        ([(0, 4), (0.25, 0.5)], True, 0, 0),
        ([(0, 4), (0, 4)], False, 0, 2),
        ([(0, 4), (100, 4)], True, 0, 0),
        ([(0, 9)], True, 0, 0),
        ([(0, 1), (0, 9)], False, 3, 0.5),
        ([(0, 0)], True, 4, 0),
        ([(0, 4), (0, 1), (0, 1), (0, 1), (0.5, 1)], True, 0, 0),
    ],
)
def test_a_bucket_admits_by_the_table(
    history: list[tuple[float, float]], is_admitted: bool, left: float, wait_s: float
) -> None:
    state: BucketState | None = None
    verdict = Verdict(is_admitted=True, states=(), extras=(), missed=(), wait_us=0)
    for at_s, cost in history:
        verdict = decide([state], [Draw(2, 4, cost)], 10 * MICRO + int(at_s * MICRO), LIFE)
        state = verdict.states[0]
    assert verdict.is_admitted == is_admitted
    assert verdict.states[0].tokens == pytest.approx(left)
    assert verdict.wait_us == pytest.approx(wait_s * MICRO)


def test_a_denied_request_consumes_nothing_from_any_bucket() -> None:
    verdict = decide([None, BucketState(0.5, 5)], [Draw(1, 10), Draw(1, 10)], 5, LIFE)
    assert not verdict.is_admitted
    assert [state.tokens for state in verdict.states] == [10, 0.5]


def test_the_longest_wait_of_all_buckets_counts() -> None:
    verdict = decide([BucketState(0, 0), BucketState(0, 0)], [Draw(10, 10), Draw(2, 10)], 0, LIFE)
    assert verdict.wait_us == MICRO // 2


def test_a_shadow_bucket_never_refuses_and_is_drawn_on_when_it_can() -> None:
    verdict = decide([BucketState(0.5, 0), None], [Draw(1, 1, is_shadow=True), Draw(1, 5)], 0, LIFE)
    assert verdict.is_admitted
    assert verdict.missed == (True, False)
    assert [state.tokens for state in verdict.states] == [0.5, 4]


@pytest.mark.parametrize("back_s", [1, 60, 86400])
def test_a_clock_that_went_back_neither_refills_nor_drains(back_s: int) -> None:
    later = 100_000 * MICRO
    state = refilled(BucketState(3, later), Draw(5, 10), later - back_s * MICRO, LIFE)
    assert (state.tokens, state.at) == (3, later)


def test_fractions_are_kept_over_many_small_gaps() -> None:
    state = BucketState(0, 0)
    admitted = 0
    for tick in range(1, 1001):
        verdict = decide([state], [Draw(3, 10)], tick * 10_000, LIFE)
        state = verdict.states[0]
        admitted += verdict.is_admitted
    assert admitted + state.tokens == pytest.approx(30)


def test_a_bucket_refills_only_to_what_is_not_on_lease() -> None:
    taken = decide([None], [Draw(100, 100, want=40)], 0, LIFE)
    assert taken.extras[0] == 40
    assert refilled(taken.states[0], Draw(100, 100), LIFE - 1, LIFE).tokens == 60
    assert refilled(taken.states[0], Draw(100, 100), 2 * LIFE, LIFE).tokens == 60
    assert refilled(taken.states[0], Draw(100, 100), 3 * LIFE, LIFE).tokens == 100


def test_a_lease_that_was_spent_lets_the_bucket_refill() -> None:
    taken = decide([None], [Draw(100, 100, want=40)], 0, LIFE).states[0]
    closed = refilled(taken, Draw(100, 100, closed=40, closed_epoch=0), LIFE // 2, LIFE)
    assert closed.tokens == 60
    assert refilled(closed, Draw(100, 100), LIFE - 1, LIFE).tokens == 100


@given(
    st.floats(0.5, 500),
    st.floats(1, 400),
    st.lists(st.tuples(st.integers(0, 2_000_000), st.floats(0, 300), st.floats(0, 300)), max_size=8),
    st.floats(0.1, 500),
)
def test_a_refusal_is_never_told_to_come_back_too_early(
    rate: float, burst: float, steps: list[tuple[int, float, float]], cost: float
) -> None:
    # Costs and leases as they come, then a request: at the very instant it was told to come back it gets in,
    # whatever is on lease and never given back.
    now, state = 10**12, None
    for gap, took, want in steps:
        now += gap
        state = decide([state], [Draw(rate, burst, took, want)], now, LIFE).states[0]
    refused = decide([state], [Draw(rate, burst, cost)], now, LIFE)
    if not refused.is_admitted:
        later = now + refused.wait_us + 1
        assert decide(refused.states, [Draw(rate, burst, cost)], later, LIFE).is_admitted


def test_who_needs_more_than_leases_leave_is_told_when_they_end() -> None:
    # 40 of 100 were leased in this period, 30 in the one before: 60 fit from the end of this period on, 100
    # from the end of the next.
    full = BucketState(30, LIFE + 1, 1, 40, 30)
    waits = {cost: decide([full], [Draw(1e6, 100, cost)], LIFE + 1, LIFE).wait_us for cost in (60, 100)}
    assert waits == {60: LIFE - 1 + 30, 100: 2 * LIFE - 1 + 40}


def test_a_clock_that_went_back_makes_the_wait_longer_and_not_shorter() -> None:
    state = BucketState(0, 5 * MICRO, 5)
    assert decide([state], [Draw(1, 1)], 3 * MICRO, LIFE).wait_us == 3 * MICRO


@st.composite
def _histories(draw: st.DrawFn) -> tuple[float, float, list[tuple[int, float, float]]]:
    rate = draw(st.sampled_from([0.5, 1.0, 3.0, 7.5, 200.0]))
    burst = draw(st.sampled_from([1.0, 2.5, 10.0, 50.0]))
    gaps = st.integers(-500_000, 3_000_000)
    steps = st.tuples(gaps, st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.0, 0.0, 4.0, 20.0]))
    return rate, burst, draw(st.lists(steps, min_size=1, max_size=60))


@given(_histories())
def test_no_window_ever_sees_more_than_burst_and_rate_allow(
    case: tuple[float, float, list[tuple[int, float, float]]],
) -> None:
    # Invariant: with s(a, b) spent between a and b, s(a, b) <= burst + rate * (b - a), when each lease is
    # spent as late as it may be. Steps are a gap (perhaps backwards), a cost, and a lease wanted.
    rate, burst, steps = case
    now, latest = 10**12, 0
    state: BucketState | None = None
    spent: list[tuple[int, float]] = []
    for gap, cost, want in steps:
        now += gap
        latest = max(latest, now)
        verdict = decide([state], [Draw(rate, burst, cost, want)], now, LIFE)
        state = verdict.states[0]
        if verdict.is_admitted:
            spent += [(latest, min(cost, burst)), (latest + LIFE - 1, verdict.extras[0])]
    spent.sort()
    for i, (start, _) in enumerate(spent):
        total = 0.0
        for at, amount in spent[i:]:
            total += amount
            assert total <= burst + rate * (at - start) / MICRO + 1e-6

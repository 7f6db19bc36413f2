"""Which key a request uses, and what an answer says about it: the rules as tables."""

from __future__ import annotations

import pytest

from cbk_gateway.tenancy.options import RotationOptions
from cbk_gateway.tenancy.rotation import FRESH, Event, KeyState, Which, choose, learn

OPTIONS = RotationOptions(canary_share=0.25, next_pause_s=30, current_retry_s=60, promote_after=3)
C, N, FC, FN = Which.CURRENT, Which.NEXT, Which.FALLBACK_CURRENT, Which.FALLBACK_NEXT
PASSED = Event.NEXT_PASSED
SICK = KeyState(current_refused_at=100.0)
RESTING = KeyState(next_refused_at=100.0)


@pytest.mark.parametrize(
    ("state", "has_next", "is_safe", "now", "draw", "expected"),
    [
        (FRESH, False, True, 0, 0.0, C),
        (FRESH, True, True, 0, 0.24, N),
        (FRESH, True, True, 0, 0.25, C),
        (FRESH, True, False, 0, 0.0, C),  # writes never try the next key
        (RESTING, True, True, 129, 0.0, C),
        (RESTING, True, True, 130, 0.0, N),
        (SICK, True, False, 101, 0.9, N),  # the next key stands in for a refused one, writes too
        (SICK, True, True, 159, 0.9, N),
        (SICK, True, True, 160, 0.9, C),  # due to be tried again, by a request that may be repeated
        (SICK, True, False, 160, 0.9, N),
        (SICK, False, True, 101, 0.0, C),
        (KeyState(100.0, 100.0), True, True, 101, 0.0, C),
    ],
)
def test_the_key_of_a_first_attempt(
    *, state: KeyState, has_next: bool, is_safe: bool, now: float, draw: float, expected: Which
) -> None:
    assert choose(state, OPTIONS, has_next=has_next, is_safe=is_safe, now=now, draw=draw) is expected


@pytest.mark.parametrize(
    ("before", "which", "status", "is_safe", "after", "again", "events"),
    [
        (FRESH, C, 200, True, FRESH, None, ()),
        (FRESH, C, 403, True, FRESH, None, ()),  # about the object, not about the key
        (FRESH, C, 401, True, KeyState(50.0), FN, (Event.CURRENT_REFUSED,)),
        (FRESH, C, 401, False, KeyState(50.0), None, (Event.CURRENT_REFUSED,)),
        (SICK, C, 200, True, FRESH, None, (Event.CURRENT_ACCEPTED,)),
        (SICK, C, 404, True, FRESH, None, (Event.CURRENT_ACCEPTED,)),
        (FRESH, N, 200, True, KeyState(next_passed=1), None, (PASSED,)),
        (KeyState(next_passed=2), N, 200, True, KeyState(next_passed=3), None, (PASSED, Event.NEXT_READY)),
        (KeyState(next_passed=3), N, 200, True, KeyState(next_passed=4), None, (PASSED,)),
        (RESTING, N, 200, True, KeyState(next_passed=1), None, (PASSED,)),
        (KeyState(next_passed=2), N, 401, True, KeyState(next_passed=2), FC, ()),
        (FRESH, N, 403, True, FRESH, FC, ()),
        (FRESH, N, 401, False, KeyState(None, 50.0), None, (Event.NEXT_REFUSED,)),
        (FRESH, N, 403, False, FRESH, None, ()),
        (KeyState(next_passed=2), FC, 200, True, KeyState(None, 50.0), None, (Event.NEXT_REFUSED,)),
        (FRESH, FC, 404, True, KeyState(None, 50.0), None, (Event.NEXT_REFUSED,)),
        (FRESH, FC, 403, True, FRESH, None, ()),  # both refuse: the object is foreign
        (FRESH, FC, 401, True, KeyState(50.0, 50.0), None, (Event.CURRENT_REFUSED, Event.NEXT_REFUSED)),
        (SICK, FN, 200, True, KeyState(100.0, None, 1), None, (PASSED,)),
        (SICK, FN, 401, True, KeyState(100.0, 50.0), None, (Event.NEXT_REFUSED,)),
    ],
)
def test_what_an_answer_says(
    *,
    before: KeyState,
    which: Which,
    status: int,
    is_safe: bool,
    after: KeyState,
    again: Which | None,
    events: tuple[Event, ...],
) -> None:
    outcome = learn(before, OPTIONS, which, status, has_next=True, is_safe=is_safe, now=50.0)
    assert (outcome.state, outcome.again_with, outcome.events) == (after, again, events)


@pytest.mark.parametrize("which", Which)
@pytest.mark.parametrize("before", [FRESH, SICK, RESTING], ids=["fresh", "sick", "resting"])
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_may_come_from_before_the_api_says_nothing_of_a_key(
    which: Which, before: KeyState, status: int
) -> None:
    outcome = learn(before, OPTIONS, which, status, has_next=True, is_safe=True, now=50.0)
    assert (outcome.state, outcome.again_with, outcome.events) == (before, None, ())


def test_without_a_next_key_nothing_is_tried_again() -> None:
    outcome = learn(FRESH, OPTIONS, C, 401, has_next=False, is_safe=True, now=1.0)
    assert outcome.again_with is None


@pytest.mark.parametrize("which", [FC, FN])
@pytest.mark.parametrize("status", [200, 401, 403, 500])
def test_a_second_attempt_is_the_last(which: Which, status: int) -> None:
    assert learn(FRESH, OPTIONS, which, status, has_next=True, is_safe=True, now=1.0).again_with is None

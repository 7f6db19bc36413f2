"""How an account is slowed, time moved by hand."""

from __future__ import annotations

import pytest

from cbk_gateway.upstream.pacing import Pace, sane_retry_after, whole_seconds


def test_each_429_doubles_the_gap_and_each_success_halves_it() -> None:
    pace = Pace()
    gaps = []
    for _ in range(8):
        pace.limited(0.0, None)
        gaps.append(pace.gap_s)
    assert gaps == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    for _ in range(7):
        pace.succeeded()
    assert pace.gap_s == 0.0


def test_calls_go_one_gap_apart() -> None:
    pace = Pace()
    pace.limited(10.0, None)
    assert [pace.reserve(10.0, 1.0) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])


def test_who_would_wait_too_long_takes_no_place() -> None:
    pace = Pace()
    pace.limited(10.0, 30.0)
    assert pace.reserve(10.0, 2.0) is None
    assert pace.wait_s(10.0) == pytest.approx(30.0)
    assert pace.reserve(39.0, 2.0) == pytest.approx(1.0)


def test_it_is_free_once_the_gap_is_gone() -> None:
    pace = Pace()
    pace.limited(10.0, 1.0)
    pace.succeeded()
    pace.succeeded()
    assert not pace.is_free(10.5)
    assert pace.is_free(11.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("5", 5), ("0", 1), ("-1", None), ("99999", 60), ("soon", None), ("9" * 12, None)],
)
def test_only_sane_waits_are_believed(text: str | None, seconds: float | None) -> None:
    assert sane_retry_after(text, 60) == seconds


@pytest.mark.parametrize(("seconds", "whole"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.01, 2)])
def test_waits_are_rounded_up(seconds: float, whole: int) -> None:
    assert whole_seconds(seconds) == whole

"""Estimates follow what a tenant's own calls spent."""

from __future__ import annotations

from cbk_gateway.limits.estimate import Estimates


def test_unknown_calls_are_expected_to_spend_the_first_estimate() -> None:
    assert Estimates(500).expect("t", "op") == 500


def test_steady_calls_are_expected_to_stay_so() -> None:
    estimates = Estimates(500)
    for _ in range(40):
        estimates.learn("t", "op", 100)
    assert 100 <= estimates.expect("t", "op") <= 102
    assert estimates.expect("other", "op") == 500


def test_most_of_uneven_calls_spend_less_than_expected() -> None:
    estimates, under = Estimates(500), 0
    for number in range(200):
        spent = 50 + (number * 37) % 100
        under += spent <= estimates.expect("t", "op")
        estimates.learn("t", "op", spent)
    assert under > 130

"""Forwarded requests are counted in batches, and nobody who reads can tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.telemetry import Metrics
from cbk_gateway.telemetry.forwarded import ForwardedCells
from cbk_gateway.telemetry.instruments import HistogramCell
from cbk_gateway.telemetry.snapshot import Buckets, Families

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.1)
VALUES = st.one_of(st.floats(0, 0.2), st.sampled_from(BOUNDS))


@given(st.lists(VALUES, max_size=60))
def test_many_values_at_once_are_sorted_as_one_by_one(values: list[float]) -> None:
    at_once, one_by_one = HistogramCell(BOUNDS), HistogramCell(BOUNDS)
    names = [f"r{place}" for place in range(len(values))]
    at_once.observe_all(values, names)
    for value, name in zip(values, names, strict=True):
        one_by_one.observe(value, name)
    assert at_once.counts == one_by_one.counts
    assert at_once.exemplars == one_by_one.exemplars
    assert at_once.total == pytest.approx(one_by_one.total)


def cells(metrics: Metrics, tenant: str, status: int) -> ForwardedCells:
    return metrics.forwarded.bind(
        metrics.bind_request(tenant, "bot", "list", status, "bypass"),
        metrics.upstream.bind_answers("read", status),
    )


def rounded(families: Families) -> Families:
    """Sums of the same numbers in another order differ in their last digits."""
    for series in families.values():
        for value in series.values():
            if isinstance(value, Buckets):
                value.total = round(value.total, 9)
    return families


@pytest.mark.parametrize("requests", [1, 7, 256, 700])
def test_a_batch_counts_as_if_each_had_been_counted_at_once(requests: int) -> None:
    later, at_once = Metrics(), Metrics()
    for number in range(requests):
        tenant, status = f"t{number % 3}", 404 if number % 5 == 0 else 200
        upstream_s = number % 17 / 1000
        total_s, request_id = upstream_s + number % 7 / 10_000, f"r{number}"
        later.forwarded.note(cells(later, tenant, status), total_s, upstream_s, request_id)
        at_once.request(tenant, "bot", "list", status, "bypass", total_s, upstream_s, request_id=request_id)
        at_once.upstream.answered("read", status, upstream_s, 1)
    assert rounded(later.families()) == rounded(at_once.families())
    # What was shown is not counted again.
    assert rounded(later.families()) == rounded(at_once.families())


def test_an_upstream_that_went_away_after_the_last_answer_is_not_said_to_be_there() -> None:
    metrics = Metrics()
    metrics.forwarded.note(cells(metrics, "t", 200), 0.002, 0.001, "r")
    metrics.upstream.connection_failed("connect")
    assert set(metrics.families()["cbk_gateway_upstream_reachable"].values()) == {0}


def test_metrics_that_are_switched_off_keep_nothing() -> None:
    metrics = Metrics(is_enabled=False)
    for number in range(300):
        metrics.forwarded.note(cells(metrics, "t", 200), 0.002, 0.001, f"r{number}")
    assert not any(metrics.families().values())

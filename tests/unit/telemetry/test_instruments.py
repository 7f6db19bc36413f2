"""Lean counters, gauges and histograms."""

from __future__ import annotations

import pytest

from cbk_gateway.telemetry.instruments import Counter, Gauge, Histogram
from cbk_gateway.telemetry.labels import LabelRules
from cbk_gateway.telemetry.spec import counter, gauge, histogram


def values_of(instrument: Counter | Gauge) -> dict[tuple[str, ...], float]:
    return {key: cell.value for key, cell in instrument.cells()}


def test_a_counter_adds_per_label_values() -> None:
    hits = Counter(counter("x", "hits_total", "Hits.", "tier"), LabelRules())
    hits.add(("l1",))
    hits.add(("l1",), 4)
    hits.add(("l2",))
    assert values_of(hits) == {("l1",): 5, ("l2",): 1}


def test_label_values_that_print_alike_are_one_series() -> None:
    answers = Counter(counter("x", "answers_total", "Answers.", "status"), LabelRules())
    answers.add((200,))
    answers.add(("200",))
    assert values_of(answers) == {("200",): 2}


def test_a_bound_cell_and_the_look_up_are_the_same_series() -> None:
    hits = Counter(counter("x", "hits_total", "Hits.", "tier"), LabelRules())
    cell = hits.bind("l1")
    cell.value += 1
    hits.add(("l1",))
    assert values_of(hits) == {("l1",): 2}


def test_series_with_known_labels_exist_before_anything_happens() -> None:
    outcomes = Counter(
        counter("x", "outcomes_total", "Outcomes.", "outcome", outcome=("a", "b")), LabelRules()
    )
    plain = Counter(counter("x", "events_total", "Events."), LabelRules())
    assert values_of(outcomes) == {("a",): 0, ("b",): 0}
    assert values_of(plain) == {(): 0}


def test_a_gauge_nobody_set_is_absent() -> None:
    lag = Gauge(gauge("x", "lag_seconds", "Lag."), LabelRules())
    assert values_of(lag) == {}
    lag.set(3)
    lag.add((), -1)
    assert values_of(lag) == {(): 2}


def test_a_gauge_forgets_the_series_that_are_not_kept() -> None:
    use = Gauge(gauge("x", "use_ratio", "Use.", "tenant"), LabelRules())
    use.set(0.5, ("acme",))
    use.set(0.7, ("globex",))
    use.forget(lambda key: key == ("globex",))
    use.set(0.1, ("acme",))
    assert values_of(use) == {("globex",): 0.7, ("acme",): 0.1}


@pytest.mark.parametrize(
    ("value", "place"),
    [(0.0, 0), (0.1, 0), (0.1000001, 1), (1.0, 1), (1.5, 2), (float("inf"), 2)],
)
def test_a_histogram_counts_a_value_in_the_bucket_whose_bound_includes_it(value: float, place: int) -> None:
    spread = Histogram(histogram("x", "wait_seconds", "Waits.", (0.1, 1.0)), LabelRules())
    spread.observe(value)
    [(_, cell)] = spread.cells()
    assert cell.counts == [int(place == 0), int(place == 1), int(place == 2)]
    assert cell.total == value


def test_a_histogram_keeps_the_newest_exemplar_of_each_bucket() -> None:
    spread = Histogram(histogram("x", "wait_seconds", "Waits.", (0.1, 1.0)), LabelRules())
    spread.observe(0.5, exemplar_id="first")
    spread.observe(0.6, exemplar_id="second")
    spread.observe(0.7)
    [(_, cell)] = spread.cells()
    assert cell.exemplars == [None, ("second", 0.6), None]

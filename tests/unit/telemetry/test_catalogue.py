"""The table of all metrics keeps Prometheus' naming rules, and every row has an event."""

from __future__ import annotations

import re

import pytest

from cbk_gateway.telemetry.catalogue import CATALOGUE
from cbk_gateway.telemetry.documentation import metrics_markdown, metrics_table
from cbk_gateway.telemetry.instrument_set import InstrumentSet
from cbk_gateway.telemetry.labels import LabelRules
from cbk_gateway.telemetry.metrics import Metrics
from cbk_gateway.telemetry.spec import Kind, MetricSpec

EACH = pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)


def test_no_name_occurs_twice() -> None:
    names = [spec.name for spec in CATALOGUE]
    assert len(names) == len(set(names))


@EACH
def test_names_follow_the_rules_of_prometheus(spec: MetricSpec) -> None:
    assert re.fullmatch(r"cbk_gateway_[a-z][a-z0-9_]*[a-z0-9]", spec.name)
    assert spec.name.endswith("_total") == (spec.kind is Kind.COUNTER)
    assert not spec.name.endswith(("_count", "_sum", "_bucket", "_created"))
    if spec.unit:
        assert spec.unit in spec.name.split("_")
    assert all(re.fullmatch(r"[a-z]+", label) for label in spec.labels)
    assert len(set(spec.labels)) == len(spec.labels)


@EACH
def test_each_metric_says_what_it_means_in_a_sentence(spec: MetricSpec) -> None:
    assert spec.meaning[0].isupper() or spec.meaning[0].isdigit()
    assert spec.meaning.endswith(".")
    assert "|" not in spec.meaning


@EACH
def test_buckets_ascend_and_belong_to_histograms(spec: MetricSpec) -> None:
    assert bool(spec.buckets) == (spec.kind is Kind.HISTOGRAM)
    assert list(spec.buckets) == sorted(set(spec.buckets))


@EACH
def test_known_values_are_of_labels_the_metric_has(spec: MetricSpec) -> None:
    assert set(spec.known) <= set(spec.labels)


def test_every_metric_has_an_event_that_moves_it() -> None:
    assert Metrics()._made.taken == {spec.name for spec in CATALOGUE}


def test_an_instrument_that_is_not_in_the_catalogue_is_refused() -> None:
    made = InstrumentSet(LabelRules())
    with pytest.raises(KeyError):
        made.counter("no_such_total")
    with pytest.raises(KeyError):
        made.gauge("requests_total")


def test_the_documentation_has_a_line_for_every_metric() -> None:
    lines = metrics_markdown().splitlines()
    assert len(lines) == len(CATALOGUE) + 2
    assert len({line.count(" | ") for line in lines[2:]}) == 1
    for row, spec in zip(metrics_table(), CATALOGUE, strict=True):
        assert (row.name, row.kind) == (spec.name, spec.kind.value)

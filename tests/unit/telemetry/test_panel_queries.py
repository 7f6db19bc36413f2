"""Queries read from dashboards and rules, and what an answer means for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cbk_gateway.telemetry.panel_queries import (
    NOT_FIRING,
    PanelQuery,
    Verdict,
    dashboard_queries,
    metrics_of,
    read_dashboards,
    read_rules,
    records_of,
    rule_queries,
    runnable,
    verdict,
)

DASHBOARD = {
    "title": "One",
    "panels": [
        {"title": "Heading", "type": "row"},
        {
            "title": "Two queries",
            "targets": [{"refId": "A", "expr": "up"}, {"refId": "B", "expr": "down"}],
            "fieldConfig": {"defaults": {"noValue": "none yet"}},
        },
        {"title": "One query", "targets": [{"refId": "A", "expr": "up"}], "fieldConfig": {"defaults": {}}},
    ],
}


def test_every_target_of_every_panel_is_a_query() -> None:
    assert list(dashboard_queries(DASHBOARD)) == [
        PanelQuery("One", "Two queries [A]", "up", "none yet"),
        PanelQuery("One", "Two queries [B]", "down", "none yet"),
        PanelQuery("One", "One query", "up", ""),
    ]


def test_an_alert_that_finds_nothing_does_not_fire() -> None:
    rules = {"groups": [{"rules": [{"alert": "Down", "expr": "up == 0"}, {"record": "a:b", "expr": "up"}]}]}
    alert, record = rule_queries(rules)
    assert alert == PanelQuery("alerts", "Down", "up == 0", NOT_FIRING)
    assert record.source == "records"
    assert record.empty


@pytest.mark.parametrize(
    ("expr", "asked"),
    [
        ('up{tenant=~"$tenant"}', 'up{tenant=~".*"}'),
        ('up{tenant=~"${tenant:regex}"}', 'up{tenant=~".*"}'),
        ("rate(up[$__rate_interval])", "rate(up[5m])"),
        ("rate(up[${__rate_interval}])", "rate(up[5m])"),
        ("increase(up[1h])", "increase(up[1h])"),
    ],
)
def test_variables_are_replaced_by_spans_and_by_everything(expr: str, asked: str) -> None:
    assert runnable(expr, "5m") == asked


def test_metrics_are_named_without_the_suffixes_of_histograms() -> None:
    expr = (
        "cbk_gateway_store_call_seconds_count / rate(cbk_gateway_requests_total[5m]) "
        "+ cbk_gateway_request_duration_seconds_bucket + cbk_gateway:request_errors:ratio_rate5m + up"
    )
    assert metrics_of(expr) == {
        "cbk_gateway_store_call_seconds",
        "cbk_gateway_requests_total",
        "cbk_gateway_request_duration_seconds",
    }
    assert records_of(expr) == {"cbk_gateway:request_errors:ratio_rate5m"}


def test_a_suffix_that_belongs_to_no_histogram_stays() -> None:
    assert metrics_of("cbk_gateway_no_such_count") == {"cbk_gateway_no_such_count"}


@pytest.mark.parametrize(
    ("status", "found", "empty", "expected"),
    [
        ("success", 3, "", Verdict.FOUND),
        ("success", 3, "none yet", Verdict.FOUND),
        ("success", 0, "none yet", Verdict.EMPTY),
        ("success", 0, "", Verdict.MISSING),
        ("error", 0, "none yet", Verdict.REFUSED),
    ],
)
def test_an_empty_answer_is_a_fault_unless_it_is_documented(
    status: str, found: int, empty: str, expected: Verdict
) -> None:
    assert verdict(PanelQuery("One", "Panel", "up", empty), status, found) is expected


def test_a_folder_without_dashboards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no dashboards in"):
        read_dashboards(tmp_path)


def test_a_file_without_rules_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("- a list\n")
    with pytest.raises(TypeError, match="holds no rules"):
        read_rules(tmp_path / "rules.yaml")

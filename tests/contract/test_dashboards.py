"""Dashboards, alerts and runbook agree with each other and with the metrics there are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.telemetry.catalogue import CATALOGUE
from cbk_gateway.telemetry.panel_queries import (
    dashboard_queries,
    metrics_of,
    read_dashboards,
    read_rules,
    records_of,
    rule_queries,
)

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
RUNBOOK = ROOT / "deploy" / "prometheus" / "runbook.md"
DASHBOARDS = read_dashboards(ROOT / "grafana" / "dashboards")
RULES = read_rules(ALERTS)
ALERT_RULES = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
SCHEMA_CHECK = ROOT / "grafana" / "schema-check"

each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one["uid"])
each_alert = pytest.mark.parametrize("alert", ALERT_RULES, ids=lambda one: one["alert"])
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None and "CI" not in os.environ, reason="needs promtool (Debian: prometheus)"
)


def queried_panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] not in {"row", "text"}]


def test_the_committed_dashboards_are_as_built() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "grafana.build", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_no_query_names_a_metric_that_does_not_exist() -> None:
    known = {spec.name for spec in CATALOGUE}
    queries = [query for one in DASHBOARDS for query in dashboard_queries(one)] + list(rule_queries(RULES))
    assert len(queries) > 150
    unknown = {(query.title, name) for query in queries for name in metrics_of(query.expr) - known}
    assert not unknown


def test_no_alert_names_a_record_that_is_not_made() -> None:
    made = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
    used = {name for rule in ALERT_RULES for name in records_of(rule["expr"])}
    assert used
    assert used <= made


def test_every_metric_is_shown_somewhere() -> None:
    queries = [query for one in DASHBOARDS for query in dashboard_queries(one)] + list(rule_queries(RULES))
    shown = {name for query in queries for name in metrics_of(query.expr)}
    assert shown == {spec.name for spec in CATALOGUE}


@each_dashboard
def test_queries_select_by_the_labels_their_metrics_have(dashboard: dict[str, Any]) -> None:
    labels = {spec.name: {*spec.labels, "instance", "le"} for spec in CATALOGUE}
    for query in dashboard_queries(dashboard):
        for name, selector in re.findall(r"(cbk_gateway_\w+)\{([^}]*)\}", query.expr):
            [base] = metrics_of(name)
            used = set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\"", selector))
            assert used <= labels[base], (query.title, name)
        for grouping in re.findall(r"by \(([^)]*)\)", query.expr):
            names = {name.strip() for name in grouping.split(",")}
            assert any(names <= labels[metric] for metric in metrics_of(query.expr)), query.title


@each_dashboard
def test_panels_are_made_for_people(dashboard: dict[str, Any]) -> None:
    for panel in queried_panels(dashboard):
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith("."), panel["title"]
        assert defaults["unit"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"])
        if len(panel["targets"]) > 1:
            assert all(target["legendFormat"] != "__auto" for target in panel["targets"]), panel["title"]


@each_dashboard
def test_panels_do_not_overlap_and_stay_on_the_grid(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))


@each_dashboard
def test_the_variables_a_dashboard_uses_are_the_ones_it_has(dashboard: dict[str, Any]) -> None:
    offered = {variable["name"] for variable in dashboard["templating"]["list"]}
    text = json.dumps(dashboard["panels"])
    used = {name for name in re.findall(r"\$\{?(\w+)", text) if not name.startswith("__")}
    assert used <= offered
    if dashboard["uid"] != "cbkgw-runbook":
        assert used == offered


def test_every_dashboard_can_be_found_by_tenant_resource_and_instance() -> None:
    variables = {variable["name"] for one in DASHBOARDS for variable in one["templating"]["list"]}
    assert variables == {"datasource", "tenant", "resource", "instance"}


@each_alert
def test_an_alert_leads_to_a_panel_and_the_panel_to_the_runbook(alert: dict[str, Any]) -> None:
    notes, name = alert["annotations"], alert["alert"]
    [dashboard] = [one for one in DASHBOARDS if one["uid"] == notes["dashboard"]]
    [panel] = [one for one in dashboard["panels"] if str(one["id"]) == notes["panel"]]
    [link] = [one for one in panel["links"] if one["title"] == f"Runbook: {name}"]
    uid, number = re.fullmatch(r"/d/([\w-]+)\?viewPanel=(\d+)", link["url"]).groups()  # type: ignore[union-attr]  # fails loudly
    [runbook] = [one for one in DASHBOARDS if one["uid"] == uid]
    [paragraph] = [one for one in runbook["panels"] if str(one["id"]) == number]
    assert paragraph["title"] == name
    assert notes["runbook"] == f"deploy/prometheus/runbook.md#{name.lower()}"


@each_alert
def test_an_alert_says_what_is_wrong_and_how_urgent_it_is(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"]["summary"].endswith(".")
    assert alert["annotations"]["description"]


def test_the_runbook_has_a_paragraph_for_each_alert_and_for_nothing_else() -> None:
    paragraphs = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sorted(paragraphs) == sorted(rule["alert"] for rule in ALERT_RULES)


@each_alert
def test_a_paragraph_of_the_runbook_says_where_to_look_and_what_to_do(alert: dict[str, Any]) -> None:
    text = RUNBOOK.read_text().partition(f"## {alert['alert']}\n")[2].partition("\n## ")[0]
    assert "**Look**" in text or "**Do**" in text
    assert "**Do**" in text


@each_alert
def test_every_alert_is_tried_in_the_rules_own_tests(alert: dict[str, Any]) -> None:
    tried = (ALERTS.parent / "alerts_test.yaml").read_text()
    assert f'alertname="{alert["alert"]}"' in tried


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", "alerts.yaml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "alerts_test.yaml"],
    ],
    ids=" ".join,
)
def test_promtool_accepts_the_rules(arguments: list[str]) -> None:
    run = subprocess.run(
        ["promtool", *arguments], cwd=ALERTS.parent, capture_output=True, text=True, check=False, timeout=110
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.node
@pytest.mark.skipif(
    shutil.which("npm") is None and "CI" not in os.environ,
    reason="needs Node.js 20 and npm: Grafana's schema is NOT checked",
)
def test_the_dashboards_are_valid_by_grafanas_own_schema() -> None:
    if not (SCHEMA_CHECK / "node_modules" / "typescript").is_dir():
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=SCHEMA_CHECK, capture_output=True, check=True, timeout=110)
    run = subprocess.run(
        ["node", "check.mjs"], cwd=SCHEMA_CHECK, capture_output=True, text=True, check=False, timeout=110
    )
    assert run.returncode == 0, run.stdout + run.stderr

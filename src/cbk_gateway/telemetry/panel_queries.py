"""The queries of dashboards and alert rules, read from their files, and what an answer means. Pure.

A panel whose query may rightly find nothing says so in its `noValue` text; that is its documented empty
state. An alert's is always the same: an alert that finds nothing does not fire. Asking Prometheus is the
business of `panels.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml

from cbk_gateway.telemetry.catalogue import CATALOGUE
from cbk_gateway.telemetry.spec import PREFIX, Kind

NOT_FIRING: Final = "does not fire"

_VARIABLE: Final = re.compile(r"\$(\{\w+(?::\w+)?\}|\w+)")
_METRIC: Final = re.compile(rf"\b{PREFIX}\w+")
_RECORDED: Final = re.compile(r"\bcbk_gateway:\w+(?::\w+)*")


class Verdict(StrEnum):
    """What an answer of Prometheus means for a query."""

    FOUND = "data"
    EMPTY = "empty, as documented"
    MISSING = "EMPTY"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One expression.

    Attributes:
        source: The dashboard's title, or "alerts" or "records".
        title: The panel's title or the rule's name, with the query's letter where there are several.
        expr: PromQL, with Grafana's variables.
        empty: The documented empty state, "" when there must be data.
    """

    source: str
    title: str
    expr: str
    empty: str


def dashboard_queries(dashboard: Mapping[str, Any]) -> Iterator[PanelQuery]:
    """The queries of a dashboard's panels and of its variables."""
    title = dashboard["title"]
    for panel in dashboard["panels"]:
        targets = panel.get("targets", [])
        empty = panel.get("fieldConfig", {}).get("defaults", {}).get("noValue", "")
        for target in targets:
            letter = f" [{target['refId']}]" if len(targets) > 1 else ""
            yield PanelQuery(title, panel["title"] + letter, target["expr"], empty)


def rule_queries(rules: Mapping[str, Any]) -> Iterator[PanelQuery]:
    """The expressions of alert and recording rules."""
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                yield PanelQuery("alerts", rule["alert"], rule["expr"], NOT_FIRING)
            else:
                yield PanelQuery("records", rule["record"], rule["expr"], "no traffic in its window")


def read_dashboards(directory: Path) -> list[dict[str, Any]]:
    """The dashboards of a folder, by file name.

    Raises:
        FileNotFoundError: There is none.
    """
    paths = sorted(directory.glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"no dashboards in {directory}")
    return [json.loads(path.read_text()) for path in paths]


def read_rules(path: Path) -> dict[str, Any]:
    """The rules of a file."""
    rules = yaml.safe_load(path.read_text())
    if not isinstance(rules, dict):
        raise TypeError(f"{path} holds no rules")
    return rules


def runnable(expr: str, window: str) -> str:
    """The expression with Grafana's variables replaced: spans of time by `window`, choices by everything."""

    def value(found: re.Match[str]) -> str:
        name = found[1].strip("{}").partition(":")[0]
        return window if name.startswith("__") else ".*"

    return _VARIABLE.sub(value, expr)


def metrics_of(expr: str) -> set[str]:
    """The gateway's metrics an expression names, without the suffixes of histograms."""
    return {_base_name(name) for name in _METRIC.findall(expr)}


def records_of(expr: str) -> set[str]:
    """The recorded series an expression names."""
    return set(_RECORDED.findall(expr))


def _base_name(name: str) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base != name and base in _HISTOGRAMS:
            return base
    return name


_HISTOGRAMS: Final = {spec.name for spec in CATALOGUE if spec.kind is Kind.HISTOGRAM}


def verdict(query: PanelQuery, status: str, found: int) -> Verdict:
    """What it means that Prometheus answered with `status` and this many series."""
    if status != "success":
        return Verdict.REFUSED
    if found:
        return Verdict.FOUND
    return Verdict.EMPTY if query.empty else Verdict.MISSING

"""The pieces dashboards are made of: queries, panels, variables and the grid.

What a panel shows is decided in the modules of the dashboards; how it looks is decided here, so that all
of them look alike. The JSON is Grafana's dashboard schema, version 39 (Grafana 11 and later).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

JSON = dict[str, Any]

DATASOURCE: Final[JSON] = {"type": "prometheus", "uid": "${datasource}"}
RUNBOOK_UID: Final = "cbkgw-runbook"
SCHEMA_VERSION: Final = 39
COLUMNS: Final = 24

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are called."""

    expr: str
    legend: str = ""
    is_instant: bool = False

    def target(self, place: int, *, is_table: bool) -> JSON:
        """The query as a panel's target."""
        return {
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": self.expr,
            "format": "table" if is_table else "time_series",
            "instant": self.is_instant or is_table,
            "legendFormat": self.legend or "__auto",
            "range": not (self.is_instant or is_table),
            "refId": chr(ord("A") + place),
        }


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        kind: timeseries, stat, table, bargauge, row or text.
        title: What it shows, as a noun.
        description: What it means and when to worry.
        queries: What is drawn.
        unit: Grafana's name of the unit.
        empty: What the panel says when there is no data, and that this is no fault. A panel without it
            must always have data.
        steps: Thresholds: pairs of a lower bound (None for the lowest) and a colour.
        alerts: Alerts that point here; each gets a link to its paragraph of the runbook.
        width, height: In cells of the grid.
        is_stacked: Draw series upon one another.
        top: Largest value of the axis, None for as needed.
        columns: For tables: label or value column, and what to call it.
        content: For texts: Markdown.
        words: For stats: value and the word shown instead of it.
    """

    kind: str
    title: str
    description: str = ""
    queries: tuple[Query, ...] = ()
    unit: str = "short"
    empty: str = ""
    steps: tuple[tuple[float | None, str], ...] = ((None, GREEN),)
    alerts: tuple[str, ...] = ()
    width: int = 8
    height: int = 8
    is_stacked: bool = False
    top: float | None = None
    columns: tuple[tuple[str, str], ...] = ()
    content: str = ""
    words: tuple[tuple[str, str, str], ...] = field(default_factory=tuple)

    def document(self, number: int, x: int, y: int, runbook: dict[str, int]) -> JSON:
        """The panel as JSON. `runbook` gives the panel of the runbook for each alert."""
        grid = {"h": self.height, "w": self.width, "x": x, "y": y}
        if self.kind == "row":
            return {
                "collapsed": False,
                "gridPos": grid,
                "id": number,
                "panels": [],
                "title": self.title,
                "type": "row",
            }
        document: JSON = {
            "description": self.description,
            "gridPos": grid,
            "id": number,
            "options": self._options(),
            "title": self.title,
            "type": self.kind,
        }
        if self.kind == "text":
            return document
        document["datasource"] = DATASOURCE
        document["fieldConfig"] = {"defaults": self._defaults(), "overrides": []}
        document["targets"] = [
            query.target(place, is_table=self.kind == "table") for place, query in enumerate(self.queries)
        ]
        if self.alerts:
            document["links"] = [
                _link("link", f"Runbook: {alert}", f"/d/{RUNBOOK_UID}?viewPanel={runbook[alert]}")
                for alert in self.alerts
            ]
        if self.kind == "table":
            document["transformations"] = self._transformations()
        return document

    def _defaults(self) -> JSON:
        defaults: JSON = {
            "color": {"mode": "palette-classic" if self.kind == "timeseries" else "thresholds"},
            "thresholds": {
                "mode": "absolute",
                "steps": [{"color": colour, "value": bound} for bound, colour in self.steps],
            },
            "unit": self.unit,
        }
        if self.empty:
            defaults["noValue"] = self.empty
        if self.unit not in {"dateTimeFromNow", "celsius"}:
            defaults["min"] = 0
        if self.top is not None:
            defaults["max"] = self.top
        if self.words:
            defaults["mappings"] = [
                {
                    "options": {
                        value: {"color": colour, "index": place, "text": text}
                        for place, (value, text, colour) in enumerate(self.words)
                    },
                    "type": "value",
                }
            ]
        if self.kind == "timeseries":
            defaults["custom"] = {
                "drawStyle": "line",
                "fillOpacity": 30 if self.is_stacked else 8,
                "lineWidth": 1,
                "showPoints": "never",
                "spanNulls": False,
                "stacking": {"group": "A", "mode": "normal" if self.is_stacked else "none"},
                "thresholdsStyle": {"mode": "dashed" if len(self.steps) > 1 else "off"},
            }
        return defaults

    def _options(self) -> JSON:
        reduce: JSON = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        match self.kind:
            case "timeseries":
                return {
                    "legend": {
                        "calcs": ["lastNotNull", "max"],
                        "displayMode": "table",
                        "placement": "bottom",
                        "showLegend": True,
                    },
                    "tooltip": {"mode": "multi", "sort": "desc"},
                }
            case "stat":
                return {
                    "colorMode": "background" if self.words else "value",
                    "graphMode": "none" if self.words else "area",
                    "justifyMode": "auto",
                    "orientation": "auto",
                    "reduceOptions": reduce,
                    "textMode": "auto",
                    "wideLayout": True,
                }
            case "bargauge":
                return {
                    "displayMode": "gradient",
                    "minVizHeight": 12,
                    "minVizWidth": 8,
                    "orientation": "horizontal",
                    "reduceOptions": reduce,
                    "showUnfilled": True,
                    "valueMode": "color",
                }
            case "text":
                return {"content": self.content, "mode": "markdown"}
            case _:
                return {"showHeader": True, "sortBy": [{"desc": True, "displayName": self.columns[-1][1]}]}

    def _transformations(self) -> list[JSON]:
        names = dict(self.columns)
        return [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": {name: place for place, name in enumerate(names)},
                    "renameByName": names,
                },
            },
        ]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard: the values of `label` of `metric`."""

    name: str
    label: str
    metric: str

    def document(self) -> JSON:
        """The variable as JSON: several may be chosen, all are at first."""
        return {
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            "datasource": DATASOURCE,
            "hide": 0,
            "includeAll": True,
            "label": self.name.capitalize(),
            "multi": True,
            "name": self.name,
            "query": {"query": f"label_values({self.metric}, {self.label})", "refId": self.name},
            "refresh": 2,
            "regex": "",
            "sort": 1,
            "type": "query",
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard: its panels are laid out from left to right, row by row, in their order."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]
    variables: tuple[Variable, ...] = ()

    def document(self, runbook: dict[str, int]) -> JSON:
        """The dashboard as JSON."""
        return {
            "annotations": {"list": []},
            "description": self.description,
            "editable": True,
            "fiscalYearStartMonth": 0,
            "graphTooltip": 1,
            "links": [_link("dashboards", "", "")],
            "panels": self._laid_out(runbook),
            "refresh": "30s",
            "schemaVersion": SCHEMA_VERSION,
            "tags": ["cbk-gateway"],
            "templating": {"list": [_DATASOURCE_VARIABLE, *(one.document() for one in self.variables)]},
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "title": self.title,
            "uid": self.uid,
            "version": 1,
        }

    def _laid_out(self, runbook: dict[str, int]) -> list[JSON]:
        laid_out, x, y, line_height = [], 0, 0, 0
        for number, panel in enumerate(self.panels, start=1):
            if x + panel.width > COLUMNS:
                x, y, line_height = 0, y + line_height, 0
            laid_out.append(panel.document(number, x, y, runbook))
            x += panel.width
            line_height = max(line_height, panel.height)
        return laid_out


def _link(kind: str, title: str, url: str) -> JSON:
    """A link to the other dashboards of the gateway, or to one place."""
    return {
        "asDropdown": False,
        "icon": "external link",
        "includeVars": kind == "dashboards",
        "keepTime": kind == "dashboards",
        "tags": ["cbk-gateway"] if kind == "dashboards" else [],
        "targetBlank": kind != "dashboards",
        "title": title,
        "tooltip": "",
        "type": kind,
        "url": url,
    }


def row(title: str) -> Panel:
    """A heading over the panels that follow."""
    return Panel("row", title, width=COLUMNS, height=1)


def quantiles(
    metric: str, selector: str, by: str = "", shares: tuple[float, ...] = (0.5, 0.99)
) -> tuple[Query, ...]:
    """The quantiles of a histogram over the rate interval, one query each, by one label at most."""
    grouping = f"le, {by}" if by else "le"
    named = f" {{{{{by}}}}}" if by else ""
    rates = f"sum by ({grouping}) (rate({metric}_bucket{selector}[$__rate_interval]))"
    return tuple(
        Query(f"histogram_quantile({share}, {rates})", f"p{share * 100:g}{named}") for share in shares
    )


_DATASOURCE_VARIABLE: Final[JSON] = {
    "current": {"selected": False, "text": "default", "value": "default"},
    "hide": 0,
    "includeAll": False,
    "label": "Data source",
    "multi": False,
    "name": "datasource",
    "query": "prometheus",
    "refresh": 1,
    "regex": "",
    "type": "datasource",
}

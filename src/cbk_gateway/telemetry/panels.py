"""`python -m cbk_gateway.telemetry.panels`: asks Prometheus every query of the dashboards and alerts.

Prints what each panel would show, and exits with 1 when a query is refused, or finds nothing where its
panel has no documented empty state. Reads only; no gateway is needed, Prometheus must have scraped one.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cbk_gateway.telemetry.panel_queries import (
    NOT_FIRING,
    PanelQuery,
    Verdict,
    dashboard_queries,
    read_dashboards,
    read_rules,
    rule_queries,
    runnable,
    verdict,
)

_SERIES_SHOWN: Final = 4
_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What a query shows.

    Attributes:
        query: The query.
        verdict: What the answer means.
        lines: A line per series, or Prometheus' complaint.
    """

    query: PanelQuery
    verdict: Verdict
    lines: tuple[str, ...]

    @property
    def is_fault(self) -> bool:
        """Whether somebody has to mend something."""
        return self.verdict in {Verdict.MISSING, Verdict.REFUSED}


def ask(prometheus: str, expr: str) -> dict[str, Any]:
    """The answer of Prometheus' HTTP API to an instant query; refusals are answers too.

    Raises:
        OSError: Prometheus cannot be reached, or what answers is not Prometheus.
    """
    form = urllib.parse.urlencode({"query": expr}).encode()
    request = urllib.request.Request(f"{prometheus.rstrip('/')}/api/v1/query", data=form)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310 - checked in main
            body = response.read()
    except urllib.error.HTTPError as refusal:
        with refusal:
            body = refusal.read()
    try:
        answer = json.loads(body)
    except ValueError:
        raise OSError(f"what answers at {prometheus} is not Prometheus") from None
    if not isinstance(answer, dict):
        raise OSError(f"what answers at {prometheus} is not Prometheus")
    return answer


def show(prometheus: str, query: PanelQuery, window: str) -> Shown:
    """Ask one query."""
    answer = ask(prometheus, runnable(query.expr, window))
    series = answer.get("data", {}).get("result", [])
    # A quotient of nothing by nothing is NaN, which Grafana shows as no value.
    values = [one for one in series if not math.isnan(float(one["value"][1]))]
    found = verdict(query, answer.get("status", ""), len(values))
    match found:
        case Verdict.REFUSED:
            lines: tuple[str, ...] = (str(answer.get("error", "no reason given")),)
        case Verdict.FOUND:
            lines = tuple(_line(one) for one in values)
        case _:
            lines = (query.empty,) if query.empty else ()
    return Shown(query, found, lines)


def _line(series: dict[str, Any]) -> str:
    labels = ", ".join(
        f"{name}={value}" for name, value in sorted(series["metric"].items()) if name != "__name__"
    )
    return f"{float(series['value'][1]):.6g}" + (f"  {labels}" if labels else "")


def queries_of(dashboards: Path, rules: Path) -> list[PanelQuery]:
    """All queries: dashboards first, then rules."""
    found = [query for one in read_dashboards(dashboards) for query in dashboard_queries(one)]
    return [*found, *rule_queries(read_rules(rules))]


def report(results: Iterable[Shown]) -> list[str]:
    """The results as lines for people."""
    lines: list[str] = []
    source = ""
    for shown in results:
        if shown.query.source != source:
            source = shown.query.source
            lines += ["", source, "=" * len(source)]
        is_firing = shown.query.empty == NOT_FIRING and shown.verdict is Verdict.FOUND
        word = "FIRES" if is_firing else shown.verdict.value
        lines.append(f"{shown.query.title}: {word}")
        lines += [f"    {line}" for line in shown.lines[:_SERIES_SHOWN]]
        if len(shown.lines) > _SERIES_SHOWN:
            lines.append(f"    and {len(shown.lines) - _SERIES_SHOWN} more")
    return lines[1:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m cbk_gateway.telemetry.panels",
        description="Print what every panel and alert finds in a running Prometheus.",
        epilog="Example: python -m cbk_gateway.telemetry.panels --prometheus http://127.0.0.1:9091",
    )
    parser.add_argument("--prometheus", required=True, metavar="URL", help="address of Prometheus")
    parser.add_argument("--dashboards", type=Path, default=Path("grafana/dashboards"), metavar="FOLDER")
    parser.add_argument("--rules", type=Path, default=Path("deploy/prometheus/alerts.yaml"), metavar="FILE")
    parser.add_argument("--window", default="1m", help="span of time of rates (default %(default)s)")
    options = parser.parse_args(arguments)
    if not options.prometheus.startswith(("http://", "https://")):
        parser.error("--prometheus takes a URL that begins with http:// or https://")
    try:
        queries = queries_of(options.dashboards, options.rules)
        results = [show(options.prometheus, query, options.window) for query in queries]
    except OSError as fault:
        sys.stderr.write(f"{fault}\n")
        return 3
    faults = sum(shown.is_fault for shown in results)
    sys.stdout.write("\n".join([*report(results), "", f"{len(results)} queries, {faults} at fault"]) + "\n")
    return int(faults > 0)


if __name__ == "__main__":
    raise SystemExit(main())

"""The table of all metrics, for people: made from the catalogue, written into the README."""

from __future__ import annotations

from dataclasses import dataclass

from cbk_gateway.telemetry.catalogue import CATALOGUE
from cbk_gateway.telemetry.spec import Kind, MetricSpec


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One line of the table; all fields are texts for print."""

    area: str
    name: str
    kind: str
    labels: str
    unit: str
    workers: str
    meaning: str


def metrics_table() -> list[MetricRow]:
    """One row per metric, in the catalogue's order."""
    return [_row(spec) for spec in CATALOGUE]


def _row(spec: MetricSpec) -> MetricRow:
    workers = spec.merge.value if spec.kind is Kind.GAUGE else "sum"
    return MetricRow(
        spec.area, spec.name, spec.kind.value, ", ".join(spec.labels), spec.unit, workers, spec.meaning
    )


def metrics_markdown() -> str:
    """The table in Markdown. The column "workers" says how several workers become one number."""
    lines = ["| metric | kind | labels | unit | workers | meaning |", "| --- | --- | --- | --- | --- | --- |"]
    for row in metrics_table():
        cells = (f"`{row.name}`", row.kind, row.labels or "-", row.unit or "-", row.workers, row.meaning)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"

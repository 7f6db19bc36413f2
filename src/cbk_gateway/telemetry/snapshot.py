"""All series of one process at one moment, as a value: to send to a supervisor, to add up, to expose.

A snapshot carries the *incarnation* of the process that took it, so that whoever adds them up can tell a
worker that was started again (its counters begin at 0) from the same worker a moment later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import orjson

from cbk_gateway.telemetry.instruments import Exemplar, HistogramCell, Instrument, ValueCell
from cbk_gateway.telemetry.spec import Kind, Merge, MetricSpec

_VERSION: Final = 1
_BROKEN: Final = "not a metrics snapshot: a histogram is counts, total and exemplars"

SeriesKey: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
"""Label names and label values of a series."""


@dataclass(slots=True)
class Buckets:
    """A histogram's numbers. `counts` is not cumulated and ends with the place for infinity."""

    counts: list[int]
    total: float
    exemplars: list[Exemplar | None] = field(default_factory=list)

    def add(self, other: Buckets) -> None:
        """Add another's numbers; its exemplars win, as the newer ones."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total
        self.exemplars = [
            theirs or mine for mine, theirs in zip(self.exemplars, other.exemplars, strict=True)
        ]

    def copy(self) -> Buckets:
        """An independent copy."""
        return Buckets(list(self.counts), self.total, list(self.exemplars))


Series: TypeAlias = dict[SeriesKey, float | Buckets]
Families: TypeAlias = dict[str, Series]
"""Series by full metric name."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The series of one process.

    Attributes:
        worker: Its name, which a successor in its place bears too.
        incarnation: Its own name, which no other process ever bears.
        families: Its series.
    """

    worker: str
    incarnation: str
    families: Families

    def encode(self) -> bytes:
        """JSON, for a pipe or a socket between processes."""
        families = {
            name: [
                [
                    names,
                    values,
                    [value.counts, value.total, value.exemplars] if isinstance(value, Buckets) else value,
                ]
                for (names, values), value in series.items()
            ]
            for name, series in self.families.items()
        }
        return orjson.dumps(
            {
                "version": _VERSION,
                "worker": self.worker,
                "incarnation": self.incarnation,
                "families": families,
            }
        )

    @classmethod
    def decode(cls, encoded: bytes) -> Snapshot:
        """The snapshot that `encode` wrote.

        Raises:
            ValueError: Not a snapshot, or one of another version.
        """
        document = orjson.loads(encoded)
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            raise ValueError("not a metrics snapshot of this version")
        families: Families = {}
        for name, rows in document["families"].items():
            series = families[name] = {}
            for names, values, value in rows:
                series[(tuple(names), tuple(values))] = _decode_value(value)
        return cls(document["worker"], document["incarnation"], families)


def _decode_value(value: float | list[object]) -> float | Buckets:
    if not isinstance(value, list):
        return value
    counts, total, exemplars = value
    if not (isinstance(counts, list) and isinstance(total, float | int) and isinstance(exemplars, list)):
        raise ValueError(_BROKEN)  # noqa: TRY004 - to callers it is bad input like any other
    return Buckets(counts, total, [None if pair is None else (pair[0], pair[1]) for pair in exemplars])


def take(instruments: Iterable[Instrument[ValueCell] | Instrument[HistogramCell]]) -> Families:
    """The families of these instruments now."""
    families: Families = {}
    for instrument in instruments:
        names = instrument.label_names
        series: Series = {}
        for values, cell in instrument.cells():
            if isinstance(cell, HistogramCell):
                series[(names, values)] = Buckets(list(cell.counts), cell.total, list(cell.exemplars))
            else:
                series[(names, values)] = cell.value
        families[instrument.spec.name] = series
    return families


def add_up(into: Families, more: Families, specs: dict[str, MetricSpec]) -> None:
    """Add the series of `more` to `into`, each by the rule of its spec; unknown names are left out.

    A name is unknown when a worker of another version reports it during a rolling upgrade.
    """
    for name, series in more.items():
        spec = specs.get(name)
        if spec is None:
            continue
        target = into.setdefault(name, {})
        for key, value in series.items():
            target[key] = _joined(spec, target.get(key), value)


def _joined(spec: MetricSpec, mine: float | Buckets | None, theirs: float | Buckets) -> float | Buckets:
    if isinstance(theirs, Buckets):
        if not isinstance(mine, Buckets) or len(mine.counts) != len(theirs.counts):
            return theirs.copy()
        mine.add(theirs)
        return mine
    if mine is None or isinstance(mine, Buckets):
        return theirs
    if spec.kind is Kind.GAUGE and spec.merge is not Merge.SUM:
        return max(mine, theirs) if spec.merge is Merge.MAX else min(mine, theirs)
    return mine + theirs


def lasting(families: Families, specs: dict[str, MetricSpec]) -> Families:
    """What remains of a process that has ended: its counters and histograms, not its gauges."""
    return {
        name: {key: value.copy() if isinstance(value, Buckets) else value for key, value in series.items()}
        for name, series in families.items()
        if name in specs and specs[name].kind is not Kind.GAUGE
    }

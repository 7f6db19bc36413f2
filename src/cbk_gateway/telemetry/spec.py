"""What one metric is: a row of the catalogue.

Values only. The rows themselves stand in `catalogue.py`; counting is `instruments.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from types import MappingProxyType
from typing import Final

PREFIX: Final = "cbk_gateway_"
"""Every metric of the gateway starts with this."""

_NO_VALUES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})


class Kind(StrEnum):
    """The three kinds of metric in use, in Prometheus' words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """How the gauges of several workers become one number. Counters and histograms are always summed."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: Full name, with `PREFIX` and the unit as Prometheus' naming rules ask.
        kind: Counter, gauge or histogram.
        area: The part of the gateway it speaks of; groups the documentation.
        meaning: One sentence for people.
        labels: Label names in the order in which instruments take their values.
        unit: "seconds", "bytes", "ratio", or "" for plain numbers.
        known: Label values that are known beforehand; when they are for every label, all series exist
            from the start with the value 0, so that the first event already shows in a rate.
        buckets: Upper bounds of a histogram, ascending, without infinity.
        merge: How the gauges of workers are put together.
    """

    name: str
    kind: Kind
    area: str
    meaning: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    known: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_VALUES)
    buckets: tuple[float, ...] = ()
    merge: Merge = Merge.SUM

    def first_series(self) -> list[tuple[str, ...]]:
        """Label values of the series which exist before anything happened."""
        if any(label not in self.known for label in self.labels):
            return []
        if self.kind is Kind.GAUGE and not self.labels:
            return []  # an unset gauge is absent: 0 would be a claim
        return list(product(*(self.known[label] for label in self.labels)))


def counter(area: str, name: str, meaning: str, *labels: str, **known: tuple[str, ...]) -> MetricSpec:
    """A row for a counter. `known` gives the values of labels that are known beforehand."""
    unit = "bytes" if "_bytes_" in name else "seconds" if "_seconds_" in name else ""
    return MetricSpec(PREFIX + name, Kind.COUNTER, area, meaning, labels, unit, known)


def gauge(
    area: str,
    name: str,
    meaning: str,
    *labels: str,
    merge: Merge = Merge.SUM,
    **known: tuple[str, ...],
) -> MetricSpec:
    """A row for a gauge; `merge` says how workers add up."""
    unit = next((word for word in ("seconds", "bytes", "ratio") if name.endswith("_" + word)), "")
    return MetricSpec(PREFIX + name, Kind.GAUGE, area, meaning, labels, unit, known, (), merge)


def histogram(
    area: str,
    name: str,
    meaning: str,
    buckets: tuple[float, ...],
    *labels: str,
    **known: tuple[str, ...],
) -> MetricSpec:
    """A row for a histogram."""
    unit = next((word for word in ("seconds", "bytes") if name.endswith("_" + word)), "")
    return MetricSpec(PREFIX + name, Kind.HISTOGRAM, area, meaning, labels, unit, known, buckets)

"""Instruments that keep nothing, for a gateway whose metrics are switched off.

They have the shapes of `instruments.py`, so that callers need not know; every event costs one empty call.
"""

from __future__ import annotations

from collections.abc import Sequence

from cbk_gateway.telemetry.instruments import Counter, Gauge, Histogram, HistogramCell, ValueCell
from cbk_gateway.telemetry.labels import LabelRules
from cbk_gateway.telemetry.spec import MetricSpec


class SilentHistogramCell(HistogramCell):
    """Counts nothing."""

    __slots__ = ()

    def observe(self, value: float, exemplar_id: str | None = None) -> None:
        """Nothing."""

    def observe_all(self, values: Sequence[float], exemplar_ids: Sequence[str] | None = None) -> None:
        """Nothing."""

    def observe_first(self, count: int, total: float, exemplar_id: str | None = None) -> None:
        """Nothing."""


class SilentCounter(Counter):
    """Counts nothing, and has no series."""

    __slots__ = ()

    def bind(self, *values: object) -> ValueCell:
        """A cell that nobody reads."""
        del values
        return ValueCell()

    def add(self, values: tuple[object, ...] = (), amount: float = 1) -> None:
        """Nothing."""


class SilentGauge(Gauge):
    """Holds nothing, and has no series."""

    __slots__ = ()

    def bind(self, *values: object) -> ValueCell:
        """A cell that nobody reads."""
        del values
        return ValueCell()

    def set(self, value: float, values: tuple[object, ...] = ()) -> None:
        """Nothing."""

    def add(self, values: tuple[object, ...] = (), amount: float = 1) -> None:
        """Nothing."""


class SilentHistogram(Histogram):
    """Spreads nothing, and has no series."""

    __slots__ = ("_cell",)

    def __init__(self, spec: MetricSpec, rules: LabelRules) -> None:
        self._cell = SilentHistogramCell(spec.buckets)
        super().__init__(spec, rules)

    def bind(self, *values: object) -> HistogramCell:
        """A cell that nobody reads."""
        del values
        return self._cell

    def observe(self, value: float, values: tuple[object, ...] = (), exemplar_id: str | None = None) -> None:
        """Nothing."""

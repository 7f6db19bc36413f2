"""Lean counters, gauges and histograms: one dictionary look-up and one addition per event.

A series is a *cell*. Callers on the hot path bind a cell once and keep it; others give the label values as
a tuple, which finds the cell in one look-up. Nothing here takes a lock, so each instrument may be written
by one thread only; reading copies each table in one step and may happen anywhere.

Exposition and merging stand in `snapshot.py` and `exposition.py`.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Sequence
from typing import Final, Generic, TypeVar

from cbk_gateway.telemetry.labels import NOBODY, OTHER, LabelRules
from cbk_gateway.telemetry.spec import MetricSpec

_MOST_BINDINGS: Final = 65_536
"""Label tuples remembered per instrument; beyond it they are looked up afresh, so memory is bounded."""

_FEW: Final = 8
"""Fewer values than this are counted one by one."""

Exemplar = tuple[str, float]
"""A request id and the value it was seen with."""


class ValueCell:
    """One series of a counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class HistogramCell:
    """One series of a histogram. `counts` has one place per bound and one for infinity, not cumulated."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: list[Exemplar | None] = [None] * (len(bounds) + 1)

    def observe(self, value: float, exemplar_id: str | None = None) -> None:
        """Count one value; bounds are inclusive, as `le` says."""
        place = bisect_left(self.bounds, value)
        self.counts[place] += 1
        self.total += value
        if exemplar_id is not None:
            self.exemplars[place] = (exemplar_id, value)

    def observe_all(self, values: Sequence[float], exemplar_ids: Sequence[str] | None = None) -> None:
        """Count several values, the newest last, as `observe` would one after the other."""
        if len(values) < _FEW:
            for place, value in enumerate(values):
                self.observe(value, exemplar_ids[place] if exemplar_ids is not None else None)
            return
        ordered, newest_first, below = sorted(values), values[::-1], 0
        for place, bound in enumerate((*self.bounds, math.inf)):
            upto = bisect_right(ordered, bound, below)
            if upto > below:
                self.counts[place] += upto - below
                if exemplar_ids is not None:
                    newest = _place_of_first(ordered[below:upto], newest_first)
                    self.exemplars[place] = (exemplar_ids[-1 - newest], newest_first[newest])
                below = upto
        self.total += sum(ordered)

    def observe_first(self, count: int, total: float, exemplar_id: str | None = None) -> None:
        """Count values that all lie in the first bucket, `total` being their sum."""
        self.counts[0] += count
        self.total += total
        if exemplar_id is not None:
            self.exemplars[0] = (exemplar_id, total / count)


def _place_of_first(some: Sequence[float], values: Sequence[float]) -> int:
    """Where the first of some of the values stands: of those, in order, between two bounds."""
    if len(some) < _FEW:
        return min(map(values.index, some))
    least, most = some[0], some[-1]
    return next(place for place, value in enumerate(values) if least <= value <= most)


Cell = TypeVar("Cell", ValueCell, HistogramCell)


class Instrument(Generic[Cell]):
    """A metric: its cells by label values.

    Args:
        spec: Its row of the catalogue.
        rules: The bound on label values.
        make: Makes an empty cell.
    """

    __slots__ = ("_bound", "_cells", "_make", "_rules", "label_names", "spec")

    def __init__(self, spec: MetricSpec, rules: LabelRules, make: Callable[[], Cell]) -> None:
        self.spec = spec
        self.label_names = rules.shown(spec.labels)
        self._rules = rules
        self._make: Callable[[], Cell] = make
        self._cells: dict[tuple[str, ...], Cell] = {}
        self._bound: dict[tuple[object, ...], Cell] = {}
        for series in spec.first_series():
            self.bind(*series)

    def bind(self, *values: object) -> Cell:
        """The cell for these label values, one per label of the spec, in its order."""
        key = self._rules.admit_all(self.spec.labels, values)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = self._make()
        if len(self._bound) >= _MOST_BINDINGS:
            self._bound.clear()
        self._bound[values] = cell
        return cell

    def cells(self) -> list[tuple[tuple[str, ...], Cell]]:
        """The series that exist, copied in one step."""
        return list(self._cells.items())


class Counter(Instrument[ValueCell]):
    """A number that only grows."""

    __slots__ = ()

    def __init__(self, spec: MetricSpec, rules: LabelRules) -> None:
        super().__init__(spec, rules, ValueCell)

    def add(self, values: tuple[object, ...] = (), amount: float = 1) -> None:
        """Count `amount` (not negative) for these label values."""
        cell = self._bound.get(values)
        if cell is None:
            cell = self.bind(*values)
        cell.value += amount


class Gauge(Instrument[ValueCell]):
    """A number that is what it is now."""

    __slots__ = ()

    def __init__(self, spec: MetricSpec, rules: LabelRules) -> None:
        super().__init__(spec, rules, ValueCell)

    def set(self, value: float, values: tuple[object, ...] = ()) -> None:
        """Set the number for these label values."""
        cell = self._bound.get(values)
        if cell is None:
            cell = self.bind(*values)
        cell.value = value

    def add(self, values: tuple[object, ...] = (), amount: float = 1) -> None:
        """Move the number by `amount`, which may be negative."""
        cell = self._bound.get(values)
        if cell is None:
            cell = self.bind(*values)
        cell.value += amount

    def forget(self, keep: Callable[[tuple[str, ...]], bool]) -> None:
        """Drop the series whose label values `keep` does not want, such as those of a tenant that left."""
        self._cells = {key: cell for key, cell in self._cells.items() if keep(key)}
        self._bound.clear()

    def forget_tenants(self, kept: Container[str]) -> None:
        """Drop the series of tenants that are not among `kept`; without that label nothing is dropped."""
        if "tenant" in self.label_names:
            place = self.label_names.index("tenant")
            self.forget(lambda values: values[place] in kept or values[place] in {OTHER, NOBODY})


class Histogram(Instrument[HistogramCell]):
    """How values are spread over buckets."""

    __slots__ = ()

    def __init__(self, spec: MetricSpec, rules: LabelRules) -> None:
        super().__init__(spec, rules, lambda: HistogramCell(spec.buckets))

    def observe(self, value: float, values: tuple[object, ...] = (), exemplar_id: str | None = None) -> None:
        """Count one value for these label values."""
        cell = self._bound.get(values)
        if cell is None:
            cell = self.bind(*values)
        cell.observe(value, exemplar_id)

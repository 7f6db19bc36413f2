"""The instruments of one process, made from the catalogue and found by name once, at start."""

from __future__ import annotations

from cbk_gateway.telemetry.catalogue import CATALOGUE
from cbk_gateway.telemetry.instruments import Counter, Gauge, Histogram
from cbk_gateway.telemetry.labels import LabelRules
from cbk_gateway.telemetry.silent import SilentCounter, SilentGauge, SilentHistogram
from cbk_gateway.telemetry.snapshot import Families, take
from cbk_gateway.telemetry.spec import PREFIX, Kind


class InstrumentSet:
    """One instrument per row of the catalogue.

    Names are given without the common prefix. A name that is not in the catalogue, or is of another kind,
    is a defect and raises KeyError where the instrument is asked for, which is at start.

    Args:
        rules: The bound on label values.
        is_silent: Whether nothing is to be kept.
    """

    def __init__(self, rules: LabelRules, *, is_silent: bool = False) -> None:
        counter, gauge, histogram = (
            (SilentCounter, SilentGauge, SilentHistogram) if is_silent else (Counter, Gauge, Histogram)
        )
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self.taken: set[str] = set()
        for spec in CATALOGUE:
            match spec.kind:
                case Kind.COUNTER:
                    self._counters[spec.name] = counter(spec, rules)
                case Kind.GAUGE:
                    self._gauges[spec.name] = gauge(spec, rules)
                case Kind.HISTOGRAM:
                    self._histograms[spec.name] = histogram(spec, rules)

    def counter(self, name: str) -> Counter:
        """The counter of this name."""
        self.taken.add(PREFIX + name)
        return self._counters[PREFIX + name]

    def gauge(self, name: str) -> Gauge:
        """The gauge of this name."""
        self.taken.add(PREFIX + name)
        return self._gauges[PREFIX + name]

    def histogram(self, name: str) -> Histogram:
        """The histogram of this name."""
        self.taken.add(PREFIX + name)
        return self._histograms[PREFIX + name]

    def families(self) -> Families:
        """All series now."""
        return take([*self._counters.values(), *self._gauges.values(), *self._histograms.values()])

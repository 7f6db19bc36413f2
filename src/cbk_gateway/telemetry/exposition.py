"""Series as text for Prometheus: format 0.0.4, or OpenMetrics 1.0 with exemplars when it is asked for.

The text itself is written by prometheus_client; this module is the only one that imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from cbk_gateway.telemetry.catalogue import CATALOGUE
from cbk_gateway.telemetry.snapshot import Buckets, Families, Series
from cbk_gateway.telemetry.spec import Kind, MetricSpec

_INFINITE: Final = float("inf")


def families_of(families: Families) -> Iterator[Metric]:
    """The families in the catalogue's order, as prometheus_client wants them."""
    for spec in CATALOGUE:
        series = families.get(spec.name)
        if series:
            yield _family(spec, series)


def _family(spec: MetricSpec, series: Series) -> Metric:
    is_counter = spec.kind is Kind.COUNTER
    family = Metric(spec.name.removesuffix("_total") if is_counter else spec.name, spec.meaning, spec.kind)
    for (names, values), value in series.items():
        labels = dict(zip(names, values, strict=True))
        if isinstance(value, Buckets):
            _add_buckets(family, spec.buckets, labels, value)
        else:
            family.add_sample(spec.name, labels, value)
    return family


def _add_buckets(family: Metric, bounds: tuple[float, ...], labels: dict[str, str], buckets: Buckets) -> None:
    reached = list(accumulate(buckets.counts))
    for bound, count, seen in zip((*bounds, _INFINITE), reached, buckets.exemplars, strict=True):
        exemplar = None if seen is None else Exemplar({"request_id": seen[0]}, seen[1])
        family.add_sample(
            family.name + "_bucket",
            {**labels, "le": "+Inf" if bound == _INFINITE else repr(bound)},
            count,
            exemplar=exemplar,
        )
    family.add_sample(family.name + "_count", labels, reached[-1])
    family.add_sample(family.name + "_sum", labels, buckets.total)


class FamiliesCollector(Collector):
    """A collector over series that are fetched anew at each scrape."""

    def __init__(self, fetch: Callable[[], Families]) -> None:
        self._fetch = fetch

    def collect(self) -> Iterator[Metric]:
        """All families, at a scrape."""
        return families_of(self._fetch())


def registry_of(fetch: Callable[[], Families]) -> CollectorRegistry:
    """A registry of its own over `fetch`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FamiliesCollector(fetch))
    return registry


def expose(registry: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """The body and the content type of an answer to a scrape whose `Accept` header is `accept`."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type

"""Series for Prometheus: which format a scrape asks for, and the bridge to prometheus_client's registry.

The registry is for embedders and tests; scrapes are answered by `text.py`.
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
from cbk_gateway.telemetry.text import written

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


def expose(fetch: Callable[[], Families], accept: str = "") -> tuple[bytes, str]:
    """The body and the content type of an answer to a scrape whose `Accept` header is `accept`.

    The library decides which format is asked for; it also writes the ones that `text.py` does not know.
    """
    encode, content_type = choose_encoder(accept)
    is_openmetrics = content_type.startswith("application/openmetrics-text")
    if is_openmetrics and "version=1.0.0" not in content_type:
        return encode(registry_of(fetch)), content_type
    return written(fetch(), is_openmetrics=is_openmetrics), content_type

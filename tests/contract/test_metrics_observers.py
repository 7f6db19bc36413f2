"""The counters of `telemetry` fit the observer protocols of the packages that report, in both directions.

The assignments are checked by mypy; the tests check names and arguments again at run time, so that a
renamed event is found by either.
"""

from __future__ import annotations

import inspect

import pytest

from cbk_gateway.audit.options import JournalObserver
from cbk_gateway.cache.observer import CacheObserver
from cbk_gateway.identity.observer import IdentityObserver
from cbk_gateway.limits.options import LimiterObserver
from cbk_gateway.telemetry import Metrics
from cbk_gateway.tenancy.observer import TenancyObserver
from cbk_gateway.upstream.observer import UpstreamObserver

METRICS = Metrics()

journal: JournalObserver = METRICS.audit
cache: CacheObserver = METRICS.cache
identity: IdentityObserver = METRICS.identity
limiter: LimiterObserver = METRICS.limits
tenancy: TenancyObserver = METRICS.tenancy
upstream: UpstreamObserver = METRICS.upstream

PAIRS = [
    (JournalObserver, METRICS.audit),
    (CacheObserver, METRICS.cache),
    (IdentityObserver, METRICS.identity),
    (LimiterObserver, METRICS.limits),
    (TenancyObserver, METRICS.tenancy),
    (UpstreamObserver, METRICS.upstream),
]


@pytest.mark.parametrize(("protocol", "counter"), PAIRS, ids=lambda part: getattr(part, "__name__", ""))
def test_every_event_of_the_protocol_is_counted_with_its_arguments(protocol: type, counter: object) -> None:
    events = {name: member for name, member in vars(protocol).items() if inspect.isfunction(member)}
    for name, event in events.items():
        if name.startswith("_"):
            continue
        counted = getattr(type(counter), name)
        assert shape_of(counted) == shape_of(event), name


def shape_of(function: object) -> list[tuple[str, object]]:
    assert inspect.isfunction(function)
    # A counter may be told of several events at once; no protocol speaks of that.
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind) for p in parameters if (p.name, p.default) != ("times", 1)]

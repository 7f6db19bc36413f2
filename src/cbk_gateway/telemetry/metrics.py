"""`Metrics`: everything a process counts, behind one object.

Compose only: the rows are in `catalogue.py`, the events in `traffic.py`, `observers.py` and
`process_events.py`. A process makes
one and hands it down; nothing here is global, so tests and several gateways in a process do not mix.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from cbk_gateway.telemetry.caller_events import IdentityEvents, TenancyEvents
from cbk_gateway.telemetry.exposition import expose, registry_of
from cbk_gateway.telemetry.forwarded import ForwardedAnswers
from cbk_gateway.telemetry.instrument_set import InstrumentSet
from cbk_gateway.telemetry.labels import LabelRules
from cbk_gateway.telemetry.observers import (
    CacheEvents,
    JournalEvents,
    LimiterEvents,
    StoreEvents,
    UpstreamEvents,
)
from cbk_gateway.telemetry.process_events import ProcessEvents
from cbk_gateway.telemetry.snapshot import Families, Snapshot
from cbk_gateway.telemetry.traffic import TrafficMetrics


class Metrics(TrafficMetrics):
    """The metrics of one process. The methods of requests and streams are its own; others by area.

    Args:
        tenant_cap: Tenants shown by name; all others are `other`.
        labels_off: Labels to leave out of every series, from `labels.SWITCHABLE`, to save series.
        worker: Name of this worker; a successor in its place bears it too.
        is_enabled: Whether anything is kept; without it there are no series at all.

    Attributes:
        limits, cache, audit, upstream, store, identity, tenancy: The observers to plug into these packages.
        runtime: The events of the process itself.
        forwarded: Repeated requests that the upstream answered, counted in batches.
        registry: A registry that holds these metrics alone.
    """

    def __init__(
        self,
        *,
        tenant_cap: int = 200,
        labels_off: frozenset[str] = frozenset(),
        worker: str = "0",
        is_enabled: bool = True,
    ) -> None:
        rules = LabelRules(tenant_cap=tenant_cap, switched_off=labels_off)
        made = InstrumentSet(rules, is_silent=not is_enabled)
        super().__init__(made)
        self.worker = worker
        self.incarnation = secrets.token_hex(8)
        self.limits = LimiterEvents(made)
        self.cache = CacheEvents(made)
        self.audit = JournalEvents(made)
        self.upstream = UpstreamEvents(made)
        self.store = StoreEvents(made)
        self.identity = IdentityEvents(made)
        self.tenancy = TenancyEvents(made)
        self.runtime = ProcessEvents(made, worker)
        self.forwarded = ForwardedAnswers()
        self._made = made
        self._readings: list[Callable[[], None]] = []
        self.registry: CollectorRegistry = registry_of(self.families)

    def before_scrape(self, reading: Callable[[], None]) -> None:
        """Call `reading` before each scrape: for gauges that are read rather than told, such as memory."""
        self._readings.append(reading)

    def families(self) -> Families:
        """All series now, after the readings."""
        self.forwarded.fold()
        for reading in self._readings:
            reading()
        return self._made.families()

    def snapshot(self) -> bytes:
        """All series now, for a `Ledger` in another process."""
        return Snapshot(self.worker, self.incarnation, self.families()).encode()

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Body and content type for a scrape with this `Accept` header: text 0.0.4 or OpenMetrics 1.0."""
        return expose(self.families, accept)

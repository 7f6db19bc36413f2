"""The sum over all workers, whose counters never go back.

Prometheus takes a counter that falls for a restart and adds it anew, so a sum over workers must not lose
the part of one that died. The ledger keeps what dead workers counted, folded into one set of series, so it
does not grow with their number. A worker that cannot be asked in time is represented by its last snapshot.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry

from cbk_gateway.telemetry.catalogue import CATALOGUE
from cbk_gateway.telemetry.exposition import expose, registry_of
from cbk_gateway.telemetry.labels import OTHER
from cbk_gateway.telemetry.snapshot import Families, Series, SeriesKey, Snapshot, add_up, lasting

_SPECS: Final = {spec.name: spec for spec in CATALOGUE}


class Ledger:
    """Adds up the snapshots of workers.

    Args:
        tenant_cap: Distinct tenants shown by name in the sum: each worker caps its own, but not all of
            them meet the same tenants first.
    """

    def __init__(self, *, tenant_cap: int = 200) -> None:
        self._tenant_cap = tenant_cap
        self._tenants: set[str] = set()
        self._latest: dict[str, Snapshot] = {}
        self._departed: Families = {}
        self.registry: CollectorRegistry = registry_of(self.families)

    def update(self, encoded: bytes) -> str:
        """Take the newest snapshot of a worker and return the worker's name.

        A snapshot of a new incarnation retires the one before it.

        Raises:
            ValueError: Not a snapshot.
        """
        snapshot = Snapshot.decode(encoded)
        before = self._latest.get(snapshot.worker)
        if before is not None and before.incarnation != snapshot.incarnation:
            self.retire(snapshot.worker)
        self._latest[snapshot.worker] = snapshot
        return snapshot.worker

    def retire(self, worker: str) -> None:
        """The worker has ended: keep its counters, drop its gauges. Unknown names are ignored."""
        snapshot = self._latest.pop(worker, None)
        if snapshot is not None:
            add_up(self._departed, lasting(snapshot.families, _SPECS), _SPECS)

    def families(self) -> Families:
        """The sum now."""
        total: Families = {}
        add_up(total, lasting(self._departed, _SPECS), _SPECS)
        for snapshot in self._latest.values():
            add_up(total, snapshot.families, _SPECS)
        return {name: self._capped(name, series) for name, series in total.items()}

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The body and content type of an answer to a scrape."""
        return expose(self.families, accept)

    def _capped(self, name: str, series: Series) -> Series:
        """Give the tenants beyond the cap the common name, in the order in which they were first seen."""
        capped: Families = {}
        for (names, values), value in series.items():
            key: SeriesKey = (names, self._admit(names, values))
            add_up(capped, {name: {key: value}}, _SPECS)
        return capped.get(name, {})

    def _admit(self, names: tuple[str, ...], values: tuple[str, ...]) -> tuple[str, ...]:
        if "tenant" not in names:
            return values
        place = names.index("tenant")
        tenant = values[place]
        if tenant not in self._tenants:
            if len(self._tenants) >= self._tenant_cap + 2:  # `other` and `none` need no room
                return (*values[:place], OTHER, *values[place + 1 :])
            self._tenants.add(tenant)
        return values


def merge(snapshots: list[bytes], accept: str = "") -> tuple[bytes, str]:
    """The exposition of the sum of these snapshots, for those who need no memory of dead workers."""
    ledger = Ledger()
    for encoded in snapshots:
        ledger.update(encoded)
    return ledger.exposition(accept)

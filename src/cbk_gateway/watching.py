"""What operators see without asking: gauges read before a scrape, and those that need a look now and then.

Only looks and reports; no request waits for any of it. What a gauge means is `telemetry/catalogue.py`'s
business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from cryptography import x509

from cbk_gateway.audit import Journal
from cbk_gateway.limits.inspection import LimitsStanding
from cbk_gateway.parties import Tenant
from cbk_gateway.parts import Parts
from cbk_gateway.store import StoreFault
from cbk_gateway.telemetry import Metrics
from cbk_gateway.telemetry.caller_events import TENANT_KEYS
from cbk_gateway.tenancy import Change

LOOK_EVERY_S: Final = 5.0
MOST_TENANTS: Final = 50
"""Tenants looked at in one round: each costs a few calls to the store. The rest have a later turn."""
READ_FILES_EVERY_S: Final = 300.0

_log = structlog.get_logger(__name__)


class Watch:
    """Reports what nobody else tells.

    Args:
        parts: What is looked at.
        certificates: Files with certificates whose end should be known, by kind and name.
        most_tenants: Tenants with a label of their own; the rest are not looked at.
    """

    def __init__(
        self, parts: Parts, certificates: Mapping[tuple[str, str], Path], *, most_tenants: int
    ) -> None:
        self._parts = parts
        self._certificates = certificates
        self._most_tenants = most_tenants
        self._next = 0
        self._files_read_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Report what holds from the start, and keep looking."""
        parts = self._parts
        parts.metrics.limits.mode_changed(parts.limiter.mode)
        self._tell_of(frozenset(parts.registry.all()))
        self._tell_of_expiry()
        self._unsubscribe = parts.registry.subscribe(self._tenants_changed)
        if parts.journal is not None:
            parts.metrics.before_scrape(_health_of(parts.journal, parts.metrics))
        self._task = asyncio.get_running_loop().create_task(self._look_on())

    async def stop(self) -> None:
        """Look no more."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def look(self) -> None:
        """One round: the limits of the tenants whose turn it is, and files that expire."""
        await self._read_files()
        for tenant in self._turn():
            try:
                standing = await self._parts.limiter.show(tenant)
            except StoreFault:
                # The store's own gauge says so already.
                return
            self._report(tenant, standing)

    async def _look_on(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - a defect here must not end the looking, and harms no request
                _log.exception("watch_failed")
            await asyncio.sleep(LOOK_EVERY_S)

    def _turn(self) -> list[Tenant]:
        limited = [
            one
            for one in list(self._parts.registry.all().values())[: self._most_tenants]
            if one.limits.rates or one.limits.quotas
        ]
        if not limited:
            return []
        first = self._next % len(limited)
        chosen = (limited[first:] + limited[:first])[:MOST_TENANTS]
        self._next = first + len(chosen)
        return chosen

    def _report(self, tenant: Tenant, standing: LimitsStanding) -> None:
        limits = self._parts.metrics.limits
        own = {rate.name for rate in tenant.limits.rates}
        for rate in standing.rates:
            if rate.policy in own:
                limits.use(tenant.id, rate.policy, min(1.0, max(0.0, 1.0 - rate.tokens / rate.burst)))
        for quota in standing.quotas:
            if quota.limit > 0:
                limits.quota_use(tenant.id, quota.policy, max(0.0, quota.used / quota.limit))

    def _tenants_changed(self, change: Change) -> None:
        self._tell_of(change.added | change.changed)
        self._tell_of_expiry()
        if change.removed or change.changed:
            kept = frozenset(self._parts.registry.all())
            self._parts.metrics.limits.keep_only(kept)
            self._parts.metrics.tenancy.keep_only(kept)

    def _tell_of(self, tenant_ids: frozenset[str]) -> None:
        metrics, registry = self._parts.metrics, self._parts.registry
        for tenant_id in tenant_ids:
            tenant = registry.get(tenant_id)
            if tenant is None:
                continue
            metrics.tenancy.health_changed(tenant_id, is_healthy=self._parts.credentials.is_healthy(tenant))
            for rate in tenant.limits.rates:
                metrics.limits.configured(tenant_id, rate.name, rate.per_second)

    def _tell_of_expiry(self) -> None:
        """The keys of tenants that end first, where it is known; as many as tenants have labels."""
        current, following = TENANT_KEYS
        ends: dict[tuple[str, str], float] = {}
        for tenant in self._parts.registry.all().values():
            if tenant.key_expires is not None:
                ends[current, tenant.id] = tenant.key_expires
            if tenant.next_key_expires is not None:
                ends[following, tenant.id] = tenant.next_key_expires
        first = sorted(ends.items(), key=lambda end: end[1])[: self._most_tenants]
        self._parts.metrics.tenancy.tenants_keys_expire(dict(first))

    async def _read_files(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._files_read_at < READ_FILES_EVERY_S:
            return
        self._files_read_at = now
        for (kind, name), path in self._certificates.items():
            ends_at = await asyncio.to_thread(expiry_of, path)
            if ends_at is not None:
                self._parts.metrics.tenancy.key_expires(kind, name, ends_at.timestamp())


def expiry_of(path: Path) -> datetime | None:
    """When the first certificate of a chain to end does so, or None where no certificate can be read."""
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return None
    return min(one.not_valid_after_utc for one in chain)


def count_connections(metrics: Metrics, server: web.Server) -> None:
    """Have the client connections counted before each scrape."""
    metrics.before_scrape(lambda: metrics.connections_open(len(server.connections)))


def _health_of(journal: Journal, metrics: Metrics) -> Callable[[], None]:
    def reading() -> None:
        metrics.audit.health(
            is_healthy=journal.is_healthy, waiting=journal.waiting, last_sync_age_s=journal.last_sync_age_s
        )

    return reading

"""What the packages that know callers report: tokens, keys and revocations, tenants and their upstream keys.

Like `observers.py`, of which this is the other half.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

from cbk_gateway.telemetry.instrument_set import InstrumentSet

TENANT_KEYS: Final = ("tenant", "tenant-next")
"""Kinds of keys that are tenants' own: the current and the next one."""


class IdentityEvents:
    """Who was let in by token."""

    def __init__(self, made: InstrumentSet) -> None:
        self._verifications = made.counter("identity_verifications_total")
        self._fetches = made.counter("identity_key_fetches_total")
        self._keys = made.gauge("identity_keys")
        self._revocations = made.counter("identity_revocations_total")
        self._listed = made.gauge("identity_revocations_listed")
        self._confirmed = made.gauge("identity_revocations_confirmed")

    def token_verified(self, issuer: str, algorithm: str) -> None:  # noqa: ARG002 - the issuer says enough
        """A token seen for the first time was accepted."""
        self._verifications.add((issuer, "verified"))

    def token_remembered(self, issuer: str, times: int = 1) -> None:
        """A remembered token was accepted."""
        self._verifications.add((issuer, "remembered"), times)

    def token_refused(self, reason: str, times: int = 1) -> None:
        """A request was refused; whose token it was is not believed, so there is no issuer."""
        self._verifications.add((None, reason), times)

    def keys_fetched(self, issuer: str, outcome: str) -> None:
        """A key set was asked for."""
        self._fetches.add((issuer, outcome))

    def keys_in_force(self, issuer: str, count: int) -> None:
        """The number of usable keys of an issuer changed."""
        self._keys.set(count, (issuer,))

    def revocation_applied(self, kind: str) -> None:
        """A revocation took effect in this process."""
        self._revocations.add((kind,))

    def revocations_confirmed(self, count: int, is_confirmed: bool) -> None:
        """The list of revocations was confirmed by the store, or could not be."""
        self._listed.set(count)
        self._confirmed.set(int(is_confirmed))


class TenancyEvents:
    """How tenants' configuration and upstream keys fare."""

    def __init__(self, made: InstrumentSet) -> None:
        self._refusals = made.counter("tenant_key_refusals_total")
        self._healthy = made.gauge("tenant_key_healthy")
        self._ready = made.counter("tenant_next_key_ready_total")
        self._rotations = made.counter("tenant_rotations_total")
        self._count = made.gauge("tenants")
        self._version = made.gauge("tenants_version")
        self._sources = made.gauge("tenant_source_healthy")
        self._foreign = made.counter("tenant_foreign_objects_total")
        self._expiry = made.gauge("key_expiry_timestamp_seconds")

    def key_refused(self, tenant: str, which: str) -> None:
        """The upstream refused a tenant's current or next key."""
        self._refusals.add((tenant, which))

    def health_changed(self, tenant: str, *, is_healthy: bool) -> None:
        """A tenant's current key began to be refused, or is accepted again."""
        self._healthy.set(int(is_healthy), (tenant,))

    def next_key_ready(self, tenant: str) -> None:
        """The next key has passed often enough to be promoted."""
        self._ready.add((tenant,))

    def rotation_ended(self, tenant: str, outcome: str, by: str) -> None:
        """The next key was promoted or dropped, by an operator or by the gateway itself."""
        self._rotations.add((tenant, outcome, by))

    def tenants_changed(self, count: int, version: int) -> None:
        """The registry was replaced."""
        self._count.set(count)
        self._version.set(version)

    def source_failed(self, source: str) -> None:
        """A source of tenants or keys is broken or away."""
        self._sources.set(0, (source,))

    def source_recovered(self, source: str) -> None:
        """It can be read again."""
        self._sources.set(1, (source,))

    def foreign_object(self, tenant: str, *, refused: bool) -> None:
        """A tenant asked for an object that is not its own."""
        self._foreign.add((tenant, "yes" if refused else "no"))

    def key_expires(self, kind: str, name: str, at_epoch_s: float) -> None:
        """A key or certificate of this kind (upstream, signing, tls, vault) stops working then."""
        self._expiry.set(at_epoch_s, (kind, name))

    def tenants_keys_expire(self, ends: Mapping[tuple[str, str], float]) -> None:
        """When keys of tenants stop working, by kind (one of `TENANT_KEYS`) and tenant; forget all others."""
        self._expiry.forget(lambda labels: labels[0] not in TENANT_KEYS or labels in ends)
        for name, at_epoch_s in ends.items():
            self._expiry.set(at_epoch_s, name)

    def keep_only(self, tenants: Container[str]) -> None:
        """Forget what was said of the keys of tenants that are no more."""
        self._healthy.forget_tenants(tenants)

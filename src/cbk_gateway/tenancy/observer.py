"""What this package tells the outside: events for metrics and alerts, as plain values."""

from __future__ import annotations

from typing import Protocol


class TenancyObserver(Protocol):
    """Receives events. Methods return at once and raise nothing; `tenant` is a configured id.

    `which` is "current" or "next"; `source` is "file", "store" or "vault".
    """

    def key_refused(self, tenant: str, which: str) -> None:
        """The upstream refused a key."""

    def health_changed(self, tenant: str, *, is_healthy: bool) -> None:
        """A tenant's current key began to be refused, or is accepted again."""

    def next_key_ready(self, tenant: str) -> None:
        """The next key has passed often enough to be promoted."""

    def rotation_ended(self, tenant: str, outcome: str, by: str) -> None:
        """The next key was "promoted" or "dropped", by an "operator" or by the "gateway" itself."""

    def key_expires(self, kind: str, name: str, at_epoch_s: float) -> None:
        """A key of this kind and name stops working then."""

    def tenants_changed(self, count: int, version: int) -> None:
        """The registry was replaced."""

    def source_failed(self, source: str) -> None:
        """A source of tenants or keys is broken or away; what was known stays in force."""

    def source_recovered(self, source: str) -> None:
        """It can be read again."""

    def foreign_object(self, tenant: str, *, refused: bool) -> None:
        """A tenant asked for an object that is not its own; `isolation: report` refuses nothing."""


class SilentObserver:
    """Tells nobody."""

    def key_refused(self, tenant: str, which: str) -> None:
        """See `TenancyObserver`."""

    def health_changed(self, tenant: str, *, is_healthy: bool) -> None:
        """See `TenancyObserver`."""

    def next_key_ready(self, tenant: str) -> None:
        """See `TenancyObserver`."""

    def rotation_ended(self, tenant: str, outcome: str, by: str) -> None:
        """See `TenancyObserver`."""

    def key_expires(self, kind: str, name: str, at_epoch_s: float) -> None:
        """See `TenancyObserver`."""

    def tenants_changed(self, count: int, version: int) -> None:
        """See `TenancyObserver`."""

    def source_failed(self, source: str) -> None:
        """See `TenancyObserver`."""

    def source_recovered(self, source: str) -> None:
        """See `TenancyObserver`."""

    def foreign_object(self, tenant: str, *, refused: bool) -> None:
        """See `TenancyObserver`."""

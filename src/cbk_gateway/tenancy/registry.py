"""The tenants of this process: one snapshot that is replaced as a whole.

Looking up is a dict access on an immutable snapshot, so no request ever sees half of a change. Where tenants
come from (files, the store) is not known here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import structlog

from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret

_LOG: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """What a replacement changed: tenant ids, and the registry's new version."""

    version: int
    added: frozenset[str]
    changed: frozenset[str]
    removed: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class Registry:
    """Tenants by id. All methods are synchronous and meant for one event loop's thread.

    Attributes:
        version: Grows by one with every replacement that changed something; starts at 1.
    """

    __slots__ = ("_by_id", "_by_key", "_subscribers", "version")

    def __init__(self, tenants: Iterable[Tenant] = ()) -> None:
        self._by_id: Mapping[str, Tenant] = {}
        self._by_key: dict[Secret, tuple[Tenant, ...]] = {}
        self._subscribers: list[Callable[[Change], None]] = []
        self.version = 1
        self._install(tuple(tenants))

    def __repr__(self) -> str:
        return f"<Registry {len(self._by_id)} tenants, version {self.version}>"

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, tenant_id: str) -> Tenant | None:
        """The tenant of this id, or None."""
        return self._by_id.get(tenant_id)

    def all(self) -> Mapping[str, Tenant]:
        """Every tenant by id, in order of configuration; a snapshot that never changes."""
        return MappingProxyType(dict(self._by_id))

    def sharing_key(self, tenant: Tenant) -> tuple[Tenant, ...]:
        """The tenants whose upstream key in force is this tenant's, itself included."""
        return self._by_key.get(tenant.key, (tenant,))

    def replace(self, tenants: Iterable[Tenant]) -> Change:
        """Put other tenants in the place of all, at once, then tell the subscribers.

        Raises:
            ValueError: Two of them have one id; nothing is changed then.
        """
        before = self._by_id
        self._install(tuple(tenants))
        after = self._by_id
        both = before.keys() & after.keys()
        change = Change(
            version=self.version + 1,
            added=frozenset(after.keys() - before.keys()),
            changed=frozenset(one for one in both if before[one] != after[one]),
            removed=frozenset(before.keys() - after.keys()),
        )
        if change:
            self.version = change.version
            self._tell(change)
        return change

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call `callback` after every replacement that changed something; returns the way to stop it.

        Callbacks run in `replace` and must not block. One that fails is logged and does not stop the others.
        """
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def _install(self, tenants: tuple[Tenant, ...]) -> None:
        by_id: dict[str, Tenant] = {}
        sharing: defaultdict[Secret, list[Tenant]] = defaultdict(list)
        for tenant in tenants:
            if tenant.id in by_id:
                message = f"two tenants have the id {tenant.id}"
                raise ValueError(message)
            by_id[tenant.id] = tenant
            sharing[tenant.key].append(tenant)
        self._by_id = by_id
        self._by_key = {key: tuple(group) for key, group in sharing.items()}

    def _tell(self, change: Change) -> None:
        for callback in tuple(self._subscribers):
            try:
                callback(change)
            except Exception:  # noqa: BLE001 - one subscriber's fault must not keep the rest on old tenants
                _LOG.exception("tenant_subscriber_failed", version=change.version)

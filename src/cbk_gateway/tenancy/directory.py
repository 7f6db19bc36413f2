"""All tenants of a process, from the file and from the store, kept up to date in one registry.

Definitions come from the file and from the store's records, the file first; the store's overrides (disabled,
rotated) apply to both. A source that breaks or goes away keeps what it gave last. Every process is told of a
change by a message and looks for itself at short intervals, so that a lost message costs less than a second.
What operators change is `operations.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog
from redis.exceptions import RedisClusterException, RedisError

from cbk_gateway.parties import Tenant
from cbk_gateway.settings.faults import Problem
from cbk_gateway.store import Store, StoreFault
from cbk_gateway.tenancy.cipher import CipherFault
from cbk_gateway.tenancy.key_source import KeySource
from cbk_gateway.tenancy.observer import SilentObserver, TenancyObserver
from cbk_gateway.tenancy.options import TenancyOptions
from cbk_gateway.tenancy.overrides import NO_OVERRIDE, Override, applied, decode
from cbk_gateway.tenancy.records import CHANGES, Records, Rows
from cbk_gateway.tenancy.registry import Registry
from cbk_gateway.tenancy.stored import StoredTenants
from cbk_gateway.tenancy.tenant_file import TenantFile

_LOG: Final = structlog.get_logger(__name__)
_LISTEN_S: Final = 30.0


class Directory:
    """Fills a registry and keeps it filled, from `start` to `stop`.

    `tenants` stand in for a file's, where there is none.

    Attributes:
        registry: What it fills.
        observer: Gets the events.
        records: The store's rows, or None without a store.
        keys: Where keys come from.
        rows: The rows that are in force.
        defined: Definitions by id, before overrides.
    """

    def __init__(
        self,
        registry: Registry,
        keys: KeySource,
        *,
        tenants: tuple[Tenant, ...] = (),
        path: Path | None = None,
        store: Store | None = None,
        options: TenancyOptions | None = None,
        observer: TenancyObserver | None = None,
    ) -> None:
        self.registry = registry
        self.keys = keys
        self._options = options if options is not None else TenancyOptions()
        self.observer = observer if observer is not None else SilentObserver()
        self._store = store
        self.records = Records(store, timeout_s=self._options.store_timeout_s) if store is not None else None
        self._file = (
            TenantFile(path, keys, self._accept_file, observer, vault_refresh_s=keys.refresh_s)
            if path is not None
            else None
        )
        self._stored = StoredTenants(keys)
        self._of_file = tenants
        self.rows = Rows()
        self.defined: Mapping[str, Tenant] = {}
        self._store_failed = False
        self._turn = asyncio.Lock()
        self._taken_at = 0.0
        self._nudge = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read all sources once, then keep looking.

        Raises:
            SettingsError: The file cannot be used.
            StoreFault: The store is away.
        """
        if self._file is not None:
            await self._file.load()
        else:
            self._publish()
        if self.records is not None:
            async with self._turn:
                await self._take(await self.records.read())
        loop = asyncio.get_running_loop()
        if self._file is not None:
            self._tasks.append(loop.create_task(self._watch(self._file)))
        if self.keys.has_vault:
            self._tasks.append(loop.create_task(self._look_at_login()))
        if self._store is not None:
            self._tasks.append(loop.create_task(self._follow()))
            self._tasks.append(loop.create_task(self._listen(self._store)))

    async def stop(self) -> None:
        """Stop looking, and close what keys are read with. The registry stays as it is."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            # redis-py 8.1 swallows a cancellation that arrives while it subscribes: ask until it is heard.
            while not task.done():
                task.cancel()
                await asyncio.wait((task,), timeout=0.1)
        await self.keys.close()

    async def reload(self) -> bool:
        """Read everything again at once, for SIGHUP; says whether the file is usable."""
        usable = await self._file.reload() if self._file is not None else True
        await self.refresh(always=True)
        return usable

    async def refresh(self, *, always: bool = False) -> bool:
        """Look whether the store's rows changed and take them; says whether the store answered."""
        if self.records is None:
            return True
        try:
            async with self._turn:
                if always or await self.records.version() != self.rows.version:
                    await self._take(await self.records.read())
        except StoreFault as fault:
            if not self._store_failed:
                _LOG.warning("tenants_store_away", fault=str(fault))
                self.observer.source_failed("store")
            self._store_failed = True
            return False
        if self._store_failed:
            self._store_failed = False
            self.observer.source_recovered("store")
            _LOG.info("tenants_store_back")
        return True

    def origin(self, tenant_id: str) -> str | None:
        """Where a tenant is defined: "file", "store", or None when it is not."""
        if any(tenant.id == tenant_id for tenant in self._of_file):
            return "file"
        return "store" if tenant_id in self.defined else None

    def problems(self) -> list[Problem]:
        """What is wrong with the sources now, for `/readyz` and operators; tenants known before stay."""
        found = list(self._file.problems) if self._file is not None else []
        found.extend(self._stored.problems)
        of_file = {tenant.id for tenant in self._of_file}
        found.extend(
            Problem(
                "store", f"records ({one.id})", "The file defines this tenant too, and wins.", "Delete one."
            )
            for one in self._stored.tenants
            if one.id in of_file
        )
        if self._store_failed:
            found.append(Problem("store", "tenants", "The store does not answer.", "Check the store."))
        found.extend(
            Problem("vault", "keys", text, "Check Vault, its login and its policy.")
            for text in self.keys.vault_problems
        )
        return found

    async def _accept_file(self, tenants: tuple[Tenant, ...]) -> None:
        self._of_file = tenants
        self._publish()

    async def _take(self, rows: Rows) -> None:
        if rows.version < self.rows.version:
            # A store that lost its rows counts from zero again: disabled tenants may be back.
            _LOG.warning("tenants_store_rewound", version=rows.version, known=self.rows.version)
        self._taken_at = asyncio.get_running_loop().time()
        await self._stored.take(rows.records)
        self.rows = rows
        self._publish()

    def _publish(self) -> None:
        defined = {tenant.id: tenant for tenant in self._of_file}
        for tenant in self._stored.tenants:
            defined.setdefault(tenant.id, tenant)
        self.defined = defined
        change = self.registry.replace(self._in_force(tenant) for tenant in defined.values())
        if change:
            self.observer.tenants_changed(len(self.registry), change.version)
            _LOG.info(
                "tenants_changed",
                version=change.version,
                added=len(change.added),
                changed=len(change.changed),
                removed=len(change.removed),
            )

    def _in_force(self, tenant: Tenant) -> Tenant:
        override = self.override_of(tenant.id)
        try:
            return applied(tenant, override, self.keys.unseal)
        except CipherFault as fault:
            _LOG.error("override_unusable", tenant=tenant.id, fault=str(fault))
            # Its keys do not open here, but a disabled tenant stays disabled.
            return applied(tenant, replace(override, key=None, next_key=None), self.keys.unseal)

    def override_of(self, tenant_id: str) -> Override:
        """The override of a tenant. One that cannot be read disables it, since it may have said so."""
        octets = self.rows.overrides.get(tenant_id)
        if octets is None:
            return NO_OVERRIDE
        try:
            return decode(octets)
        except ValueError:
            _LOG.error("override_unreadable", tenant=tenant_id)
            return Override(disabled=True)

    async def _watch(self, file: TenantFile) -> None:
        while True:
            await asyncio.sleep(self._options.file_poll_s)
            await file.look()

    async def _look_at_login(self) -> None:
        while True:
            await asyncio.sleep(self._options.login_look_s)
            await self.keys.look_at_login()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.store_poll_s):
                    await self._nudge.wait()
            self._nudge.clear()
            # Files and Vault change without a word to the store.
            is_due = loop.time() - self._taken_at >= self.keys.refresh_s
            await self.refresh(always=self._stored.follows_references and is_due)

    async def _listen(self, store: Store) -> None:
        while True:
            try:
                async with store.pubsub() as subscription:
                    await subscription.subscribe(CHANGES)
                    # What happened before the subscription stood was not told to us.
                    self._nudge.set()
                    while True:
                        message = await subscription.get_message(
                            ignore_subscribe_messages=True, timeout=_LISTEN_S
                        )
                        if message is not None:
                            self._nudge.set()
            except (RedisError, RedisClusterException, OSError):
                # Looking at intervals goes on, and says what is wrong.
                await asyncio.sleep(self._options.store_poll_s)

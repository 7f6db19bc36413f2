"""Rotations that end without an operator: a next key that proves itself is promoted, a refused one dropped.

What the upstream says of a next key is counted over all processes, in the store, by the key's digest, so that
another key starts anew. One refusal bars a key from being promoted here for good: whoever knows why it was
refused may promote it by hand. One process ends a rotation, and journals it first; all take it over as they
take an operator's change, also for tenants of the file, whose override lapses with the file's keys. Requests
wait for none of this. A refusal in one process and a promotion by another within the same few milliseconds
can still cross: the key had then passed everywhere for as long as it was asked to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import structlog

from cbk_gateway.errors import Refusal
from cbk_gateway.parties import Tenant
from cbk_gateway.store import StoreFault
from cbk_gateway.tenancy.directory import Directory
from cbk_gateway.tenancy.operations import OperationFault, TenantOperations
from cbk_gateway.tenancy.options import PromotionOptions
from cbk_gateway.tenancy.overrides import digest
from cbk_gateway.tenancy.records import Standing
from cbk_gateway.tenancy.rotation import Event

_LOG: Final = structlog.get_logger(__name__)
_GATHER_S: Final = 0.2
"""Passes are told to the store at most this often; a refusal at once."""
_AGAIN_S: Final = 1.0
_ENDING_S: Final = 10
"""How long one process has for ending a rotation, before another may try."""

Record = Callable[[str, Mapping[str, object]], Awaitable[None]]
"""Journals something durably, or raises a `Refusal`."""


class Ending(StrEnum):
    """How a rotation ends, as the journal calls the change."""

    PROMOTE = "key.promote"
    DROP = "key.drop"


def ending(standing: Standing, options: PromotionOptions) -> Ending | None:
    """How a rotation has to end now, or None while it goes on."""
    if standing.refused:
        is_hopeless = 0 < options.drop_after <= standing.refused
        return Ending.DROP if is_hopeless else None
    has_passed = standing.passed >= options.successes and standing.age_s >= options.min_age_s
    return Ending.PROMOTE if has_passed else None


@dataclass(slots=True)
class _Heard:
    """What this process heard of one next key and has not told the store."""

    key: str
    passed: int = 0
    refused: int = 0


class Promotion:
    """Ends rotations, from `start` to `stop`.

    Args:
        directory: The tenants, of a store.
        options: When to end them.
        record: Journals the end before it is made; None where nothing is journalled.
    """

    def __init__(self, directory: Directory, options: PromotionOptions, record: Record | None) -> None:
        if directory.records is None:
            message = "without a store nothing is known of other processes"
            raise ValueError(message)
        self._records = directory.records
        self._operations = TenantOperations(directory)
        self._options = options
        self._record = record
        self._heard: dict[str, _Heard] = {}
        self._news = asyncio.Event()
        self._is_urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def note(self, tenant: Tenant, event: Event) -> None:
        """Take down that a request passed or was refused with the tenant's next key. Returns at once."""
        if tenant.next_key is None:
            return
        key = digest(tenant.next_key)
        heard = self._heard.get(tenant.id)
        if heard is None or heard.key != key:
            heard = self._heard[tenant.id] = _Heard(key)
        if event is Event.NEXT_PASSED:
            heard.passed += 1
        else:
            heard.refused += 1
            self._is_urgent.set()
        self._news.set()

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._look_on())

    async def stop(self) -> None:
        """Look no more. Refusals are still told, so that no other process promotes in spite of them."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        with contextlib.suppress(StoreFault):
            for tenant_id, heard in self._heard.items():
                if heard.refused:
                    await self._told(tenant_id, heard)

    async def _look_on(self) -> None:
        while True:
            await self._news.wait()
            await self._gathered()
            try:
                await self._look()
            except StoreFault:
                # The store's own gauge says so already.
                await asyncio.sleep(_AGAIN_S)
            except Exception:  # noqa: BLE001 - a defect here must not end the looking, and harms no request
                _LOG.exception("promotion_failed")
                await asyncio.sleep(_AGAIN_S)

    async def _gathered(self) -> None:
        try:
            async with asyncio.timeout(_GATHER_S):
                await self._is_urgent.wait()
        except TimeoutError:
            return

    async def _look(self) -> None:
        self._news.clear()
        self._is_urgent.clear()
        for tenant_id, heard in tuple(self._heard.items()):
            standing = await self._told(tenant_id, heard)
            how = ending(standing, self._options)
            if how is not None and await self._records.may_end(tenant_id, _ENDING_S):
                await self._end(tenant_id, heard, how, standing)
            if self._heard.get(tenant_id) is heard and not (heard.passed or heard.refused):
                del self._heard[tenant_id]

    async def _told(self, tenant_id: str, heard: _Heard) -> Standing:
        passed, refused = heard.passed, heard.refused
        # Passes whose answer is lost are not told twice: too few promote later, too many would too early.
        heard.passed = 0
        try:
            standing = await self._records.tally(tenant_id, heard.key, passed, refused)
        except StoreFault:
            self._news.set()
            raise
        heard.refused -= refused
        return standing

    async def _end(self, tenant_id: str, heard: _Heard, how: Ending, standing: Standing) -> None:
        said = {"passed": standing.passed, "refused": standing.refused, "age_s": standing.age_s}
        try:
            if self._record is not None:
                change = {"operator": "gateway", "change": str(how), "tenant": tenant_id}
                await self._record("admin", {**change, "automatic": True, **said})
            # Writing to disk takes time, and this or another process may have heard a refusal meanwhile.
            if ending(await self._told(tenant_id, heard), self._options) is not how:
                return
            end = self._operations.promote if how is Ending.PROMOTE else self._operations.drop
            await end(tenant_id, only=heard.key, by="gateway")
        except (OperationFault, Refusal) as fault:
            _LOG.warning("rotation_not_ended", tenant=tenant_id, change=str(how), fault=str(fault))
            return
        _LOG.info("rotation_ended", tenant=tenant_id, change=str(how), **said)

"""The metrics of all workers as one, with what only the supervisor knows. See `telemetry.ledger`.

A worker that ends in peace hands its counts over. One that is killed cannot, so every worker is read each
`READ_EVERY_S`, whether anybody scrapes or not: what a killed worker counted after the last reading is lost,
and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Final

from cbk_gateway.supervisor.fleet import Fleet
from cbk_gateway.supervisor.process import State, WorkerFault, WorkerProcess
from cbk_gateway.telemetry.ledger import Ledger
from cbk_gateway.telemetry.snapshot import Families, Snapshot

SUPERVISOR: Final = "supervisor"
RESTARTS: Final = "cbk_gateway_worker_restarts_total"
RELOADS: Final = "cbk_gateway_config_reloads_total"
APPLIED: Final = "cbk_gateway_config_applied_timestamp_seconds"
UP: Final = "cbk_gateway_worker_up"

READ_EVERY_S: Final = 2.0
"""The most counting that the death of a worker can cost, in seconds. A reading takes the worker 0.5 ms per
1,000 series, so that oftener would be felt where there are many."""

_PATIENCE_S: Final = 2.0
_REASONS: Final = ("crashed", "rolled", "silent")


class Sum:
    """Adds workers up, whenever somebody looks.

    Args:
        tenant_cap: Tenants shown by name.
    """

    def __init__(self, tenant_cap: int) -> None:
        self._ledger = Ledger(tenant_cap=tenant_cap)
        self._incarnation = secrets.token_hex(8)
        self._restarts = dict.fromkeys(_REASONS, 0)
        self._reloads = dict.fromkeys(("applied", "refused", "unchanged"), 0)
        self._applied_at = 0.0
        self._down: set[str] = set()
        self._turn = asyncio.Lock()

    def restarted(self, reason: str) -> None:
        """A worker is started in place of another."""
        self._restarts[reason] += 1

    def reloaded(self, result: str, at_epoch_s: float) -> None:
        """Settings were applied, refused, or brought nothing new."""
        self._reloads[result] += 1
        if result == "applied":
            self._applied_at = at_epoch_s

    def ended(self, worker: WorkerProcess) -> None:
        """A worker is gone: what it counted stays."""
        if worker.last_snapshot is not None:
            with contextlib.suppress(ValueError):
                self._ledger.update(worker.last_snapshot)
        elif not worker.was_told:
            self._down.add(worker.name)
        self._ledger.retire(worker.name)

    async def follow(self, fleet: Fleet) -> None:
        """Read the workers again and again, for ever."""
        while True:
            await asyncio.sleep(READ_EVERY_S)
            async with self._turn:
                await self._read_all(fleet)

    async def exposition(self, fleet: Fleet, accept: str) -> tuple[bytes, str]:
        """Body and content type of an answer to a scrape.

        A worker that does not answer in time is represented by what it said last.
        """
        async with self._turn:
            await self._read_all(fleet)
            self._ledger.update(Snapshot(SUPERVISOR, self._incarnation, self._own(fleet)).encode())
            return self._ledger.exposition(accept)

    async def _read_all(self, fleet: Fleet) -> None:
        await asyncio.gather(*(self._read(one) for one in list(fleet.workers.values())))

    async def _read(self, worker: WorkerProcess) -> None:
        if worker.state not in {State.READY, State.DRAINING}:
            return
        with contextlib.suppress(WorkerFault, ValueError):
            snapshot = await worker.ask("GET", "/snapshot", timeout_s=_PATIENCE_S)
            # It may have ended meanwhile, and its last words were newer.
            if not worker.ended.is_set():
                self._ledger.update(snapshot)

    def _own(self, fleet: Fleet) -> Families:
        up = {one.name for one in fleet.serving}
        self._down -= up
        if fleet.is_complete:
            self._down.clear()
        families: Families = {
            RESTARTS: {(("reason",), (name,)): float(count) for name, count in self._restarts.items()},
            RELOADS: {(("result",), (name,)): float(count) for name, count in self._reloads.items()},
            UP: {(("worker",), (name,)): float(name in up) for name in up | self._down},
        }
        if self._applied_at:
            families[APPLIED] = {((), ()): self._applied_at}
        return families

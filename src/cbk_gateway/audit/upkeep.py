"""Upkeep: what a journal needs now and then, beside the path of requests: retention and shipping.

One background task per part, started and stopped with the gateway. Several processes may run it over one
journal: a sweep is one process's at a time, and each chain is shipped by the process that owns it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from cbk_gateway.audit.options import JournalFault
from cbk_gateway.audit.reading import SegmentFile
from cbk_gateway.audit.retention import RetentionOptions, Swept, sweep
from cbk_gateway.audit.signing import load_or_make
from cbk_gateway.audit.sinks.shipper import Shipper

SWEEP_INTERVAL_S: Final = 300.0
_log = structlog.get_logger(__name__)


def now_utc() -> datetime:
    """The time, for sweeps outside tests."""
    return datetime.now(UTC)


class Upkeep:
    """Runs shippers and sweeps.

    Args:
        directory: The journal.
        key_path: Its signing key.
        retention: See `RetentionOptions`.
        shippers: Fed while this runs; what they have not shipped is not removed.
        interval_s: Seconds between sweeps.
        clock: Gives the time, UTC.
    """

    def __init__(
        self,
        directory: Path,
        key_path: Path,
        retention: RetentionOptions,
        shippers: Sequence[Shipper] = (),
        *,
        interval_s: float = SWEEP_INTERVAL_S,
        clock: Callable[[], datetime] = now_utc,
    ) -> None:
        self._directory = directory
        self._key_path = key_path
        self._retention = retention
        self._shippers = tuple(shippers)
        self._interval_s = interval_s
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._sweeping: asyncio.Task[Swept | None] | None = None
        self.last_swept: Swept | None = None

    async def start(self) -> None:
        """Begin. The first sweep comes after one interval, so that it does not slow the start."""
        self._tasks = [asyncio.create_task(shipper.run()) for shipper in self._shippers]
        self._tasks.append(asyncio.create_task(self._sweep_on()))

    async def stop(self) -> None:
        """End; a sweep that is under way is waited for."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        if self._sweeping is not None:
            await self._sweeping

    async def sweep_once(self) -> Swept | None:
        """One sweep, in a thread; None when the disk or the journal did not allow it."""
        try:
            key = load_or_make(self._key_path)
            self.last_swept = await asyncio.to_thread(
                sweep, self._directory, self._retention, key, self._clock(), may_remove=self._has_left
            )
        except (OSError, JournalFault) as exc:
            _log.error("audit_sweep_failed", error=str(exc))
            return None
        if self.last_swept.removed:
            _log.warning(
                "audit_segments_removed", count=self.last_swept.removed, freed=self.last_swept.freed_bytes
            )
        return self.last_swept

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            self._sweeping = asyncio.create_task(self.sweep_once())
            await asyncio.shield(self._sweeping)

    def _has_left(self, file: SegmentFile) -> bool:
        return all(shipper.has_shipped(file) for shipper in self._shippers)

"""Settings and tenants read again: checked whole before anything changes, then applied or left alone.

Three outcomes: `refused` (everything stays as it was, and why is said), `unchanged`, `applied`. Changed
settings reach workers by replacing them one by one; changed tenants reach all of them at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from cbk_gateway.assembly import data_port_options, validate
from cbk_gateway.settings import SettingsError
from cbk_gateway.settings.load import Loaded, load
from cbk_gateway.supervisor.changes import Change, differences, document_of, files_digest
from cbk_gateway.supervisor.fleet import Fitting, Fleet
from cbk_gateway.supervisor.process import WorkerFault, WorkerProcess
from cbk_gateway.supervisor.sockets import DataSockets
from cbk_gateway.supervisor.summing import Sum

_log = structlog.get_logger(__name__)

APPLIED: Final = "applied"
REFUSED: Final = "refused"
UNCHANGED: Final = "unchanged"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a reload.

    Attributes:
        result: applied, refused or unchanged.
        changes: Settings that differ.
        problems: Why it was refused.
    """

    result: str
    changes: Sequence[Change] = ()
    problems: Sequence[str] = field(default=())


class Reloading:
    """Reads settings again for a running fleet.

    Args:
        path: The settings' file; None for defaults and environment.
        loaded: The settings in force.
        workers: How many the command line asks for, instead of the settings.
        store_url: The embedded store's URL, if there is one.
    """

    def __init__(
        self,
        path: Path | None,
        loaded: Loaded,
        fleet: Fleet,
        total: Sum,
        sockets: DataSockets,
        *,
        workers: int | None,
        store_url: str | None,
    ) -> None:
        self._path = path
        self.loaded = loaded
        self._fleet = fleet
        self._sum = total
        self._sockets = sockets
        self._workers = workers
        self._store_url = store_url
        self._files = files_digest(loaded)
        self._tenants = _digest(loaded)
        self._turn = asyncio.Lock()

    def fitting(self, loaded: Loaded) -> Fitting:
        """What workers get with these settings; binds sockets when the address is new.

        Raises:
            OSError: The address cannot be bound.
        """
        document: dict[str, Any] = document_of(loaded.settings)
        if self._store_url is not None:
            document["store"]["url"] = self._store_url
        count = self._workers or loaded.settings.workers
        document["workers"] = count
        return Fitting(loaded, document, self._sockets.group(loaded.settings.listen, count), count)

    async def reload(self) -> Outcome:
        """Read everything again, and apply it if it can be used."""
        async with self._turn:
            outcome = await self._reload()
        self._sum.reloaded(outcome.result, time.time())
        shown = [str(change) for change in outcome.changes]
        if outcome.result == REFUSED:
            _log.error("reload_refused", problems=list(outcome.problems), changes=shown)
        else:
            _log.info("reloaded", result=outcome.result, changes=shown)
        return outcome

    async def restart(self) -> None:
        """Replace every worker, one by one, by one of the code and files as they are now.

        Raises:
            SettingsError, WorkerFault: The new code does not start. The workers are what they were.
        """
        async with self._turn:
            await self._fleet.refit(replace(self._fleet.fitting))

    async def _reload(self) -> Outcome:
        report = await asyncio.to_thread(validate, self._path)
        if report.problems:
            return Outcome(REFUSED, problems=[str(problem) for problem in report.problems])
        loaded = load(self._path)
        changes = differences(document_of(self.loaded.settings), document_of(loaded.settings))
        unfit = [change for change in changes if change.needs_restart]
        if unfit:
            return Outcome(
                REFUSED, changes, [f"{change.key} cannot change while running" for change in unfit]
            )
        files, tenants = files_digest(loaded), _digest(loaded)
        try:
            if changes or files != self._files:
                await self._fleet.refit(self.fitting(loaded))
                self._sockets.forget_others(self._fleet.fitting.sockets)
            else:
                await self._tell_tenants()
        except SettingsError as error:
            return Outcome(REFUSED, changes, [str(problem) for problem in error.problems])
        except OSError as fault:
            return Outcome(REFUSED, changes, [fault.strerror or str(fault)])
        is_new = bool(changes) or (files, tenants) != (self._files, self._tenants)
        self.loaded, self._files, self._tenants = loaded, files, tenants
        return Outcome(APPLIED if is_new else UNCHANGED, changes)

    async def _tell_tenants(self) -> None:
        """Let all workers read the tenants at the same time.

        Raises:
            WorkerFault: One could not use them, or did not answer.
        """
        for answer in await asyncio.gather(*(self._tell(one) for one in self._fleet.serving)):
            if not answer["usable"]:
                raise WorkerFault("; ".join(answer["problems"]))

    async def _tell(self, worker: WorkerProcess) -> dict[str, Any]:
        answer: dict[str, Any] = orjson.loads(await worker.ask("POST", "/tenants", timeout_s=30.0))
        return answer


def _digest(loaded: Loaded) -> bytes:
    """A digest over what workers take up as they are: the tenants' file, the data port's certificates."""
    whole = hashlib.sha256()
    tls = data_port_options(loaded).tls
    for path in (loaded.path(loaded.settings.tenants_file), *(tls.paths if tls is not None else ())):
        try:
            whole.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError:
            whole.update(b"unreadable")
    return whole.digest()

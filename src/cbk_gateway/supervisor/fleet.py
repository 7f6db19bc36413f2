"""The workers together: as many as wanted, each fitted out as the settings in force say.

Workers are replaced one by one: the new one serves before the old one drains, so the port is never without
a worker and there is at most one more than wanted. What is decided elsewhere: when to roll (`reloading.py`),
who accepts on which socket (`shares.py`), how long to wait after a death (`backoff.py`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from cbk_gateway.settings import SettingsError
from cbk_gateway.settings.load import Loaded
from cbk_gateway.supervisor.backoff import Backoff
from cbk_gateway.supervisor.launch import Order
from cbk_gateway.supervisor.process import State, WorkerFault, WorkerProcess, free_name
from cbk_gateway.supervisor.shares import shares

_log = structlog.get_logger(__name__)

START_PATIENCE_S: Final = 60.0
LOOK_EVERY_S: Final = 2.0
SILENT_S: Final = 20.0
# A worker takes its drain time once for requests and once more for those it has to cut off.
DRAINS: Final = 2.0
DRAIN_MARGIN_S: Final = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Fitting:
    """What workers are fitted out with. Two fittings are never equal: each is one generation.

    Attributes:
        loaded: The settings.
        document: The settings as workers get them, with the store's real URL.
        sockets: The group of sockets of the data port.
        count: How many workers there are to be.
    """

    loaded: Loaded
    document: dict[str, Any]
    sockets: tuple[socket.socket, ...]
    count: int

    @property
    def drain_patience_s(self) -> float:
        """Seconds after which a draining worker is stuck."""
        return self.loaded.settings.listen.drain_s * DRAINS + DRAIN_MARGIN_S


@dataclass(frozen=True, slots=True)
class FleetEvents:
    """Who is told what happens to workers.

    Attributes:
        ended: A worker is gone; its last snapshot, if it left one, is in it.
        restarted: One is started in place of another, and why: crashed, rolled, silent.
    """

    ended: Callable[[WorkerProcess], None]
    restarted: Callable[[str], None]


class Fleet:
    """The workers of one gateway.

    Args:
        folder: Where their control sockets go; only this user may enter it.
        events: Who is told.

    Attributes:
        workers: All that live, by name, the draining ones included.
        fitting: What new workers get; set by `open`.
    """

    def __init__(self, folder: Path, events: FleetEvents) -> None:
        self.workers: dict[str, WorkerProcess] = {}
        self.fitting: Fitting
        self._folder = folder
        self._events = events
        self._fittings: dict[WorkerProcess, Fitting] = {}
        self._backoff = Backoff()
        self._turn = asyncio.Lock()
        self._settling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent: set[WorkerProcess] = set()
        self._is_closing = False

    @property
    def serving(self) -> list[WorkerProcess]:
        """The workers that take requests, oldest first."""
        return [one for one in self.workers.values() if one.state is State.READY]

    @property
    def is_complete(self) -> bool:
        """Whether as many serve as are wanted."""
        return not self._is_closing and len(self.serving) >= self.fitting.count

    async def open(self, fitting: Fitting) -> None:
        """Start all workers at once.

        Raises:
            SettingsError: They cannot be built from their settings.
            WorkerFault: One did not start; none is left.
        """
        self.fitting = fitting
        try:
            async with asyncio.TaskGroup() as starts:
                for _ in range(fitting.count):
                    starts.create_task(self._grow())
        except ExceptionGroup as faults:
            await self.close()
            raise faults.exceptions[0] from None
        except BaseException:
            await self.close()
            raise
        self._spawn(self._look_after_the_silent())

    async def close(self) -> None:
        """Drain all workers at once, and end."""
        self._is_closing = True
        patience_s = self.fitting.drain_patience_s
        await asyncio.gather(*(one.end(patience_s) for one in list(self.workers.values())))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def refit(self, fitting: Fitting) -> None:
        """Replace every worker, one by one, by one with this fitting. Also: as many as it wants.

        Raises:
            SettingsError: The first new worker cannot be built from its settings.
            WorkerFault: A new worker did not start. The workers are what they were.
        """
        async with self._turn:
            before, self.fitting = self.fitting, fitting
            try:
                await self._converge()
            except (SettingsError, WorkerFault) as fault:
                _log.error("roll_given_up", fault=str(fault))
                self.fitting = before
                await self._return()
                raise

    async def _converge(self) -> None:
        for old in self._unlike(self.fitting)[: self.fitting.count]:
            await self._grow()
            self._events.restarted("rolled")
            await self._retire(old)
        while len(self.serving) < self.fitting.count:
            await self._grow()
        for old in self._unlike(self.fitting):
            await self._retire(old)
        for surplus in self.serving[self.fitting.count :]:
            await self._retire(surplus)

    async def _return(self) -> None:
        try:
            await self._converge()
        except (SettingsError, WorkerFault) as fault:
            # What was in force cannot be started any more either: those that serve go on.
            _log.error("roll_back_failed", fault=str(fault))

    def _unlike(self, fitting: Fitting) -> list[WorkerProcess]:
        return [one for one in self.serving if self._fittings[one] is not fitting]

    async def _grow(self) -> WorkerProcess:
        """Start one more worker and give it its share of the sockets."""
        fitting = self.fitting
        name = free_name(list(self.workers))
        mates = [one.name for one in self.serving if self._fittings[one].sockets is fitting.sockets]
        order = Order(
            name=name,
            settings_name=fitting.loaded.name,
            folder=str(fitting.loaded.folder),
            settings=fitting.document,
            sockets=tuple(one.fileno() for one in fitting.sockets),
            accepts=shares(len(fitting.sockets), [*mates, name])[name],
            control=str(self._folder / f"{name}.sock"),
            lifeline=-1,
        )
        worker = WorkerProcess(order)
        self.workers[name] = worker
        self._fittings[worker] = fitting
        try:
            await worker.start(START_PATIENCE_S)
        except BaseException:
            self._forget(worker)
            raise
        _log.info("worker_ready", worker=name, pid=worker.pid, took_s=round(worker.age_s, 2))
        self._spawn(self._see_off(worker))
        await self.settle()
        return worker

    async def _retire(self, worker: WorkerProcess) -> None:
        if worker.state is State.READY:
            worker.drain()
            await self.settle()
            await worker.end(self._fittings[worker].drain_patience_s)

    async def settle(self) -> None:
        """Share the sockets among those that serve."""
        async with self._settling:
            groups: dict[tuple[socket.socket, ...], list[WorkerProcess]] = {}
            for one in self.serving:
                groups.setdefault(self._fittings[one].sockets, []).append(one)
            for sockets, members in groups.items():
                due = shares(len(sockets), [one.name for one in members])
                for one in members:
                    if due[one.name] != one.accepts:
                        await self._give(one, due[one.name])

    async def _give(self, worker: WorkerProcess, places: tuple[int, ...]) -> None:
        try:
            await worker.ask("POST", "/accept", document=places)
            worker.accepts = places
        except WorkerFault as fault:
            # It is dying or stuck; its end is another occasion to share.
            _log.warning("share_not_given", worker=worker.name, fault=str(fault))

    async def _see_off(self, worker: WorkerProcess) -> None:
        """Wait for a worker's end; if nobody asked for it, put another in its place."""
        await worker.ended.wait()
        was_told = worker.was_told
        self._forget(worker)
        self._events.ended(worker)
        if was_told or self._is_closing:
            return
        reason = "silent" if worker in self._silent else "crashed"
        self._silent.discard(worker)
        _log.error(
            "worker_died", worker=worker.name, pid=worker.pid, reason=reason, exit_code=worker.exit_code
        )
        await self.settle()
        wait_s = self._backoff.wait_s(worker.age_s)
        while self._is_short():
            await asyncio.sleep(wait_s)
            try:
                self._events.restarted(reason)
                await self._grow()
            except (SettingsError, WorkerFault) as fault:
                wait_s = self._backoff.wait_s(0.0)
                _log.error("worker_not_started", fault=str(fault), again_in_s=wait_s)

    def _is_short(self) -> bool:
        return not self._is_closing and len(self.serving) < self.fitting.count

    async def _look_after_the_silent(self) -> None:
        """Kill workers that have not answered for long: a stuck loop serves nobody."""
        loop = asyncio.get_running_loop()
        heard: dict[WorkerProcess, float] = {}
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            present = {one: heard.get(one, loop.time()) for one in self.serving}
            answers = await asyncio.gather(*(self._answers(one) for one in present))
            for one, answered in zip(present, answers, strict=True):
                if answered:
                    present[one] = loop.time()
                elif loop.time() - present[one] > SILENT_S and one.state is State.READY:
                    self._silent.add(one)
                    one.kill()
            heard = present

    async def _answers(self, worker: WorkerProcess) -> bool:
        try:
            await worker.ask("GET", "/alive", timeout_s=LOOK_EVERY_S)
        except WorkerFault:
            return False
        return True

    def _forget(self, worker: WorkerProcess) -> None:
        self.workers.pop(worker.name, None)
        self._fittings.pop(worker, None)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

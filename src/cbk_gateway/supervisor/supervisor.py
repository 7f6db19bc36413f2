"""The process that `serve` runs: sockets, store, workers, operators' port, signals, service manager.

It serves no request of the API. Parts start in the order in which they need one another and stop in reverse;
when it is killed, its pipes close, and the store and the workers end by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from cbk_gateway import __version__
from cbk_gateway.assembly import admin_port_options, validate
from cbk_gateway.server import Port, bound_socket
from cbk_gateway.settings import SettingsError
from cbk_gateway.settings.load import Loaded, load
from cbk_gateway.store import EmbeddedServer
from cbk_gateway.supervisor.fleet import Fleet, FleetEvents
from cbk_gateway.supervisor.front import Front
from cbk_gateway.supervisor.notify import ServiceManager
from cbk_gateway.supervisor.process import WorkerFault
from cbk_gateway.supervisor.reloading import Reloading
from cbk_gateway.supervisor.sockets import DataSockets
from cbk_gateway.supervisor.summing import Sum

_log = structlog.get_logger(__name__)

EMBEDDED = "embedded"


class Supervisor:
    """A gateway of several processes, from start to end.

    Args:
        path: The settings' file; None for defaults and environment.
        workers: How many workers, instead of what the settings say.
        manager: The service manager.
    """

    def __init__(self, path: Path | None, workers: int | None, manager: ServiceManager) -> None:
        self._path = path
        self._workers = workers
        self._manager = manager
        self._stack = contextlib.AsyncExitStack()
        self._told = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloading: Reloading
        self._fleet: Fleet
        self._sum: Sum

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then let open requests end, and end.

        Raises:
            SettingsError: The settings cannot be used.
            OSError: A port is taken, or a worker does not start.
            StoreFault: The embedded store does not start.
        """
        async with self._stack:
            self._listen_to_signals()
            await self._start(_usable(self._path))
            self._manager.ready(self._fleet.fitting.count)
            self._spawn(self._reassure_watchdog())
            self._spawn(self._sum.follow(self._fleet))
            await self._told.wait()
            self._cancel_tasks()
            self._manager.stopping()
            _log.info("fleet_stopping", workers=len(self._fleet.workers))
        _log.info("fleet_stopped")

    async def _start(self, loaded: Loaded) -> None:
        enter = self._stack.callback
        folder = Path(tempfile.mkdtemp(prefix="cbkgw-"))
        enter(shutil.rmtree, folder, ignore_errors=True)

        sockets = DataSockets(self._manager.sockets("data"))
        enter(sockets.close)
        store_url = await self._start_store() if loaded.settings.store.url == EMBEDDED else None

        total = self._sum = Sum(loaded.settings.telemetry.tenant_cap)
        self._fleet = Fleet(folder, FleetEvents(ended=total.ended, restarted=total.restarted))
        self._reloading = Reloading(
            self._path, loaded, self._fleet, total, sockets, workers=self._workers, store_url=store_url
        )
        fitting = self._fleet.fitting = self._reloading.fitting(loaded)

        given = self._manager.sockets("admin")
        settings = loaded.settings.admin
        listening = given[0] if given else bound_socket(settings.host, settings.port, "admin.port")
        runner = web.AppRunner(Front(self._fleet, self._reloading, total).application(), access_log=None)
        front = Port(runner, listening, admin_port_options(loaded))
        self._stack.push_async_callback(front.close, 1.0)
        admin_url = await front.open()

        self._stack.push_async_callback(self._fleet.close)
        # Before the workers drain: connections that nobody will take are refused rather than kept waiting.
        enter(sockets.close)
        await self._fleet.open(fitting)
        host, port = fitting.sockets[0].getsockname()[:2]
        scheme = "https" if loaded.settings.listen.tls is not None else "http"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        _log.info(
            "fleet_ready",
            url=url,
            admin_url=admin_url,
            workers=fitting.count,
            pid=os.getpid(),
            version=__version__,
        )

    async def _start_store(self) -> str:
        store = EmbeddedServer(restarts=True)
        await asyncio.to_thread(store.start)
        self._stack.push_async_callback(asyncio.to_thread, store.stop)
        return store.url

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload()))
        loop.add_signal_handler(signal.SIGUSR2, lambda: self._spawn(self._restart()))

    def _stop(self) -> None:
        # A second one is left to its default, which ends this process at once, and the workers soon after.
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
        self._told.set()

    async def _reload(self) -> None:
        await self._announced(self._reloading.reload)

    async def _restart(self) -> None:
        with contextlib.suppress(SettingsError, WorkerFault):  # the fleet has said so
            await self._announced(self._reloading.restart)

    async def _announced(self, change: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Make a change that the service manager sees the beginning and the end of."""
        self._manager.reloading()
        try:
            await change()
        finally:
            if not self._told.is_set():
                self._manager.ready(self._fleet.fitting.count)

    async def _reassure_watchdog(self) -> None:
        while self._manager.watchdog_s:
            self._manager.alive()
            await asyncio.sleep(self._manager.watchdog_s / 2)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()


def _usable(path: Path | None) -> Loaded:
    """The settings, checked as a whole before anything starts.

    Raises:
        SettingsError: With everything that is wrong.
    """
    report = validate(path)
    if report.problems:
        raise SettingsError(report.problems)
    return load(path)

"""One worker, as a program: `python -m cbk_gateway.supervisor.worker`, started by the supervisor alone.

Its order stands on standard input. It reports on its lifeline, a socket to the supervisor, and watches it:
when the supervisor is gone, however it went, it finishes what it has begun and ends. SIGTERM drains it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from dataclasses import asdict
from typing import Final

import orjson
from aiohttp import web

from cbk_gateway.app import Gateway, Identification
from cbk_gateway.audit import JournalFault
from cbk_gateway.running import run, settle_memory, until_told
from cbk_gateway.server import Port, PortOptions, UnixPort
from cbk_gateway.settings import SettingsError
from cbk_gateway.settings.gateway import AdminSettings, ListenSettings
from cbk_gateway.store import StoreFault
from cbk_gateway.supervisor.control import Control
from cbk_gateway.supervisor.launch import Order
from cbk_gateway.telemetry import configure_logging, flush_logs

ORPHAN_PATIENCE_S: Final = 5
IDLE_GRACE_S: Final = 5.0


class InheritedDoors:
    """The doors of a worker: the supervisor's sockets, and a unix socket instead of the operators' port."""

    def __init__(self, order: Order, control: Control) -> None:
        self._order = order
        self._control = control

    def data(self, runner: web.ServerRunner, settings: ListenSettings, options: PortOptions) -> Port:
        """The data port, on the first socket of this worker's share."""
        del settings
        port = Port(runner, self._control.duplicate(self._order.accepts[0]), options)
        self._control.port = port
        return port

    def admin(self, application: web.Application, settings: AdminSettings, options: PortOptions) -> UnixPort:
        """The operators' application and the supervisor's routes."""
        del settings, options
        application.add_routes(self._control.routes())
        return UnixPort(web.AppRunner(application, access_log=None), self._order.control_path)


class Lifeline:
    """The socket to the supervisor: reports go up it, and its end is the supervisor's end."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def watch(self) -> None:
        """Watch in a thread of its own, so that a loop that is stuck does not outlive the supervisor."""
        threading.Thread(target=self._wait_for_the_end, name="lifeline", daemon=True).start()

    def report(self, **event: object) -> None:
        """One line for the supervisor, which may be gone."""
        try:
            self._socket.sendall(orjson.dumps(event) + b"\n")
        except OSError:
            return

    def _wait_for_the_end(self) -> None:
        try:
            while self._socket.recv(64):
                pass
        except OSError:
            pass
        # The alarm's default action ends the process even if nothing else in it moves any more.
        signal.alarm(ORPHAN_PATIENCE_S)
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    order = Order.decode(sys.stdin.buffer.read())
    lifeline = Lifeline(order.lifeline)
    lifeline.watch()
    loaded = order.loaded()
    configure_logging(loaded.settings.logging.level, loaded.settings.logging.form)
    try:
        run(lambda: _serve(order, lifeline))
    except SettingsError as error:
        lifeline.report(event="failed", problems=[asdict(problem) for problem in error.problems])
        return 1
    except (StoreFault, JournalFault, OSError) as fault:
        lifeline.report(event="failed", message=getattr(fault, "strerror", None) or str(fault))
        return 1
    finally:
        flush_logs()
    return 0


async def _serve(order: Order, lifeline: Lifeline) -> None:
    control = Control(order.sockets)
    gateway = Gateway(
        order.loaded(), identification=Identification(order.name), doors=InheritedDoors(order, control)
    )
    await gateway.start()
    try:
        control.gateway = gateway
        if control.port is not None:
            await control.port.accept_on([control.duplicate(place) for place in order.accepts])
        settle_memory()
        lifeline.report(event="ready")
        await until_told()
        # A port that nobody holds open any more refuses connections at once instead of letting them wait.
        control.let_go()
    finally:
        await gateway.stop(idle_grace_s=min(IDLE_GRACE_S, gateway.loaded.settings.listen.drain_s / 2))
        lifeline.report(event="ended", snapshot=gateway.parts.metrics.snapshot().decode())


if __name__ == "__main__":
    sys.exit(main())

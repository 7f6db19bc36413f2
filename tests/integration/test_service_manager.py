"""`serve` under a service manager: a socket passed in, and what it is told, over a real datagram socket."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from fleet_stage import FleetStage, serving, until

WATCHDOG_S = 1.0


class ServiceManager:
    """Hears what a service says of itself, as systemd's notify socket does."""

    def __init__(self, address: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(address))
        self.said: list[dict[str, str]] = []
        self.variables = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}

    def listen(self) -> None:
        """Take what has arrived."""
        while True:
            try:
                text = self._socket.recv(4096).decode()
            except BlockingIOError:
                return
            self.said.append(dict(line.split("=", 1) for line in text.splitlines()))

    async def heard(self, name: str, after: int = 0) -> int:
        """Wait for an assignment from a place on; the place after it."""

        async def find() -> int | None:
            self.listen()
            places = [n for n, one in enumerate(self.said[after:], after + 1) if name in one]
            return places[0] if places else None

        found: int = await until(find)
        return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    made = ServiceManager(tmp_path / "notify")
    yield made
    made.close()


@pytest.fixture
def door() -> Iterator[socket.socket]:
    """The data port, as a socket unit holds it."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as one:
        yield one


@asynccontextmanager
async def service(folder: Path, manager: ServiceManager, door: socket.socket) -> AsyncIterator[FleetStage]:
    """A gateway whose own settings name a port that is not the one it is given."""
    async with serving(
        folder, environ=manager.variables, activated_by=door.fileno(), listen={"drain_s": 2}
    ) as stage:
        yield stage


async def ask(door: socket.socket) -> int:
    """The status of a request at the door; it waits while nobody accepts."""
    url = f"http://127.0.0.1:{door.getsockname()[1]}/api/v1/bot/list"
    patience = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=patience) as session, session.get(url) as answer:
        return answer.status


async def test_the_service_says_when_it_is_ready_reloads_lives_and_stops(
    tmp_path: Path, manager: ServiceManager, door: socket.socket
) -> None:
    async with service(tmp_path, manager, door) as stage:
        place = await manager.heard("READY")
        assert manager.said[place - 1]["STATUS"] == "serving with 2 workers"
        for _ in range(3):
            place = await manager.heard("WATCHDOG", place)
        before_us = time.monotonic_ns() // 1000
        stage.process.send_signal(signal.SIGHUP)
        place = await manager.heard("RELOADING", place)
        # Without the time, Type=notify-reload would not know which reload this is.
        assert before_us <= int(manager.said[place - 1]["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        place = await manager.heard("READY", place)
        assert not any("STOPPING" in one for one in manager.said)
        stage.process.send_signal(signal.SIGTERM)
        await manager.heard("STOPPING", place)
        assert await stage.process.wait() == 0
        assert manager.said[0].get("READY") == "1"


async def test_a_connection_made_before_the_start_or_between_two_is_answered(
    tmp_path: Path, manager: ServiceManager, door: socket.socket
) -> None:
    early = asyncio.ensure_future(ask(door))
    async with service(tmp_path, manager, door) as stage:
        # Nobody's token: an answer of the gateway's own.
        assert await early == 401
        assert stage.url == f"http://127.0.0.1:{door.getsockname()[1]}"
        assert (await stage.workers()).keys() == {"0", "1"}
        assert await stage.stop() == 0
    between = asyncio.ensure_future(ask(door))
    async with service(tmp_path, manager, door) as stage:
        assert await between == 401
        assert await stage.stop() == 0

"""One worker seen from outside: started, asked, drained, ended. When and why is `fleet.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

import aiohttp
import orjson
import structlog

from cbk_gateway.settings import Problem, SettingsError
from cbk_gateway.supervisor.control import PREFIX
from cbk_gateway.supervisor.launch import Order

_log = structlog.get_logger(__name__)

# A snapshot of all series is one line.
_LONGEST_LINE: Final = 64 * 1024**2
_BASE: Final = "http://worker"


class WorkerFault(OSError):  # noqa: N818 - named like the other packages' faults
    """A worker did not start, or does not answer; the text says why, as far as it could tell."""


class State(StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    ENDED = "ended"


class WorkerProcess:
    """A worker process.

    Args:
        order: What it is told; its lifeline is filled in here.

    Attributes:
        order: What it was told.
        state: Where it is in its life.
        pid: Its process id, 0 before it is started.
        started_at: Epoch seconds of its start.
        last_snapshot: Its series when it ended in peace.
        accepts: Sockets of the group it accepts on, by place.
        was_told: Whether its end was asked for.
        ended: Set once the process is gone.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self.state = State.STARTING
        self.pid = 0
        self.started_at = 0.0
        self.last_snapshot: bytes | None = None
        self.accepts = order.accepts
        self.was_told = False
        self.ended = asyncio.Event()
        self.exit_code: int | None = None
        self._failure: dict[str, Any] = {}
        self._ready = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.name} {self.state} pid={self.pid}>"

    @property
    def name(self) -> str:
        """Its name among the workers."""
        return self.order.name

    @property
    def age_s(self) -> float:
        """Seconds since its start."""
        return time.time() - self.started_at

    async def start(self, patience_s: float) -> None:
        """Start the process and return once it serves.

        Raises:
            SettingsError: It cannot be built from its settings.
            WorkerFault: It ended, or took longer than `patience_s`. Nothing is left running.
        """
        ours, theirs = socket.socketpair()
        try:
            order = replace(self.order, lifeline=theirs.fileno())
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cbk_gateway.supervisor.worker"),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(order.lifeline, *order.sockets),
                # Ctrl-C reaches the supervisor alone, which then drains the workers in order.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid, self.started_at = self._process.pid, time.time()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LONGEST_LINE)
        self._reading = asyncio.get_running_loop().create_task(self._read(reader, writer, self._process))
        if self._process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(order.encode())
                await self._process.stdin.drain()
            self._process.stdin.close()
        await self._until_ready(patience_s)

    async def ask(self, method: str, path: str, *, document: object = None, timeout_s: float = 5.0) -> bytes:
        """A control answer of the worker.

        Raises:
            WorkerFault: It does not answer in time, or answers anything but 200.
        """
        status, _, body = await self.forward(
            method,
            PREFIX + path,
            body=orjson.dumps(document) if document is not None else b"",
            timeout_s=timeout_s,
        )
        if status != 200:
            raise WorkerFault(f"worker {self.name} answered {status}")
        return body

    async def forward(
        self,
        method: str,
        target: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 30.0,
    ) -> tuple[int, str, bytes]:
        """Pass a request on to the worker's operators' application: status, content type and body.

        Raises:
            WorkerFault: It does not answer in time.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path=self.order.control), cookie_jar=aiohttp.DummyCookieJar()
            )
        bound = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.request(
                method, _BASE + target, headers=headers, data=body, timeout=bound, allow_redirects=False
            ) as answer:
                return answer.status, answer.headers.get("Content-Type", ""), await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError, RuntimeError) as fault:
            # The library's word for a session that was closed because the worker has ended is RuntimeError.
            message = f"worker {self.name} does not answer: {type(fault).__name__}"
            raise WorkerFault(message) from None

    def drain(self) -> None:
        """Tell it to take no more requests, finish what it has, and end."""
        if self.state in {State.STARTING, State.READY}:
            self.was_told = True
            self.state = State.DRAINING
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    async def end(self, patience_s: float) -> None:
        """Drain it, and kill it when it takes longer than `patience_s`."""
        self.drain()
        try:
            async with asyncio.timeout(patience_s):
                await self.ended.wait()
        except TimeoutError:
            _log.error("worker_killed", worker=self.name, pid=self.pid, waited_s=patience_s)
            self.kill()
            await self.ended.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _until_ready(self, patience_s: float) -> None:
        waits = [asyncio.ensure_future(one.wait()) for one in (self._ready, self.ended)]
        try:
            await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self.kill()
            raise
        finally:
            for one in waits:
                one.cancel()
        if self.state is State.READY:
            return
        if not self.ended.is_set():
            self.kill()
            await self.ended.wait()
        raise self._fault(patience_s)

    def _fault(self, patience_s: float) -> Exception:
        if self._failure.get("problems"):
            return SettingsError([Problem(**problem) for problem in self._failure["problems"]])
        said = self._failure.get("message")
        if said:
            return WorkerFault(f"{said}")
        return WorkerFault(
            f"worker {self.name} was not ready within {patience_s:g} s (exit {self.exit_code})"
        )

    async def _read(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        process: asyncio.subprocess.Process,
    ) -> None:
        """Follow the lifeline to its end, then see the process off."""
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                self._hear(line)
        self.exit_code = await process.wait()
        writer.close()
        if self._session is not None:
            await self._session.close()
        with contextlib.suppress(OSError):
            os.unlink(self.order.control)  # noqa: PTH108 - a name in a folder of our own, gone at once
        self.state = State.ENDED
        self.ended.set()

    def _hear(self, line: bytes) -> None:
        # A worker that is killed may leave half a line.
        with contextlib.suppress(ValueError):
            event = orjson.loads(line)
            match event.get("event"):
                case "ready" if self.state is State.STARTING:
                    self.state = State.READY
                    self._ready.set()
                case "failed":
                    self._failure = event
                case "ended":
                    self.last_snapshot = str(event["snapshot"]).encode()
                case _:
                    _log.warning("worker_said_nonsense", worker=self.name)


def free_name(taken: Sequence[str]) -> str:
    """The lowest number that no living worker bears: a journal's folder has one writer at a time."""
    return next(name for name in map(str, range(len(taken) + 1)) if name not in taken)

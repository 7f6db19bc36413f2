"""The sandbox itself: its listener, its life, and the way of a request from socket to answer.

One method per station of that way. What an action does is in the handlers, how bytes leave is in `wire`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from cbk_gateway.sandbox import wire
from cbk_gateway.sandbox.answers import ApiError, JsonObject, error_answer
from cbk_gateway.sandbox.blobs import Blobs
from cbk_gateway.sandbox.calls import World
from cbk_gateway.sandbox.control import PREFIX, answer_control
from cbk_gateway.sandbox.faults import Fault, FaultBook, read_fault
from cbk_gateway.sandbox.paths import read_path
from cbk_gateway.sandbox.persistence import SqliteJournal
from cbk_gateway.sandbox.reception import answer_call, streams_body
from cbk_gateway.sandbox.request_log import RequestLog, RequestRecord
from cbk_gateway.sandbox.storage_tickets import answer_ticket
from cbk_gateway.sandbox.world import build_world, reset_world, seed_world

JSON_LIMIT_BYTES: Final = 32 * 1024 * 1024
_HEADER_BYTES: Final = 64 * 1024


class Sandbox:
    """A stand-in of the ChatBotKit API on a loopback port.

    Args:
        accounts: Secret key to account name; several keys may share an account.
        children: Account name to its child accounts, id to e-mail, for run-as.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        data: SQLite file that keeps the resources; contents of files are kept in a folder beside it. None
            keeps everything in memory.
        seed: Give each empty account a few example resources.

    Attributes:
        url: Base URL without a trailing slash, once started.
        log: What arrived.
        faults: What is planted.
    """

    def __init__(
        self,
        accounts: Mapping[str, str],
        children: Mapping[str, Mapping[str, str]] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        data: Path | None = None,
        *,
        seed: bool = False,
    ) -> None:
        self.accounts = dict(accounts)
        self.log = RequestLog()
        self.faults = FaultBook()
        self.host = host
        self.port = port
        self._children = children
        self._data = data
        self._seed = seed
        self._journal: SqliteJournal | None = None
        self._world: World | None = None
        self._runner: web.ServerRunner | None = None

    async def start(self) -> Self:
        """Open the data and the port.

        Raises:
            OSError: The port is taken, or the data file cannot be used; the message says which.
        """
        try:
            self._open_world()
            await self._listen()
        except BaseException:
            await self.stop()
            raise
        return self

    def _open_world(self) -> None:
        folder = None
        if self._data is not None:
            self._journal = SqliteJournal(self._data)
            folder = self._data.with_name(self._data.name + ".files")
        self._world = build_world(self.accounts, self._children, self._journal, Blobs(folder), time.time)
        if self._seed:
            seed_world(self._world)

    async def _listen(self) -> None:
        server = web.Server(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
            lingering_time=1.0,
        )
        # A streaming handler never ends by itself: it is cancelled as soon as the port is closed.
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.05)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.host, self.port).start()
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                error.errno, f"the sandbox cannot listen on {self.host}:{self.port}: {reason}"
            ) from error
        self.port = self._runner.addresses[0][1]
        self.world.base_url = self.url

    async def stop(self) -> None:
        """Close the port, end all streams, and let go of all files."""
        world, self._world = self._world, None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if world is not None:
            for task in list(world.tasks):
                task.cancel()
            await asyncio.gather(*world.tasks, return_exceptions=True)
            world.blobs.close()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"<Sandbox {self.url} {len(set(self.accounts.values()))} accounts>"

    @property
    def url(self) -> str:
        """Base URL, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def world(self) -> World:
        """What it serves, for tests in the same process.

        Raises:
            RuntimeError: It is not running.
        """
        if self._world is None:
            raise RuntimeError("the sandbox is not running")
        return self._world

    @property
    def requests(self) -> list[RequestRecord]:
        """The recorded requests, oldest first."""
        return self.log.records()

    def clear_requests(self) -> None:
        """Empty the request log."""
        self.log.clear()

    def add_fault(
        self,
        path: str,
        fault: str,
        *,
        method: str | None = None,
        value: object = None,
        times: int | None = None,
    ) -> Fault:
        """Plant a fault, as `POST /_sandbox/faults` does.

        Raises:
            ApiError: The fault is not one, or its value is of the wrong type.
        """
        planted = read_fault({"path": path, "fault": fault, "method": method, "value": value, "times": times})
        self.faults.add(planted)
        return planted

    def clear_faults(self) -> None:
        """Remove all faults."""
        self.faults.clear()

    def reset(self) -> None:
        """Forget all resources, records and faults; the configured accounts stay."""
        reset_world(self.world)
        self.log.clear()
        self.faults.clear()
        if self._seed:
            seed_world(self.world)

    def health(self) -> JsonObject:
        """How it is doing."""
        return {
            "status": "ok",
            "accounts": sorted(set(self.accounts.values())),
            "resources": sum(1 for _ in self.world.store.all_rows()),
            "requests": len(self.log.records()),
            "faults": len(self.faults.listing()),
        }

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        if path.startswith(PREFIX):
            return await self._answer_own(request, path)
        record = RequestRecord(request.method, path, query, request.raw_headers, self.world.store.now_ms())
        self.log.append(record)
        struck = self.faults.strike(request.method, path)
        record.faults = tuple(struck)
        try:
            return await self._serve(request, record, struck)
        finally:
            if record.outcome == "pending":
                record.outcome = "disconnected"

    async def _answer_own(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        record = RequestRecord(request.method, path, "", (), 0)
        try:
            if path.startswith(f"{PREFIX}/storage/"):
                answer = await answer_ticket(self.world, request, path.rpartition("/")[2])
            else:
                answer = await answer_control(self, request, path)
        except ApiError as error:
            answer = error_answer(error)
        return await wire.send_answer(request, record, answer, {})

    async def _serve(
        self, request: web.BaseRequest, record: RequestRecord, struck: Mapping[str, Fault]
    ) -> web.StreamResponse:
        target = read_path(record.path)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        raw = b""
        if request.can_read_body and not streams_body(request, target):
            try:
                raw = await self._read_body(request, record)
            except ApiError as error:
                return await wire.send_answer(request, record, error_answer(error), {})
        if "latency" in struck:
            await wire.wait_latency(struck["latency"])
        if "drop_before" in struck:
            return wire.drop(request, record, struck["drop_before"])
        if "rate_limited" in struck:
            return await wire.send_answer(request, record, wire.fault_answer(struck["rate_limited"]), {})
        status = struck.get("status")
        is_late = status is not None and isinstance(status.value, dict) and status.value.get("after_effect")
        if status is not None and not is_late:
            return await wire.send_answer(request, record, wire.fault_answer(status), {})
        if "slow_json_error" in struck:
            return await wire.send_slow_error(request, record, struck["slow_json_error"])
        answer = await answer_call(self.world, request, record, target, raw)
        if "drop_after_effect" in struck:
            await wire.drain_answer(answer)
            return wire.drop(request, record, struck["drop_after_effect"])
        if status is not None:
            await wire.drain_answer(answer)
            return await wire.send_answer(request, record, wire.fault_answer(status), {})
        return await wire.send_answer(request, record, answer, struck)

    async def _read_body(self, request: web.BaseRequest, record: RequestRecord) -> bytes:
        pieces = bytearray()
        async for piece in request.content.iter_any():
            pieces += piece
            if len(pieces) > JSON_LIMIT_BYTES:
                raise ApiError(413)
        raw = bytes(pieces)
        record.keep_body(raw)
        return raw

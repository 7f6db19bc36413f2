"""A scripted upstream on a raw socket, which misbehaves on command, and calls to send to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from cbk_gateway.operation import understand
from cbk_gateway.upstream import Call, Upstream, UpstreamOptions

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
PATIENCE_S = 20.0


class Peer:
    """The upstream's end of one connection."""

    def __init__(self, sock: socket.socket, index: int) -> None:
        self.sock = sock
        self.index = index
        self._loop = asyncio.get_running_loop()
        self._rest = b""

    async def head(self) -> bytes:
        """The next request head, blank line included; empty when the gateway closed instead."""
        while b"\r\n\r\n" not in self._rest:
            piece = await self._loop.sock_recv(self.sock, 65536)
            if not piece:
                return b""
            self._rest += piece
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    async def read(self, count: int) -> bytes:
        while len(self._rest) < count:
            piece = await self._loop.sock_recv(self.sock, 65536)
            if not piece:
                break
            self._rest += piece
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    async def read_to_end(self) -> bytes:
        """Everything until the gateway closes or resets."""
        with contextlib.suppress(OSError):
            while piece := await self._loop.sock_recv(self.sock, 65536):
                self._rest += piece
        return self._rest

    async def send(self, octets: bytes) -> None:
        await self._loop.sock_sendall(self.sock, octets)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class Scripted:
    """A listening upstream that runs `script` for each connection."""

    script: Script
    port: int = 0
    accepted: int = 0
    errors: list[BaseException] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def run(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(sock, self.accepted)
            self.peers.append(peer)
            self.accepted += 1
            task = loop.create_task(self._serve(peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, peer: Peer) -> None:
        try:
            await self.script(peer)
        except OSError:
            pass
        except Exception as exc:  # noqa: BLE001 - a failed assertion of a script must reach the test
            self.errors.append(exc)
        finally:
            peer.close()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[Scripted]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server = Scripted(script, port=listener.getsockname()[1])
    accepting = asyncio.get_running_loop().create_task(server.run(listener))
    try:
        yield server
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        await server.stop()
        listener.close()
        for peer in server.peers:
            peer.close()
    assert not server.errors, server.errors


@contextlib.asynccontextmanager
async def tls_server(
    context: ssl.SSLContext, answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await answer(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def running(url: str, **options: Any) -> AsyncIterator[Upstream]:
    upstream = Upstream(UpstreamOptions(url=url, **options))
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


def make_call(
    method: str = "GET",
    path: str = "/api/v1/bot/list",
    body: bytes | AsyncIterator[bytes] | None = None,
    *,
    length: int | None = None,
    headers: Sequence[tuple[str, str]] = (("Host", "up.test"), ("Accept", "*/*")),
    account: str = "acct",
) -> Call:
    return Call(understand(method, path), list(headers), body, length, account)


def create_call(body: bytes | AsyncIterator[bytes] | None = b"{}", length: int | None = None) -> Call:
    return make_call("POST", "/api/v1/bot/create", body, length=length)


async def until(condition: Callable[[], bool]) -> None:
    """Poll until `condition` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)


class Kit:
    """What the tests of this folder share, in the form of a fixture."""

    scripted = staticmethod(scripted)
    tls_server = staticmethod(tls_server)
    running = staticmethod(running)
    call = staticmethod(make_call)
    create = staticmethod(create_call)
    until = staticmethod(until)
    ok = OK


@pytest.fixture
def kit() -> Kit:
    return Kit()

"""Clients that are slow, silent or greedy: each is told so where it can be, and let go in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from cbk_gateway.data_server import GatewayServer
from cbk_gateway.settings.gateway import ListenSettings
from cbk_gateway.store import Store
from harness import Stage, running, serving

PATIENCE_S = 0.3
HASTY = {
    "port": 0,
    "head_timeout_s": PATIENCE_S,
    "body_timeout_s": PATIENCE_S,
    "write_timeout_s": PATIENCE_S,
    "keepalive_s": 4 * PATIENCE_S,
    "drain_s": 1,
}
LARGE = 24 * 1024 * 1024
PIECE = b" " * 65_536
GET = b"GET /api/v1/%s HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer %s\r\n%s\r\n"
CREATE = b"POST /api/v1/bot/create HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer %s\r\n"
JSON = b"Content-Type: application/json\r\n"


@pytest.fixture
async def hasty(tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[Stage]:
    """A stage that loses patience at once, so that tests of patience need none."""
    async with running(tmp_path, valkey_url, listen=HASTY) as one:
        yield one


class LargeAnswers:
    """An upstream whose every answer is large. Knows how much of them it got rid of."""

    def __init__(self) -> None:
        self.written = 0

    def running(self) -> AbstractAsyncContextManager[str]:
        return serving(self._serve)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % LARGE + JSON + b"\r\n")
                for _ in range(LARGE // len(PIECE)):
                    writer.write(PIECE)
                    await writer.drain()
                    self.written += len(PIECE)
        writer.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def connections(stage: Stage) -> int:
    exposition, _ = stage.gateway.parts.metrics.exposition()
    found = re.search(rb"^cbk_gateway_client_connections (\d+)", exposition, re.MULTILINE)
    assert found is not None
    return int(found[1])


def is_deaf(stage: Stage) -> bool:
    """Whether the gateway has stopped reading from its only client."""
    _, data_port = stage.gateway._ports
    server = data_port._runner.server
    assert isinstance(server, GatewayServer)
    transports = [one.transport for one in server.connections]
    return bool(transports) and all(one is not None and not one.is_reading() for one in transports)


def is_full(connection: socket.socket) -> bool:
    """Whether nothing more can be sent."""
    return not select.select([], [connection], [], 0)[1]


def reluctant(stage: Stage) -> socket.socket:
    """A client's connection into which little fits, so that it can be seen not to read."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    made.connect(("127.0.0.1", int(stage.url.rpartition(":")[2])))
    made.setblocking(False)
    return made


async def rest_of(connection: socket.socket) -> bytes:
    loop, heard = asyncio.get_running_loop(), bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := await loop.sock_recv(connection, 1 << 20):
            heard += piece
    return bytes(heard)


async def exchanged(stage: Stage, *pieces: bytes) -> bytes:
    """Send pieces on a new connection, and return all that comes back until it is closed."""
    with reluctant(stage) as connection:
        for piece in pieces:
            await asyncio.get_running_loop().sock_sendall(connection, piece)
        async with asyncio.timeout(20):
            return await rest_of(connection)


@pytest.mark.parametrize(
    ("path", "whole_bytes"),
    [
        pytest.param(b"file/f/download", 1024 * 1024, id="streamed"),
        pytest.param(b"bot/b/fetch", 2 * LARGE, id="whole"),
    ],
)
async def test_a_client_that_does_not_read_is_cut_off(
    tmp_path: Path, valkey_url: str, store: Store, path: bytes, whole_bytes: int
) -> None:
    remote = LargeAnswers()
    cache = {"max_entry_bytes": whole_bytes, "l1_max_bytes": 4 * LARGE}
    async with (
        remote.running() as url,
        running(tmp_path, valkey_url, sandbox_url=url, listen=HASTY, cache=cache) as stage,
    ):
        with reluctant(stage) as connection:
            # More than one answer is asked for; the others are never begun.
            asked = GET % (path, stage.token().encode(), b"")
            await asyncio.get_running_loop().sock_sendall(connection, asked * 3)
            await until(lambda: remote.written > 0)
            await until(lambda: connections(stage) == 0)
            heard = await rest_of(connection)
        assert len(heard) < LARGE
        # What nobody reads is not fetched either, but for what is taken whole before it is given.
        assert remote.written <= LARGE
        if whole_bytes < LARGE:
            assert remote.written < LARGE


async def test_a_last_answer_that_is_not_read_does_not_keep_its_connection(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    """What is left to send is too little to stop the server, but closing would wait for it for ever."""
    remote = LargeAnswers()
    async with (
        remote.running() as url,
        running(tmp_path, valkey_url, sandbox_url=url, listen=HASTY) as stage,
    ):
        with reluctant(stage) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            refused = GET % (b"bot/list", b"x", b"Connection: close\r\n")
            await asyncio.get_running_loop().sock_sendall(connection, refused)
            await until(lambda: connections(stage) == 0)
            assert (await rest_of(connection)).startswith(b"HTTP/1.1 401 ")


async def test_few_pipelined_requests_are_held_and_the_rest_waits_outside(hasty: Stage) -> None:
    """A client that sends without reading finds its connection full, then closed."""
    hasty.sandbox.add_fault("/api/v1/bot/list", "latency", value=60_000)
    request = GET % (b"bot/list", hasty.token().encode(), b"")
    loop, sent = asyncio.get_running_loop(), 0
    with reluctant(hasty) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        flood = request * (1 + 1_000_000 // len(request))

        async def send_all() -> None:
            nonlocal sent
            with contextlib.suppress(ConnectionError):
                while sent < 64 * len(flood):
                    await loop.sock_sendall(connection, flood)
                    sent += len(flood)

        sending = asyncio.create_task(send_all())
        await until(lambda: sending.done() or (is_deaf(hasty) and is_full(connection)))
        await until(lambda: len(hasty.sandbox.requests) > 0)
        sent_when_full = sent
        for _ in range(5):
            # Others are served meanwhile, and it stays so.
            refused = GET % (b"bot/list", b"x", b"Connection: close\r\n")
            assert (await exchanged(hasty, refused)).startswith(b"HTTP/1.1 401 ")
            assert sending.done() or is_full(connection)
        assert sent == sent_when_full
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert sent < 16 * len(flood)
    assert len(hasty.sandbox.requests) == 1


async def test_a_silent_connection_is_told_and_closed(hasty: Stage) -> None:
    assert (await exchanged(hasty)).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("beginning", [b"G", b"GET /api", b"GET /api/v1/bot/list HTTP/1.1\r\nHost: gw\r\nX:"])
async def test_half_a_head_is_told_and_closed_also_after_an_answer(hasty: Stage, beginning: bytes) -> None:
    assert (await exchanged(hasty, beginning)).startswith(b"HTTP/1.1 408 ")
    whole = GET % (b"bot/list", hasty.token().encode(), b"")
    # Twice the same, so that it is answered without being parsed where that is possible.
    for before in (whole, whole * 2, whole * 3):
        answer = await exchanged(hasty, before, beginning)
        assert answer.count(b"HTTP/1.1 200 ") == before.count(b"GET ")
        assert answer.count(b"HTTP/1.1 408 ") == 1


BODIES = {
    "no body": (b"Content-Length: 20\r\n\r\n", b""),
    "half a body": (b"Content-Length: 20\r\n\r\n", b'{"na'),
    "no chunk": (b"Transfer-Encoding: chunked\r\n\r\n", b""),
    "half a chunk": (b"Transfer-Encoding: chunked\r\n\r\n", b'14\r\n{"na'),
    "half a chunk size": (b"Transfer-Encoding: chunked\r\n\r\n", b"1"),
    "no last chunk": (b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\n{}\r\n"),
    "half a trailer": (b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\n{}\r\n0\r\nX: "),
    "no body after it was invited": (b"Content-Length: 20\r\nExpect: 100-continue\r\n\r\n", b""),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_does_not_come_is_told_and_closed(hasty: Stage, name: str) -> None:
    fields, body = BODIES[name]
    answer = await exchanged(hasty, CREATE % hasty.token().encode() + JSON + fields, body)
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not hasty.sandbox.requests


async def test_an_upload_that_stops_is_told_and_ended_upstream(hasty: Stage) -> None:
    head = b"POST /api/v1/space/s/storage/upload/x HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer %s\r\n"
    fields = b"Content-Type: application/octet-stream\r\nContent-Length: 200000\r\n\r\n"
    answer = await exchanged(hasty, head % hasty.token().encode() + fields, b"x" * 100_000)
    assert answer.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 404 "))
    await until(lambda: all(one.outcome != "pending" for one in hasty.sandbox.requests))


@pytest.mark.parametrize("kind", ["head", "body", "chunked body"])
async def test_dripping_lasts_no_longer_than_silence(hasty: Stage, kind: str) -> None:
    """Bytes buy time at a rate that nobody can live on: a few octets buy next to none."""
    head = CREATE % hasty.token().encode() + JSON
    begun = {
        "head": b"GET /",
        "body": head + b"Content-Length: 4000\r\n\r\n",
        "chunked body": head + b"Transfer-Encoding: chunked\r\n\r\nfa0\r\n",
    }[kind]
    loop = asyncio.get_running_loop()
    with reluctant(hasty) as connection:
        await loop.sock_sendall(connection, begun)
        heard = asyncio.create_task(rest_of(connection))
        drops = 0
        while not heard.done() and drops < 2000:
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(connection, b"a")
            drops += 1
            await asyncio.wait({heard}, timeout=0.01)
        assert (await heard).startswith(b"HTTP/1.1 408 ")
    assert drops < 2000
    assert not hasty.sandbox.requests


async def test_an_idle_connection_is_closed_without_a_word(hasty: Stage) -> None:
    answer = await exchanged(hasty, GET % (b"bot/list", hasty.token().encode(), b""))
    assert answer.count(b"HTTP/1.1 ") == 1


def test_each_is_ended_within_half_a_minute_by_default() -> None:
    defaults = ListenSettings()
    assert defaults.head_timeout_s < 30
    # A body pays for its time at 2 KiB a second: what is dripped buys no more than these few seconds.
    assert defaults.body_timeout_s < 30

"""Large bodies through the whole gateway: at constant memory, no faster than they are read, and whole."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from cbk_gateway.store import Store
from harness import Stage, running, serving

PIECE = b"\xc3\xa9" * 32_768
SHORT, LONG = 200 * 1024 * 1024, 1024 * 1024 * 1024
MOST_GROWTH = 64 * 1024 * 1024


class Remote:
    """An upstream that swallows uploads and makes downloads out of nothing."""

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self.received = 0
        self.written = 0

    def running(self) -> AbstractAsyncContextManager[str]:
        return serving(self._serve, limit=262_144, backlog=512)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._answer(head, reader, writer)
        writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        left = int(fields.get(b"content-length", b"0"))
        is_upload = b"/upload " in head
        while left:
            piece = await reader.read(min(left, 262_144))
            if not piece:
                return
            left -= len(piece)
            self.received += len(piece) if is_upload else 0
        if b"/download " in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.size)
            for _ in range(self.size // len(PIECE)):
                writer.write(PIECE)
                await writer.drain()
                self.written += len(PIECE)
        else:
            is_head = head.startswith(b"HEAD")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"" if is_head else b"{}"))
        await writer.drain()


@contextlib.asynccontextmanager
async def behind(folder: Path, store_url: str, remote: Remote) -> AsyncIterator[Stage]:
    async with remote.running() as url, running(folder, store_url, sandbox_url=url) as stage:
        yield stage


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def assert_constant(what: str, size: int, growth: int) -> None:
    sys.stdout.write(f"\n{what} of {size >> 20} MiB: resident memory grew by {growth / 2**20:.1f} MiB\n")
    assert growth < MOST_GROWTH


SIZES = [
    pytest.param(SHORT, id="200MB"),
    pytest.param(LONG, id="1GB", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
]


@pytest.mark.parametrize("size", SIZES)
async def test_an_upload_passes_at_constant_memory(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession, size: int
) -> None:
    remote, most = Remote(), 0

    async def file() -> AsyncIterator[bytes]:
        nonlocal most
        for _ in range(size // len(PIECE)):
            yield PIECE
            most = max(most, resident())

    async with behind(tmp_path, valkey_url, remote) as stage:
        before = resident()
        fields = {
            **stage.bearer(),
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size),
            "Expect": "100-continue",
        }
        url = f"{stage.url}/api/v1/file/f1/upload"
        async with client.post(url, data=file(), headers=fields) as answer:
            assert (answer.status, await answer.read()) == (200, b"{}")
    assert remote.received == size
    assert_constant("upload", size, most - before)


@pytest.mark.parametrize("size", SIZES)
async def test_a_download_passes_at_constant_memory(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession, size: int
) -> None:
    received = most = 0
    async with behind(tmp_path, valkey_url, Remote(size)) as stage:
        before = resident()
        url = f"{stage.url}/api/v1/file/f1/download"
        async with client.get(url, headers=stage.bearer()) as answer:
            async for piece in answer.content.iter_any():
                received += len(piece)
                most = max(most, resident())
    assert received == size
    assert_constant("download", size, most - before)


async def test_a_reader_that_stops_stops_the_upstream_and_not_the_memory(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    remote = Remote(SHORT)
    async with behind(tmp_path, valkey_url, remote) as stage:
        port = urlsplit(stage.url).port
        head = (
            f"GET /api/v1/file/f1/download HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stage.token()}\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=65_536)
        writer.write(head.encode() + b"\r\n")
        assert b"200" in await reader.readline()
        pool = stage.gateway.parts.upstream.pool
        async with asyncio.timeout(30):
            # Stalled is when the gateway has stopped reading from the upstream.
            while all(one._transport is None or one._transport.is_reading() for one in pool._all):
                await asyncio.sleep(0.01)
        assert 0 < remote.written < SHORT // 4
        writer.transport.abort()


@pytest.mark.parametrize("who", ["nobody", "globex"])
async def test_what_is_refused_is_refused_before_its_body_is_read(stage: Stage, who: str) -> None:
    """A client that waits for leave to send (RFC 9110 section 10.1.1) gets the refusal instead."""
    secret = "garbage" if who == "nobody" else stage.token(who)
    port = urlsplit(stage.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /api/v1/file/f1/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
        "Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
    )
    writer.write(head.encode())
    status = await asyncio.wait_for(reader.readline(), 20)
    assert status.split()[1] == (b"401" if who == "nobody" else b"403")
    assert not [record for record in stage.sandbox.requests if record.path.endswith("/upload")]
    writer.close()

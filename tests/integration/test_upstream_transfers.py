"""Uploads and downloads pass at constant memory, through slow ends on either side."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cbk_gateway.operation import understand
from cbk_gateway.upstream import Call, Upstream, UpstreamOptions

SIZE = 200 * 1024 * 1024
PIECE = b"\xc3\xa9" * 32_768
MOST_GROWTH = 32 * 1024 * 1024


class RemoteStore:
    """An upstream that swallows uploads and makes downloads out of nothing, in a thread."""

    def __init__(self) -> None:
        self.received = 0
        self.port = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[RemoteStore]:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(30)
        self.port = listener.getsockname()[1]
        thread = threading.Thread(target=self._serve, args=(listener,))
        thread.start()
        try:
            yield self
        finally:
            thread.join(30)
            listener.close()

    def _serve(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(OSError):
            sock.settimeout(30)
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(65536)
            if head.startswith(b"POST"):
                self._swallow(sock, head)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            else:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
                for _ in range(SIZE // len(PIECE)):
                    sock.sendall(PIECE)

    def _swallow(self, sock: socket.socket, head: bytes) -> None:
        buffer = bytearray(262_144)
        self.received = len(head) - head.index(b"\r\n\r\n") - 4
        declared = re.search(rb"Content-Length: (\d+)", head)
        if declared is not None:
            while self.received < int(declared[1]):
                self.received += sock.recv_into(buffer)
            return
        tail = b""
        while not tail.endswith(b"0\r\n\r\n"):
            count = sock.recv_into(buffer)
            self.received += count
            tail = (tail + bytes(buffer[max(0, count - 5) : count]))[-5:]


class Watch:
    """The most memory this process had beyond what it began with."""

    def __init__(self) -> None:
        self.began = self._resident()
        self.growth = 0

    def look(self) -> None:
        self.growth = max(self.growth, self._resident() - self.began)

    @staticmethod
    def _resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@contextlib.asynccontextmanager
async def running(port: int) -> AsyncIterator[Upstream]:
    upstream = Upstream(UpstreamOptions(url=f"http://127.0.0.1:{port}"))
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


@pytest.mark.parametrize("length", [SIZE, None], ids=["declared", "chunked"])
async def test_an_upload_passes_at_constant_memory(length: int | None) -> None:
    watch = Watch()

    async def file() -> AsyncIterator[bytes]:
        for number in range(SIZE // len(PIECE)):
            yield PIECE
            if number % 100 == 0:
                watch.look()

    with RemoteStore().running() as remote:
        async with running(remote.port) as upstream:
            call = Call(understand("POST", "/v1/file/f1/upload"), [("Host", "h")], file(), length)
            async with await upstream.send(call) as answer:
                assert await answer.read(10) == b"{}"
    assert remote.received >= SIZE
    assert watch.growth < MOST_GROWTH


async def test_a_download_passes_at_constant_memory() -> None:
    watch = Watch()
    received = 0
    with RemoteStore().running() as remote:
        async with running(remote.port) as upstream:
            call = Call(understand("GET", "/v1/file/f1/download"), [("Host", "h")])
            async with await upstream.send(call) as answer:
                assert answer.content_length == SIZE
                looked_at = 0
                async for piece in answer.chunks():
                    received += len(piece)
                    if received - looked_at > 4_000_000:
                        looked_at = received
                        watch.look()
    assert received == SIZE
    assert watch.growth < MOST_GROWTH

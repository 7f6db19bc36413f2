"""An upstream that answers as each test tells it: keep-alive, real sockets, TLS when given a context.

For what the sandbox never does: odd heads, broken framing, silence at a chosen byte, endless streams.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import aiohttp

PATIENCE_S: Final = 30.0
JSONL: Final = b"Content-Type: application/jsonl\r\n"
SSE: Final = b"Content-Type: text/event-stream\r\n"
JSON: Final = b"Content-Type: application/json\r\n"


@dataclass(slots=True)
class Asked:
    """One request as it came, and the connection to answer it on.

    Attributes:
        connection: Number of the connection, in the order of accepting.
        left: Set once the other side has closed.
    """

    head: bytes
    body: bytes
    connection: int
    writer: asyncio.StreamWriter
    left: asyncio.Event

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    def field(self, name: str) -> str | None:
        """A header's value, by name in any case."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.lower() == name.lower().encode():
                return value.strip().decode()
        return None

    async def write(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def chunk(self, *pieces: bytes) -> None:
        for piece in pieces:
            await self.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    async def begin(self, fields: bytes = JSON, status: bytes = b"200 OK") -> None:
        """The head of a chunked answer."""
        await self.write(b"HTTP/1.1 " + status + b"\r\n" + fields + b"Transfer-Encoding: chunked\r\n\r\n")

    async def end(self) -> None:
        """The end of a chunked answer."""
        await self.write(b"0\r\n\r\n")

    async def say(self, body: bytes = b"{}", fields: bytes = JSON, status: bytes = b"200 OK") -> None:
        """A whole answer."""
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        await self.write(
            b"HTTP/1.1 " + status + b"\r\n" + fields + length + (b"" if self.method == "HEAD" else body)
        )


Answer = Callable[[Asked], Awaitable[None]]


@dataclass(slots=True)
class ToldApi:
    """The upstream; `asked` are the requests so far, probes by HEAD left out."""

    answer: Answer
    url: str = ""
    accepted: int = 0
    asked: list[Asked] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def line(self) -> asyncio.StreamReaderProtocol:
        left = asyncio.Event()
        reader = asyncio.StreamReader(limit=1 << 20)
        return _Line(reader, left, self._connected)

    def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: asyncio.Event
    ) -> None:
        number, self.accepted = self.accepted, self.accepted + 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, left, number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: asyncio.Event, number: int
    ) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                one = Asked(head, await _body(reader, head), number, writer, left)
                if one.method == "HEAD":
                    await one.say()
                else:
                    self.asked.append(one)
                    await self.answer(one)
        except (OSError, asyncio.IncompleteReadError):
            pass
        except Exception as exc:  # noqa: BLE001 - what goes wrong in an answer must reach the test
            self.errors.append(exc)
        finally:
            writer.close()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Line(asyncio.StreamReaderProtocol):
    """A connection that says when the other side has left, whatever is being read or written."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        left: asyncio.Event,
        connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Event], None],
    ) -> None:
        super().__init__(reader, lambda a_reader, a_writer: connected(a_reader, a_writer, left))
        self._left = left

    def eof_received(self) -> bool:
        self._left.set()
        return bool(super().eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._left.set()
        super().connection_lost(exc)


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if b"content-length" in fields:
        return await reader.readexactly(int(fields[b"content-length"]))
    body = b""
    while fields.get(b"transfer-encoding") == b"chunked":
        size = int(await reader.readuntil(b"\r\n"), 16)
        body += (await reader.readexactly(size + 2))[:-2]
        if not size:
            break
    return body


@asynccontextmanager
async def told(answer: Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[ToldApi]:
    """The upstream, running. What an answer raises, broken connections apart, fails the test at the end."""
    api = ToldApi(answer)
    server = await asyncio.get_running_loop().create_server(
        api.line, "127.0.0.1", 0, ssl=context, backlog=2048
    )
    scheme = "http" if context is None else "https"
    api.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield api
    finally:
        server.close()
        await api.stop()
    assert not api.errors, api.errors


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that is about to become true."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.005)


async def gather(answer: aiohttp.ClientResponse, received: bytearray) -> None:
    """Add what comes; it is kept when the answer breaks off."""
    async for piece in answer.content.iter_any():
        received += piece

"""Bytes on sockets: a client that writes its requests by hand, and an upstream that answers as it is told.

For what HTTP libraries hide: framing, connections, pipelining, the moment at which a piece arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

Got = TypeVar("Got")

_PATIENCE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer as it stood on the wire.

    Attributes:
        version: `HTTP/1.0` or `HTTP/1.1`.
        headers: By lower-case name.
        body: After removal of the transfer coding, if there was one.
    """

    version: str
    status: int
    headers: dict[str, str]
    body: bytes


class Line:
    """One connection of a client, with every wait bounded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def write(self, text: str) -> None:
        """Write requests, line ends being `\\n` here and CRLF on the wire."""
        self._writer.write(text.replace("\n", "\r\n").encode())

    async def reply(self) -> Reply:
        """The next answer on this connection."""
        version, status, headers = await self.head()
        if "content-length" in headers:
            body = await self._within(self._reader.readexactly(int(headers["content-length"])))
        elif headers.get("transfer-encoding") == "chunked":
            body = b"".join([piece async for piece in self.chunks()])
        elif status in {204, 304}:
            body = b""
        else:
            body = await self._within(self._reader.read())
        return Reply(version, status, headers, body)

    async def head(self) -> tuple[str, int, dict[str, str]]:
        """The next answer's head, its body still to come."""
        head = await self._within(self._reader.readuntil(b"\r\n\r\n"))
        status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        version, status, *_ = status_line.split(" ")
        pairs = (line.partition(":") for line in lines)
        return version, int(status), {name.lower(): value.strip() for name, _, value in pairs}

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks of a chunked body, as they arrive (RFC 9112 section 7.1)."""
        while True:
            size = int(await self._within(self._reader.readuntil(b"\r\n")), 16)
            piece = await self._within(self._reader.readexactly(size + 2))
            if size == 0:
                return
            yield piece[:-2]

    async def read_into(self, pieces: list[bytes]) -> None:
        """Add the chunks of a chunked body as they arrive; they are kept when it breaks off."""
        async for piece in self.chunks():
            pieces.append(piece)  # noqa: PERF401 - a comprehension would lose them all

    async def is_closed(self) -> bool:
        """Whether the other side closes the connection now, with nothing more to say."""
        return await self._within(self._reader.read()) == b""

    @staticmethod
    async def _within(reading: Awaitable[Got]) -> Got:
        async with asyncio.timeout(_PATIENCE_S):
            return await reading


@asynccontextmanager
async def dialled(url: str) -> AsyncIterator[Line]:
    """A connection to a server at `http://host:port`."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


@dataclass(slots=True)
class Upstream:
    """A server that gives every request the bytes it was told to, by pieces.

    Attributes:
        heads: The heads of the requests that came.
        answer: Writes the answer to one request.
    """

    answer: Callable[[asyncio.StreamWriter], Awaitable[None]]
    heads: list[bytes] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection; it serves one request."""
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            await self.answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def upstream(*pieces: bytes) -> AsyncIterator[Upstream]:
    """An upstream that answers everything with these bytes and closes."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    async with upstream_that(answer) as one:
        yield one


@asynccontextmanager
async def upstream_that(
    answer: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Upstream]:
    """An upstream that answers everything as the function does."""
    one = Upstream(answer)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()
        await server.wait_closed()

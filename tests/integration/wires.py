"""A client that speaks in bytes, for tests of what is answered from the bytes of a request."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harness import Stage


class Wire:
    """One connection, spoken to in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, head: bytes) -> bytes:
        """Send a request in one piece; the whole answer."""
        self.writer.write(head)
        return await self.read()

    async def read(self) -> bytes:
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"Content-Length: (\d+)", head)
            return head + await self.reader.readexactly(int(found[1]) if found else 0)


@asynccontextmanager
async def wire(stage: Stage) -> AsyncIterator[Wire]:
    host, port = stage.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()

"""An upstream that streams JSON Lines: the first piece at once, the others slowly.

Arguments: its port, seconds between two pieces, how many pieces.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = b'{"type":"token","data":{"token":"word"}}\n'
RESULT = b'{"type":"result","data":{"text":"word","usage":{"token":5}}}\n'
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def chunk(piece: bytes) -> bytes:
    """One chunk of an answer in chunks."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class Streaming(asyncio.Protocol):
    """Streams an answer to each request, once its body is here."""

    def __init__(self, every_s: float, count: int) -> None:
        self._every_s = every_s
        self._count = count
        self._have = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        # uvloop's transports are of no common class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer once the request is whole."""
        self._have += data
        head, end, body = self._have.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and len(body) >= (int(length[1]) if length else 0):
            self._have = b""
            self._transport.write(HEAD + chunk(PIECE))
            self._later(self._count - 1)

    def _later(self, left: int) -> None:
        asyncio.get_running_loop().call_later(self._every_s, self._go_on, left)

    def _go_on(self, left: int) -> None:
        if self._transport.is_closing():
            return
        if left > 1:
            self._transport.write(chunk(PIECE))
            self._later(left - 1)
        else:
            self._transport.write(chunk(RESULT) + b"0\r\n\r\n")


async def main(port: int, every_s: float, count: int) -> None:
    """Serve until killed."""
    await asyncio.get_running_loop().create_server(
        lambda: Streaming(every_s, count), "127.0.0.1", port, backlog=1024
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))

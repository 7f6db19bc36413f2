"""An upstream that makes whatever it is asked to make: `{"id": ...}` to every request, as fast as can be.

Run as a program with a port; prints a line when it listens. It reads heads and Content-Length and nothing
else, which is all that the gateway's requests have.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
from typing import Final, cast

import uvloop

_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_numbers = itertools.count()


class Maker(asyncio.Protocol):
    """Answers each request once its body is whole."""

    def __init__(self) -> None:
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        # uvloop's transports are of no common class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer what is whole, keep the rest."""
        held = self._held + data
        while (head_end := held.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(held, 0, head_end)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(held) < end:
                break
            held = held[end:]
            body = b'{"id":"bot_%012d"}' % next(_numbers)
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )
        self._held = held


async def main(port: int) -> None:
    """Serve until killed."""
    await asyncio.get_running_loop().create_server(Maker, "127.0.0.1", port)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))

"""The upstream of all contestants: one JSON list of about 1.6 kB to whatever is asked, as fast as can be."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

ITEMS = [
    {"id": f"bot_{number:04d}", "name": f"Bot {number}", "createdAt": 1732579200000} for number in range(25)
]
BODY = json.dumps({"items": ITEMS, "cursor": "end"}, separators=(",", ":")).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    + str(len(BODY)).encode()
    + b"\r\n\r\n"
    + BODY
)


class Upstream(asyncio.Protocol):
    """Answers once for each end of a head; bodies are not looked at."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        # uvloop's transports are of no common class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer what came."""
        self._transport.write(ANSWER * data.count(b"\r\n\r\n"))


async def main(port: int) -> None:
    """Serve until killed."""
    await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))

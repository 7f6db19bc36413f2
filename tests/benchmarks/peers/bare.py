"""The floor of the library: a server of aiohttp that answers every request with the upstream's list."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiohttp import web

from benchmarks.peers.upstream import BODY


async def answer(request: web.BaseRequest) -> web.Response:
    """The same list to everybody."""
    del request
    return web.Response(body=BODY, content_type="application/json")


async def main(port: int) -> None:
    """Serve until killed."""
    server = web.Server(answer, access_log=None)
    await asyncio.get_running_loop().create_server(server, "127.0.0.1", port)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))

"""What a worker answers its supervisor, on its unix socket. Only this user's processes can reach it.

The operators' application stands on the same socket; these routes are beside it and are never forwarded to.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from cbk_gateway.server import Port

if TYPE_CHECKING:
    from cbk_gateway.app import Gateway

PREFIX: Final = "/worker"


class Control:
    """The supervisor's hands in one worker.

    Args:
        sockets: Descriptors of all of the data port's sockets.
    """

    def __init__(self, sockets: Sequence[int]) -> None:
        self._descriptors = tuple(sockets)
        self._accepting: dict[int, socket.socket] = {}
        self.gateway: Gateway | None = None
        self.port: Port | None = None

    def routes(self) -> list[web.RouteDef]:
        """Where they stand."""
        return [
            web.get(PREFIX + "/alive", self.alive),
            web.get(PREFIX + "/snapshot", self.snapshot),
            web.post(PREFIX + "/accept", self.accept),
            web.post(PREFIX + "/tenants", self.tenants),
            web.post(PREFIX + "/record", self.record),
        ]

    def duplicate(self, place: int) -> socket.socket:
        """A socket of this process's own for one of the group; the descriptor itself is kept for later."""
        if place not in self._accepting:
            self._accepting[place] = socket.socket(fileno=os.dup(self._descriptors[place]))
        return self._accepting[place]

    def let_go(self) -> None:
        """Give the group up for good; the supervisor keeps it open for the others."""
        descriptors, self._descriptors = self._descriptors, ()
        for descriptor in descriptors:
            os.close(descriptor)

    async def alive(self, _: web.Request) -> web.Response:
        """The loop turns."""
        gateway = self._gateway()
        return web.json_response({"open_streams": len(gateway.parts.open_streams)})

    async def snapshot(self, _: web.Request) -> web.Response:
        """All series now."""
        return web.Response(body=self._gateway().parts.metrics.snapshot(), content_type="application/json")

    async def accept(self, request: web.Request) -> web.Response:
        """Accept on these sockets of the group, and on no others."""
        places = orjson.loads(await request.read())
        if self.port is not None:
            await self.port.accept_on([self.duplicate(place) for place in places])
        # A site closes its socket when it stops.
        self._accepting = {place: self._accepting[place] for place in places}
        return web.json_response({"accepts": places})

    async def tenants(self, _: web.Request) -> web.Response:
        """Read the tenants and the ports' certificates again at once."""
        gateway = self._gateway()
        is_usable = await gateway.reload_tenants()
        problems = [str(problem) for problem in gateway.directory.problems()]
        try:
            await gateway.renew_certificates()
        except OSError as fault:
            is_usable = False
            problems.append(f"a certificate cannot be used: {fault}")
        return web.json_response({"usable": is_usable, "problems": problems})

    async def record(self, request: web.Request) -> web.Response:
        """Journal what an operator is about to change in the fleet."""
        journal = self._gateway().parts.journal
        if journal is not None:
            await journal.record("admin", orjson.loads(await request.read()))
        return web.json_response({})

    def _gateway(self) -> Gateway:
        if self.gateway is None:
            raise web.HTTPServiceUnavailable(text="starting")
        return self.gateway

"""One row per operation of the operators' API: where it stands, who may use it, what it takes and gives.

The port serves these rows and the API's description is made from them, so that neither can say what the
other does not do. What an operation does is in `views.py` and `changes.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from cbk_gateway.admin.commands import Command
from cbk_gateway.admin.operators import needs

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """An operation below /admin.

    Attributes:
        method: GET for what shows, POST for what changes.
        path: With its parameters in braces.
        role: The least role that may use it: viewer, operator or admin.
        answer: What answers it, once the role is known to suffice.
        summary: What it does, one sentence.
        command: The shape of its body; None where there is none.
        query: Its query parameters and what they mean.
        required: The query parameters that must be given.
        gives: The type of its answer where that has a closed shape; None where it is an open object.
    """

    method: str
    path: str
    role: str
    answer: Answering
    summary: str
    command: type[Command] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    gives: type | None = None

    def definition(self) -> web.RouteDef:
        """The row as the port serves it: the role is asked for first."""

        async def admitted(request: web.Request) -> web.StreamResponse:
            needs(request, self.role)
            return await self.answer(request)

        return web.route(self.method, self.path, admitted)

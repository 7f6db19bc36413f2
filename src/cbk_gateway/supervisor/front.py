"""The operators' port of all workers: health and metrics of the whole, administration passed on.

What concerns the fleet is answered here: workers, restart, reload, the settings in force. What concerns
every process (the log level) goes to each worker; everything else below /admin goes to one, the oldest, which
asks for the operator's token itself. Nothing of the API passes here.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import orjson
from aiohttp import web

from cbk_gateway.admin import commands
from cbk_gateway.admin.openapi import description
from cbk_gateway.admin.operators import OPERATOR, Operator, identified, needs
from cbk_gateway.admin.port import answer_faults
from cbk_gateway.admin.routes import Route
from cbk_gateway.errors import Conflict, ServiceUnavailable
from cbk_gateway.settings import SettingsError
from cbk_gateway.settings.load import Loaded
from cbk_gateway.supervisor.changes import document_of, hidden
from cbk_gateway.supervisor.fleet import Fleet
from cbk_gateway.supervisor.process import State, WorkerFault, WorkerProcess
from cbk_gateway.supervisor.reloading import APPLIED, REFUSED, Reloading
from cbk_gateway.supervisor.summing import Sum

READY_PATIENCE_S: Final = 3.0
_PASSED_ON: Final = ("Authorization", "Content-Type", "Accept", "Origin", "Sec-Fetch-Site", "X-Request-Id")

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class WorkerStanding:
    """One worker that lives, the draining ones included.

    Attributes:
        started_at: Epoch seconds.
        accepts: The sockets of the data port it accepts on, by number.
    """

    name: str
    pid: int
    state: State
    started_at: float
    accepts: list[int]


@dataclass(frozen=True, slots=True)
class FleetStanding:
    """All workers, and how many are wanted."""

    items: list[WorkerStanding]
    wanted: int


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """What a reload changed; one that is refused answers 409 with the problems."""

    result: Literal["applied", "unchanged"]
    changes: list[str]


class Front:
    """What stands on the operators' port.

    Args:
        fleet: The workers.
        reloading: Reads settings again, and holds those in force.
        total: The metrics of all.
    """

    def __init__(self, fleet: Fleet, reloading: Reloading, total: Sum) -> None:
        self._fleet = fleet
        self._reloading = reloading
        self._sum = total

    def routes(self) -> list[Route]:
        """What the fleet itself answers below /admin; a worker's row of the same name gives way."""
        nothing = commands.Nothing
        return [
            _route("GET", "/admin/workers", "viewer", self._workers, gives=FleetStanding),
            _route("GET", "/admin/settings", "viewer", self._settings),
            _route("POST", "/admin/restart", "admin", self._restart, gives=FleetStanding, command=nothing),
            _route("POST", "/admin/reload", "operator", self._reload, gives=ReloadOutcome, command=nothing),
        ]

    def application(self) -> web.Application:
        """The application, ready to be run."""
        app = web.Application(middlewares=[answer_faults])
        app.add_routes(
            [
                web.get("/healthz", self._alive),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._metrics),
                web.get("/admin/openapi.json", self._description),
                *(web.route(row.method, row.path, self._for(row.role, row.answer)) for row in self.routes()),
                web.post("/admin/log-level", self._everywhere),
                web.route("*", "/admin/{tail:.*}", self._forward),
                web.get("/.well-known/{tail:.*}", self._forward),
            ]
        )
        return app

    # Health and metrics

    async def _alive(self, _: web.Request) -> web.Response:
        """200 as long as the supervisor's loop turns; dead workers are its own business."""
        return web.json_response({"status": "alive"})

    async def _ready(self, _: web.Request) -> web.Response:
        """200 when as many workers as wanted serve, and each says that it is ready."""
        workers = self._fleet.serving
        answers = await asyncio.gather(*(self._readiness(one) for one in workers))
        detail = {one.name: answer for one, (_, answer) in zip(workers, answers, strict=True)}
        is_ready = self._fleet.is_complete and all(status == 200 for status, _ in answers)
        body = {
            "status": "ready" if is_ready else "not ready",
            "checks": {"workers": "ok" if self._fleet.is_complete else "failing"},
            "workers": detail,
        }
        return web.json_response(body, status=200 if is_ready else 503)

    async def _readiness(self, worker: WorkerProcess) -> tuple[int, object]:
        try:
            status, _, body = await worker.forward("GET", "/readyz", timeout_s=READY_PATIENCE_S)
        except WorkerFault:
            return 503, {"status": "silent"}
        return status, orjson.loads(body)

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = await self._sum.exposition(self._fleet, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    # The fleet

    async def _workers(self, _: web.Request) -> web.Response:
        """Every worker that lives, the draining ones included."""
        items = [
            WorkerStanding(one.name, one.pid, one.state, one.started_at, list(one.accepts))
            for one in self._fleet.workers.values()
        ]
        return web.json_response(asdict(FleetStanding(items, self._fleet.fitting.count)))

    async def _settings(self, _: web.Request) -> web.Response:
        """The settings in force, without secrets."""
        return web.json_response(hidden(document_of(self._reloading.loaded.settings)))

    async def _restart(self, request: web.Request) -> web.Response:
        """Replace every worker, one by one; answers when the last one has been replaced."""
        await commands.parsed(request, commands.Nothing)
        await self._record(request, "workers.restart")
        try:
            await self._reloading.restart()
        except (SettingsError, WorkerFault) as fault:
            raise Conflict(f"The new workers do not start, so the old ones stay: {fault}.") from None
        return await self._workers(request)

    async def _reload(self, request: web.Request) -> web.Response:
        """Read settings and tenants again."""
        await commands.parsed(request, commands.Nothing)
        await self._record(request, "settings.reload")
        outcome = await self._reloading.reload()
        if outcome.result == REFUSED:
            raise Conflict(
                "What was read cannot be used; everything stays as it was.",
                details={"problems": list(outcome.problems)},
            )
        changes = [str(change) for change in outcome.changes]
        result: Literal["applied", "unchanged"] = "applied" if outcome.result == APPLIED else "unchanged"
        return web.json_response(asdict(ReloadOutcome(result, changes)))

    async def _record(self, request: web.Request, what: str) -> None:
        """Journal a change before it is made; one that cannot be journalled is not made."""
        document = {"operator": request[OPERATOR].name, "change": what}
        try:
            await self._someone().ask("POST", "/record", document=document)
        except WorkerFault as fault:
            raise ServiceUnavailable(f"The change cannot be journalled: {fault}.") from None

    # Passing on

    async def _forward(self, request: web.Request) -> web.Response:
        return await self._pass_on(request, self._someone(), await request.read())

    async def _description(self, request: web.Request) -> web.Response:
        """A worker's document, with the fleet's own rows in it."""
        answer = await self._forward(request)
        if answer.status != 200 or not isinstance(answer.body, bytes):
            return answer
        document: dict[str, Any] = orjson.loads(answer.body)
        own = description(self.routes())
        document["paths"] |= own["paths"]
        document["components"]["schemas"] |= own["components"]["schemas"]
        return web.Response(body=orjson.dumps(document), content_type="application/json")

    async def _everywhere(self, request: web.Request) -> web.Response:
        """To every worker; the first answer that is no success is the answer."""
        body = await request.read()
        workers = self._fleet.serving or [self._someone()]
        answers = await asyncio.gather(*(self._pass_on(request, one, body) for one in workers))
        return max(answers, key=lambda answer: answer.status)

    async def _pass_on(self, request: web.Request, worker: WorkerProcess, body: bytes) -> web.Response:
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        try:
            status, content_type, answer = await worker.forward(
                request.method, request.raw_path, headers=headers, body=body
            )
        except WorkerFault as fault:
            raise ServiceUnavailable(f"{fault}.", reason="workers") from None
        return web.Response(status=status, body=answer, headers={"Content-Type": content_type})

    def _someone(self) -> WorkerProcess:
        if not self._fleet.serving:
            raise ServiceUnavailable("No worker serves at present.", reason="workers")
        return self._fleet.serving[0]

    def _for(self, role: str, answer: Answering) -> Answering:
        async def admitted(request: web.Request) -> web.StreamResponse:
            request[OPERATOR] = identified(request, operators_of(self._reloading.loaded))
            needs(request, role)
            return await answer(request)

        return admitted


def _route(
    method: str,
    path: str,
    role: str,
    answer: Answering,
    *,
    gives: type | None = None,
    command: type[commands.Command] | None = None,
) -> Route:
    summary = (inspect.getdoc(answer) or "").partition("\n")[0]
    return Route(method, path, role, answer, summary, command=command, gives=gives)


def operators_of(loaded: Loaded) -> tuple[Operator, ...]:
    """Who may use the operators' port.

    Raises:
        SettingsError: A token's reference leads nowhere.
    """
    return tuple(
        Operator(one.name, one.role, loaded.secret(f"admin.tokens[{place}].token", one.token))
        for place, one in enumerate(loaded.settings.admin.tokens)
    )

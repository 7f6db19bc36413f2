"""The operators' application: routes, tokens and roles, error shape, security headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson
import structlog
from aiohttp import web

from cbk_gateway.admin import health
from cbk_gateway.admin.changes import Changes
from cbk_gateway.admin.openapi import description
from cbk_gateway.admin.operators import OPERATOR, Operator, identified
from cbk_gateway.admin.routes import Answering, Route
from cbk_gateway.admin.views import Views
from cbk_gateway.errors import BadRequest, ContentTooLarge, InternalError, NotFound, Refusal
from cbk_gateway.settings.gateway import AdminSettings

if TYPE_CHECKING:
    from cbk_gateway.app import Gateway

_log = structlog.get_logger(__name__)

SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Server": "cbk-gateway",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class AdminPort:
    """What stands on the operators' port of one gateway process."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._operators = tuple(self._operator(place) for place in range(len(self._settings.tokens)))

    @property
    def _settings(self) -> AdminSettings:
        return self._gateway.loaded.settings.admin

    def routes(self) -> list[Route]:
        """Everything below /admin."""
        described = Route(
            "GET", "/admin/openapi.json", "viewer", self._description, "This API, described in OpenAPI 3.1."
        )
        return [*Views(self._gateway).routes(), *Changes(self._gateway).routes(), described]

    def application(self) -> web.Application:
        """The application, ready to be run."""
        app = web.Application(middlewares=[answer_faults, self._authenticate])
        app.add_routes(
            [
                web.get("/healthz", health.alive),
                web.get("/readyz", health.Readiness(self._gateway).answer),
                web.get("/metrics", self._metrics),
                web.get("/.well-known/jwks.json", self._jwks),
                *(route.definition() for route in self.routes()),
            ]
        )
        return app

    def _operator(self, place: int) -> Operator:
        settings = self._settings.tokens[place]
        token = self._gateway.loaded.secret(f"admin.tokens[{place}].token", settings.token)
        return Operator(settings.name, settings.role, token)

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._gateway.parts.metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _description(self, _: web.Request) -> web.Response:
        body = orjson.dumps(description(self.routes()))
        return web.Response(body=body, content_type="application/json")

    async def _jwks(self, _: web.Request) -> web.Response:
        minter = self._gateway.minter
        return web.json_response(minter.public_jwks() if minter is not None else {"keys": []})

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Answering) -> web.StreamResponse:
        """Ask for a token on everything below /admin. A browser's cookies count for nothing here."""
        if request.path.startswith("/admin"):
            request[OPERATOR] = identified(request, self._operators)
        return await handler(request)


@web.middleware
async def answer_faults(request: web.Request, handler: Answering) -> web.StreamResponse:
    """Errors in the one shape, and the security headers on everything."""
    try:
        response = await handler(request)
    except Refusal as refusal:
        response = _rendered(refusal)
    except web.HTTPException as exc:
        response = _rendered(_in_shape(exc))
    except Exception:  # noqa: BLE001 - at the door: a defect is logged whole and answered briefly
        _log.exception("admin_failed", path=request.path)
        response = _rendered(InternalError("The gateway failed to answer."))
    response.headers.update(SECURITY_HEADERS)
    return response


def _in_shape(exc: web.HTTPException) -> Refusal:
    """What the server framework refuses by itself, in the one shape."""
    if exc.status in {404, 405}:
        return NotFound("There is nothing here.")
    if exc.status == 413:
        return ContentTooLarge("The body is too large for any change.")
    return BadRequest("The request cannot be understood.")


def _rendered(refusal: Refusal) -> web.Response:
    headers = {"Content-Type": "application/json", **refusal.headers}
    return web.Response(status=refusal.status, body=refusal.body(), headers=headers)

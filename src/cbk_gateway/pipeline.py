"""One request, in order. The only module that knows all the steps; each is one call into one package.

    understand -> identify -> authorise -> admit -> recall | journal -> forward -> settle

A step returns a value or raises one `Refusal`, which is rendered in one place. What happens inside a step
does not belong here; neither does anything about sockets, processes or files.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog
from aiohttp import web

from cbk_gateway import cors, forwarding, reads, request_body, settling, writes
from cbk_gateway.errors import InternalError, MethodNotAllowed, NotAuthenticated, Refusal
from cbk_gateway.exchange import CLIENT_GONE, Exchange
from cbk_gateway.graphql_effect import narrowed
from cbk_gateway.operation import Dialect, Effect, understand
from cbk_gateway.parties import Principal, Tenant
from cbk_gateway.parts import Parts
from cbk_gateway.request_head import inadmissible, is_connected
from cbk_gateway.shedding import Kind, kind_of
from cbk_gateway.telemetry.request_id import current_request_id, request_id_for
from cbk_gateway.telemetry.traceparent import current_trace_id
from cbk_gateway.tenancy import account_acted_on, authorise, is_run_as_header, requested_run_as
from cbk_gateway.upstream import UpstreamFault

_log = structlog.get_logger(__name__)
_EMPTY_JSON: Final = (("Content-Type", "application/json"),)


class Pipeline:
    """Serves requests, one `handle` call each. Owns nothing: its parts are started and stopped by the app."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request from its head to the last byte of its answer. Never raises but when cancelled."""
        x = Exchange(
            request,
            request_id_for(request.headers.get("X-Request-Id")),
            shows_timing=self._parts.shows_timing,
        )
        current_request_id.set(x.request_id)
        current_trace_id.set(None)
        self._parts.metrics.request_started()
        try:
            refusal = inadmissible(request)
            return await self._serve(x) if refusal is None else self._refuse(x, refusal)
        except Refusal as refusal:
            return self._refuse(x, refusal)
        except UpstreamFault as fault:
            return self._refuse(x, fault.refusal())
        except asyncio.CancelledError:
            x.status = CLIENT_GONE
            raise
        except Exception as error:  # noqa: BLE001 - at the door: a defect is logged whole and answered briefly
            if isinstance(error, ConnectionError) and not is_connected(request):
                # The client's own connection. One of another that comes this far was not translated where
                # it entered, which is a defect like any other.
                x.status = CLIENT_GONE
                return x.response if x.response is not None else web.Response(status=500)
            _log.exception("request_failed", request_id=x.request_id, operation=f"{x.resource}:{x.action}")
            if x.response is not None and x.response.prepared:
                # Half an answer is out: a clean end would make it look whole.
                forwarding.abort(x)
                return x.response
            return self._refuse(x, InternalError("The gateway failed to serve this request."))
        finally:
            self._parts.metrics.request_ended()
            x.end_trace()
            settling.count(self._parts, x)

    async def _serve(self, x: Exchange) -> web.StreamResponse:
        request, parts = x.request, self._parts
        if request.method == "OPTIONS":
            return x.answer(204, cors.PREFLIGHT_HEADERS.items(), b"")
        if request.method == "HEAD":
            with contextlib.suppress(MethodNotAllowed):
                understand("GET", request.raw_path)
            return x.answer(200, _EMPTY_JSON, b"")

        x.operation = understand(request.method, request.raw_path)
        x.begin_trace(parts.tracer)
        with x.step("identify"):
            x.principal = await parts.identity.identify(request.headers.getall("Authorization", ()))
        if x.operation.route.dialect is Dialect.GRAPHQL:
            x.body = await request_body.take(request, parts.bounds)
            x.operation = narrowed(x.operation, x.body)
        if parts.shedding.refused:
            is_streamed = reads.first_media_type(x.header("Accept")) in forwarding.STREAM_MEDIA
            kind = kind_of(x.operation, is_streamed=is_streamed)
            if kind is not Kind.READ:
                # Of reads it is not known yet whether memory answers them.
                parts.shedding.admit(kind)
        x.tenant = self._authorised(x, x.principal)
        await parts.ownership.check(x.tenant, x.operation)
        with x.step("admit"):
            x.grant = await parts.limiter.admit(
                x.tenant, x.principal.subject, x.operation, is_stream=x.operation.effect is Effect.STREAM
            )
        if x.operation.is_write:
            return await writes.answer(parts, x)
        return await reads.answer(parts, x)

    def _refuse(self, x: Exchange, refusal: Refusal) -> web.StreamResponse:
        settling.note_refusal(self._parts, x, refusal)
        if refusal.status == 401 and self._parts.hot_path is not None:
            self._parts.hot_path.refusals.offer(x, refusal)
        return x.refuse(refusal)

    def _authorised(self, x: Exchange, principal: Principal) -> Tenant:
        tenant = self._parts.registry.get(principal.tenant)
        if tenant is None:
            raise NotAuthenticated("The token belongs to no tenant of this gateway.", reason="unknown_tenant")
        if x.operation is None:
            raise InternalError("The gateway failed to serve this request.")
        run_as = [pair for pair in x.request.headers.items() if is_run_as_header(pair[0])]
        authorise(principal, tenant, x.operation, run_as)
        x.asked_run_as = requested_run_as(run_as) if run_as else None
        x.account = account_acted_on(tenant, x.asked_run_as)
        return tenant

"""One request and its answer: what is known so far, and how an answer leaves.

An `Exchange` lives exactly as long as one request. The steps of the pipeline fill it in order; everything
that every answer carries (request id, rate headers, cache status, timing, CORS) is added here and nowhere
else, so that a refusal and a hit look alike to a client. No decision is taken here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from cbk_gateway import cors
from cbk_gateway.addresses import Network, address_of
from cbk_gateway.errors import Refusal
from cbk_gateway.limits import Grant
from cbk_gateway.operation import OTHER, Operation
from cbk_gateway.parties import Principal, RunAs, Tenant
from cbk_gateway.request_body import TakenBody
from cbk_gateway.telemetry.timing import server_timing
from cbk_gateway.telemetry.traceparent import (
    TraceContext,
    current_trace_id,
    forwarded,
    parse_traceparent,
)
from cbk_gateway.telemetry.tracing import RequestSpan, StepSpan, Tracer

SERVER: Final = "cbk-gateway"
CLIENT_GONE: Final = 499
"""What metrics and logs say of a request whose client left before its answer; it is never sent."""

_NO_STEP: Final[AbstractContextManager[None]] = nullcontext()


class _PromptResponse(web.StreamResponse):
    """An answer whose first piece is about to come."""

    _send_headers_immediately = False


class Exchange:
    """A request being served.

    Attributes:
        request: The request as the listener parsed it.
        request_id: The id that every record of this exchange carries.
        started: `time.perf_counter()` at its beginning, seconds.
        operation: What it asks for, once understood.
        principal: Who asks, once identified.
        tenant: For whom, once authorised.
        account: The upstream account it acts on: the tenant's, or a child the client chose.
        asked_run_as: That child, when the client may choose and did.
        grant: What it was admitted with.
        body: Its body, once taken.
        status: Status of the answer, once decided.
        cache_label: hit, miss, stale, bypass, collapsed or none: for metrics.
        cache_status: The `Cache-Status` value (RFC 9211), if any.
        upstream_s: Seconds spent waiting for the upstream, None when it was not asked.
        answer_bytes: Body bytes handed to the socket.
        answer_digest: SHA-256 over them, where somebody wants it.
        first_byte_s: Seconds until the first piece of a stream was handed to the socket, None for the rest.
        refusal_reason: Reason word of a refusal, for metrics and the log.
        response: The answer once its head may have been sent.
    """

    __slots__ = (
        "_shows_timing",
        "_span",
        "_trace",
        "account",
        "answer_bytes",
        "answer_digest",
        "asked_run_as",
        "body",
        "cache_label",
        "cache_status",
        "first_byte_s",
        "grant",
        "operation",
        "principal",
        "refusal_reason",
        "request",
        "request_id",
        "response",
        "started",
        "status",
        "tenant",
        "upstream_s",
    )

    def __init__(self, request: web.BaseRequest, request_id: str, *, shows_timing: bool = True) -> None:
        self.request = request
        self._shows_timing = shows_timing
        self.request_id = request_id
        self.started = time.perf_counter()
        self.operation: Operation | None = None
        self.principal: Principal | None = None
        self.tenant: Tenant | None = None
        self.grant: Grant | None = None
        self.body: TakenBody | None = None
        self.status = 0
        self.cache_label = "none"
        self.cache_status: str | None = None
        self.upstream_s: float | None = None
        self.account = ""
        self.asked_run_as: RunAs | None = None
        self.answer_bytes = 0
        self.answer_digest: hashlib._Hash | None = None
        self.first_byte_s: float | None = None
        self._span: RequestSpan | None = None
        self._trace: TraceContext | None = None
        self.refusal_reason: str | None = None
        self.response: web.StreamResponse | None = None

    @property
    def resource(self) -> str:
        """Bounded label of what was asked."""
        return self.operation.resource if self.operation is not None else OTHER

    @property
    def action(self) -> str:
        """Bounded label of what was to be done."""
        return self.operation.action if self.operation is not None else OTHER

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request's head was read."""
        return time.perf_counter() - self.started

    @property
    def trace(self) -> TraceContext:
        """Its place in a trace (W3C Trace Context): the client's with a span of ours, or one begun here."""
        if self._trace is None:
            self._trace = forwarded(self._received_trace())
            current_trace_id.set(self._trace.trace_id)
        return self._trace

    @property
    def trace_id(self) -> str | None:
        """Id of its trace, if it has one so far."""
        return self._trace.trace_id if self._trace is not None else None

    def begin_trace(self, tracer: Tracer | None) -> None:
        """Take up the client's trace; with a tracer, begin the span of this exchange in it."""
        if tracer is not None and self.operation is not None:
            template = self.operation.route.template
            # Drawn before the request was parsed, by whoever might have answered it then.
            drawn = getattr(self.request.protocol, "drawn_trace", None)
            if drawn is not None:
                self.request.protocol.drawn_trace = None  # type: ignore[attr-defined] # it has one, then
            self._span = tracer.request(self.request.method, template, self._received_trace(), drawn=drawn)
            self._trace = self._span.context
            current_trace_id.set(self._trace.trace_id)
        elif "traceparent" in self.request.headers:
            _ = self.trace

    def step(self, name: str) -> AbstractContextManager[StepSpan | None]:
        """A span around one step, where spans are made."""
        return self._span.step(name) if self._span is not None else _NO_STEP

    def end_trace(self) -> None:
        """The last byte has gone out."""
        if self._span is not None:
            self._span.end(self.status)

    def _received_trace(self) -> TraceContext | None:
        headers = self.request.headers
        parents = headers.getall("traceparent", ())
        states = ",".join(headers.getall("tracestate", ()))
        return parse_traceparent(parents[0], states) if len(parents) == 1 else None

    def header(self, name: str) -> str | None:
        """The first value of a request header."""
        return self.request.headers.get(name)

    def client_address(self, trusted: Sequence[Network]) -> str:
        """Where the request comes from: see `address_of`."""
        hops = self.request.headers.getall("X-Forwarded-For", ())
        return address_of(self.request.protocol.peername, hops, trusted)

    def answer(
        self, status: int, headers: Iterable[tuple[str, str]], body: bytes, *, cut_after: bool = False
    ) -> web.Response:
        """A whole answer. `cut_after` closes the connection behind it."""
        self.status = status
        self.answer_bytes = len(body)
        if self.answer_digest is not None:
            self.answer_digest.update(body)
        dressed = self._dressed(headers)
        # The length is that of what is sent, not of what an upstream declared.
        dressed.popall("Content-Length", None)
        response = web.Response(status=status, headers=dressed, body=body)
        if cut_after:
            response.force_close()
        self.response = response
        return response

    def streamed(
        self, status: int, headers: Iterable[tuple[str, str]], *, is_live: bool = True
    ) -> web.StreamResponse:
        """The head of an answer whose body follows piece by piece.

        That of a live one leaves at once; any other waits for the first piece, and both are one packet.
        """
        self.status = status
        kind = web.StreamResponse if is_live else _PromptResponse
        response = kind(status=status, headers=self._dressed(headers))
        self.response = response
        return response

    def refuse(self, refusal: Refusal) -> web.Response:
        """Render a refusal. The only place where one becomes an HTTP answer."""
        self.refusal_reason = refusal.reason
        headers = [("Content-Type", "application/json"), *refusal.headers.items()]
        closes = refusal.closes or not self.request.content.is_eof()
        return self.answer(refusal.status, headers, refusal.body(self.request_id), cut_after=closes)

    def _dressed(self, headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
        dressed: CIMultiDict[str] = CIMultiDict(headers)
        dressed["X-Request-Id"] = self.request_id
        dressed["Server"] = SERVER
        if self.grant is not None:
            for name, value in self.grant.headers.items():
                dressed.setdefault(name, value)
        if self.cache_status is not None:
            dressed["Cache-Status"] = self.cache_status
        if self._shows_timing:
            dressed["Server-Timing"] = server_timing(self.elapsed_s, self.upstream_s, self.cache_label)
        origins = self.tenant.allowed_origins if self.tenant is not None else ("*",)
        for name, value in cors.granted(origins, self.header("Origin")):
            if name == "Vary":
                dressed.add(name, value)
            else:
                dressed[name] = value
        return dressed

"""Passing a request upstream and its answer back: what reads and writes have in common.

Nothing is buffered here but what must be whole to be checked or kept. Once the head of an answer is out,
a failure can only be shown by breaking the connection; a broken answer never ends politely.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import Final

from aiohttp import web

from cbk_gateway.errors import InternalError
from cbk_gateway.exchange import CLIENT_GONE, Exchange
from cbk_gateway.limits.usage import UsageReader
from cbk_gateway.operation import CostClass, Effect, Operation
from cbk_gateway.parties import Principal, Tenant
from cbk_gateway.parts import Parts
from cbk_gateway.request_body import TakenBody
from cbk_gateway.telemetry.traceparent import TraceContext
from cbk_gateway.tenancy import is_run_as_header
from cbk_gateway.tenancy.credentials import Credential
from cbk_gateway.upstream import (
    Answer,
    Call,
    Ending,
    StreamBroken,
    StreamForm,
    outgoing_headers,
    relay,
    terminal_for,
)

STREAM_MEDIA: Final = {
    "application/jsonl": StreamForm.JSONL,
    "application/x-ndjson": StreamForm.JSONL,
    "text/event-stream": StreamForm.SSE,
}
_TRACE_FIELDS: Final = frozenset({"traceparent", "tracestate"})


def settled(x: Exchange) -> tuple[Operation, Principal, Tenant]:
    """What the first steps found. They always have, by the time anything is forwarded."""
    if x.operation is None or x.principal is None or x.tenant is None:
        raise InternalError("The gateway failed to serve this request.")
    return x.operation, x.principal, x.tenant


async def check_body(parts: Parts, x: Exchange) -> None:
    """Refuse a body that names another tenant's object, where tenants share an account."""
    operation, _, tenant = settled(x)
    if x.body is not None and x.body.whole:
        await parts.ownership.check_body(tenant, operation, x.body.whole)


async def send(parts: Parts, x: Exchange, body: TakenBody | None, *, accept: str | None = None) -> Answer:
    """Send the request upstream under the tenant's credential, once per exchange; wait for the head.

    With `accept` given, the gateway itself will read the answer: it is asked for in that form, uncoded.

    Raises:
        UpstreamFault: There is no answer; it says what left the socket.
        BadGateway: The upstream refuses the tenant's key; the client's own token is fine.
    """
    operation, _, tenant = settled(x)
    credential = parts.credentials.credential_for(tenant, operation)
    fields = x.request.headers.items()
    answer = await _send_fields(parts, x, operation, body, credential, fields=fields, accept=accept)
    other = parts.credentials.report(tenant, credential.which, answer.status, operation)
    if other is not None:
        # A key in rotation was refused: the tenant's other key answers instead, for safe reads only.
        answer.abort()
        answer = await _send_fields(parts, x, operation, body, other, fields=fields, accept=accept)
        parts.credentials.report(tenant, other.which, answer.status)
    refusal = parts.credentials.refusal(tenant, answer.status, operation)
    if refusal is not None:
        answer.abort()
        raise refusal
    return answer


async def look(parts: Parts, x: Exchange, view: Operation) -> Answer:
    """A read of the gateway's own on behalf of a request: as its tenant and account, as JSON, uncached.

    Raises:
        UpstreamFault: There is no answer.
    """
    _, _, tenant = settled(x)
    credential = parts.credentials.credential_for(tenant, view)
    chosen = [pair for pair in x.request.headers.items() if is_run_as_header(pair[0])]
    return await _send_fields(parts, x, view, None, credential, fields=chosen, accept="application/json")


async def _send_fields(
    parts: Parts,
    x: Exchange,
    operation: Operation,
    body: TakenBody | None,
    credential: Credential,
    *,
    fields: Iterable[tuple[str, str]],
    accept: str | None,
) -> Answer:
    with x.step("upstream") as step:
        trace = step.context if step is not None else x.trace
        call = call_for(parts, x, operation, credential, trace=trace, body=body, fields=fields, accept=accept)
        begun = time.perf_counter()
        try:
            return await parts.upstream.send(call)
        finally:
            x.upstream_s = (x.upstream_s or 0.0) + time.perf_counter() - begun


def call_for(
    parts: Parts,
    x: Exchange,
    operation: Operation,
    credential: Credential,
    *,
    trace: TraceContext,
    body: TakenBody | None = None,
    fields: Iterable[tuple[str, str]] | None = None,
    accept: str | None = None,
) -> Call:
    """What goes upstream for a request: the client's fields (or `fields`), with credential, ids and trace."""
    _, _, tenant = settled(x)
    headers = outgoing_headers(
        x.request.headers.items() if fields is None else fields,
        key=credential.key,
        run_as=tenant.run_as,
        host=parts.upstream.host,
        request_id=x.request_id,
        client_may_run_as=tenant.may_run_as,
        # What is looked into on its way must come uncoded.
        identity_encoding=accept is not None or watches_usage(operation),
    )
    if accept is not None:
        headers = [("Accept", accept), *(pair for pair in headers if pair[0] != "Accept")]
    # What the client sent names its own span as the parent; here it is ours.
    headers = [pair for pair in headers if pair[0] not in _TRACE_FIELDS]
    headers.append(("traceparent", trace.header()))
    if trace.state:
        headers.append(("tracestate", trace.state))
    return Call(
        operation=operation,
        headers=headers,
        body=body.outgoing() if body is not None else None,
        body_length=body.length if body is not None else None,
        account=x.account,
        tenant=tenant.id,
    )


Pieces = AsyncIterator[bytes]


async def chained(first: bytes, rest: Pieces) -> Pieces:
    """What was read already, then the rest as it comes."""
    yield first
    async for piece in rest:
        yield piece


def response_of(x: Exchange) -> web.StreamResponse:
    """The answer whose head was sent."""
    if x.response is None:
        raise InternalError("The gateway failed to serve this request.")
    return x.response


async def gather(answer: Answer, bound: int) -> tuple[bytes, AsyncIterator[bytes] | None]:
    """The body if it is no larger than `bound`, else its beginning and the rest as it comes."""
    pieces = answer.chunks()
    held: list[bytes] = []
    size = 0
    async for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size > bound:
            return b"".join(held), pieces
    return b"".join(held), None


def form_of(answer: Answer) -> StreamForm | None:
    """The form of an event stream, or None when the answer is a plain body."""
    for name, value in answer.headers:
        if name.lower() == "content-type":
            return STREAM_MEDIA.get(value.partition(";")[0].strip().lower())
    return None


def content_type_of(answer: Answer) -> str:
    """The answer's Content-Type, empty when it has none."""
    return next((value for name, value in answer.headers if name.lower() == "content-type"), "")


def reader_for(operation: Operation, answer: Answer) -> UsageReader:
    """What looks for token usage and failures inside a passing answer."""
    return UsageReader(content_type_of(answer), operation.route.dialect)


def watches_usage(operation: Operation) -> bool:
    """Whether the answer can say what a model run used, or can be a failure with status 200."""
    return operation.effect is not Effect.READ or operation.route.cost_class is CostClass.MODEL


async def pass_on(
    parts: Parts, x: Exchange, answer: Answer, pieces: Pieces, *, reader: UsageReader | None = None
) -> str:
    """Pass a body on, piece by piece as it comes; returns how it ended: `Ending`, or revoked or drained.

    A body that broke off has broken the client's connection as well.
    """
    operation, principal, tenant = settled(x)
    form = form_of(answer)
    # The head of a subscription is news in itself, whatever its answer's form.
    is_live = form is not None or operation.effect is Effect.STREAM
    response = x.streamed(answer.status, answer.headers, is_live=is_live)
    await response.prepare(x.request)
    if form is None:
        return await _copy(parts, x, response, pieces, reader)
    terminal = terminal_for(operation)
    ending: str = Ending.CLIENT_ABORT
    parts.metrics.stream_opened(tenant.id)
    try:
        with parts.open_streams.entered(principal) as stream:
            relayed = relay(
                pieces,
                form,
                parts.relay_options,
                terminal=terminal,
                ended=stream.ended,
                observer=parts.metrics.upstream,
            )
            try:
                await _copy(parts, x, response, relayed, reader, is_stream=True)
            finally:
                await relayed.aclose()
                ending = relayed.ending or ending
                if ending == Ending.DEADLINE and stream.why:
                    # Ended by us before its time: say why.
                    ending = stream.why
        return ending
    finally:
        parts.metrics.stream_ended(tenant.id, ending, x.elapsed_s)


async def _copy(
    parts: Parts,
    x: Exchange,
    response: web.StreamResponse,
    pieces: Pieces,
    reader: UsageReader | None,
    *,
    is_stream: bool = False,
) -> str:
    try:
        async for piece in pieces:
            x.answer_bytes += len(piece)
            if x.answer_digest is not None:
                x.answer_digest.update(piece)
            if reader is not None:
                reader.feed(piece)
            async with asyncio.timeout(parts.write_timeout_s):
                await response.write(piece)
            if is_stream and x.first_byte_s is None:
                x.first_byte_s = x.elapsed_s
                parts.metrics.stream_first_byte(x.first_byte_s, x.request_id)
        await response.write_eof()
    except StreamBroken:
        # What was written before it has left for the client: closing sends it, and shows the break.
        close_broken(x)
        return Ending.TRUNCATED
    except (TimeoutError, ConnectionError):
        # The client left, or would not read: nobody is to blame upstream (499 in metrics and log).
        abort(x)
        x.status = CLIENT_GONE
        return Ending.CLIENT_ABORT
    except asyncio.CancelledError:
        abort(x)
        raise
    return Ending.COMPLETE


def close_broken(x: Exchange) -> None:
    """End the client's connection inside a body, so that no half answer looks whole.

    The bytes before are still delivered; the missing last chunk (RFC 9112 section 8) tells the rest.
    """
    transport = x.request.transport
    if transport is not None:
        transport.close()


def abort(x: Exchange) -> None:
    """Break the client's connection, so that no half answer looks whole."""
    with contextlib.suppress(AttributeError):
        transport = x.request.transport
        if transport is not None:
            transport.abort()

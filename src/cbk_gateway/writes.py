"""Answering writes: journalled before the upstream sees them, invalidated before the client hears of them.

The order is what makes the promises hold: the intent is durable, the epochs have moved, only then is a
byte sent; the epochs have moved again before the last byte of the answer leaves. Whatever happens in
between, the intent is closed with what is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
from aiohttp import web

from cbk_gateway import forwarding, request_body, settling
from cbk_gateway.audit import Act, Intent, OnFailure, Outcome, Result
from cbk_gateway.cache import WriteMark
from cbk_gateway.errors import NotFound, Refusal
from cbk_gateway.exchange import Exchange
from cbk_gateway.limits.usage import UsageReader
from cbk_gateway.parts import Parts
from cbk_gateway.upstream import Answer, Ending, UpstreamFault


class _Write:
    """What is known of one write as it goes on; closes its intent and its invalidation exactly once."""

    __slots__ = (
        "answer",
        "answer_ids",
        "ending",
        "fault",
        "intent",
        "mark",
        "parts",
        "reader",
        "refusal",
        "x",
    )

    def __init__(self, parts: Parts, x: Exchange, intent: Intent | None) -> None:
        self.parts = parts
        self.x = x
        self.intent = intent
        self.mark: WriteMark | None = None
        self.answer: Answer | None = None
        self.reader: UsageReader | None = None
        self.fault: UpstreamFault | None = None
        self.refusal: Refusal | None = None
        self.ending: str | None = None
        self.answer_ids: tuple[str, ...] = ()


async def answer(parts: Parts, x: Exchange) -> web.StreamResponse:
    """Answer a write."""
    operation, _, _ = forwarding.settled(x)
    if x.body is None:
        x.body = await request_body.take(x.request, parts.bounds)
    await forwarding.check_body(parts, x)
    with x.step("journal"):
        write = _Write(parts, x, await _intend(parts, x))
    if write.intent is not None:
        parts.metrics.audit.write_begun()
    try:
        write.mark = await parts.cache.begin_write(
            x.account, operation.route.invalidates, is_open_ended=operation.route.runs_model
        )
        write.answer = await forwarding.send(parts, x, x.body)
        async with write.answer:
            return await _pass_back(write, write.answer)
    except UpstreamFault as fault:
        write.fault = fault
        raise
    except Refusal as refusal:
        write.refusal = refusal
        raise
    finally:
        _close(write)


async def _intend(parts: Parts, x: Exchange) -> Intent | None:
    """Make the intent durable, or refuse the write; None where there is no journal."""
    return await parts.journal.intend(_act(parts, x)) if parts.journal is not None else None


def _act(parts: Parts, x: Exchange) -> Act:
    operation, principal, tenant = forwarding.settled(x)
    body = x.body
    return Act(
        request_id=x.request_id,
        tenant=tenant.id,
        subject=principal.subject,
        token_id=principal.token_id,
        issuer=principal.issuer,
        scopes=principal.scopes,
        client_address=x.client_address(parts.trusted_proxies),
        user_agent=x.header("User-Agent"),
        run_as=tenant.run_as or x.asked_run_as,
        operation=operation,
        account=x.account,
        key_fingerprint=tenant.key.stable_fingerprint(parts.fingerprint_key),
        body_sha256=body.sha256 if body is not None and body.whole is not None else None,
        body_bytes=body.length if body is not None else 0,
        body=body.whole if body is not None and request_body.is_json_media(_content_type(x)) else None,
        content_type=_content_type(x) or None,
        trace_id=x.trace.trace_id,
        on_failure=OnFailure(tenant.audit_on_failure),
    )


async def _pass_back(write: _Write, upstream_answer: Answer) -> web.StreamResponse:
    """Pass the answer back; its end is held until nobody can be served from before the write."""
    parts, x = write.parts, write.x
    operation, _, tenant = forwarding.settled(x)
    write.reader = forwarding.reader_for(operation, upstream_answer)
    if forwarding.form_of(upstream_answer) is not None:
        # Events are not held back: while an open-ended write is open nothing of the account is served
        # from any cache, so its end may trail the last event.
        write.ending = await forwarding.pass_on(
            parts, x, upstream_answer, upstream_answer.chunks(), reader=write.reader
        )
        await _finish_mark(write)
        return forwarding.response_of(x)
    body, rest = await forwarding.gather(upstream_answer, parts.max_whole_bytes)
    if rest is not None:
        pieces = _ended_by(write, forwarding.chained(body, rest))
        write.ending = await forwarding.pass_on(parts, x, upstream_answer, pieces, reader=write.reader)
        return forwarding.response_of(x)
    write.reader.feed(body)
    write.answer_ids = _ids_in(body) if upstream_answer.status < 300 else ()
    await _finish_mark(write)
    if upstream_answer.status < 300 and not await parts.ownership.remember(
        tenant, operation, write.answer_ids
    ):
        raise NotFound("There is no such object.", reason="isolation")
    write.ending = "complete"
    return x.answer(upstream_answer.status, upstream_answer.headers, body)


async def _ended_by(write: _Write, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces, the last one kept back until the invalidation has reached everybody."""
    last = b""
    async for piece in pieces:
        if last:
            yield last
        last = piece
    await _finish_mark(write)
    if last:
        yield last


async def _finish_mark(write: _Write) -> None:
    if write.mark is not None:
        mark, write.mark = write.mark, None
        # In a task of its own: a client that leaves now must not leave old answers behind.
        await asyncio.shield(write.parts.background.spawn(mark.finish()))


def _close(write: _Write) -> None:
    """Close intent, invalidation and grant; synchronous, so that cancellation cannot interrupt it."""
    parts, x = write.parts, write.x
    if write.mark is not None:
        mark, write.mark = write.mark, None
        parts.background.spawn(mark.finish())
    if write.intent is not None:
        outcome = _outcome(write)
        write.intent.close(outcome)
        parts.metrics.audit.write_ended(outcome.result)
        if outcome.result == Result.UNKNOWN:
            parts.doubts.set()
    settling.settle_fault(parts, x, write.fault, write.reader)


def _outcome(write: _Write) -> Outcome:
    x, upstream_answer, fault = write.x, write.answer, write.fault
    operation, _, _ = forwarding.settled(x)
    body = x.body
    if fault is not None:
        result = str(fault.outcome)
    elif write.refusal is not None:
        # The upstream answered, and what it said was about the gateway's key.
        result = Result.ANSWERED
    elif upstream_answer is None or write.ending in {None, Ending.CLIENT_ABORT}:
        result = Result.ABORTED
    else:
        result = Result.ANSWERED
    return Outcome(
        result=result,
        status=_status_given(write),
        reason=write.refusal.reason if write.refusal is not None else None,
        failure=write.reader.failure if write.reader is not None else None,
        duration_s=x.elapsed_s,
        request_bytes=body.size if body is not None else 0,
        answer_bytes=x.answer_bytes,
        request_sha256=body.sha256 if body is not None else None,
        answer_ids=write.answer_ids,
        upstream_attempts=upstream_answer.attempts if upstream_answer is not None else 1,
        invalidated=tuple(sorted(operation.route.invalidates)),
        stream_end=write.ending,
    )


def _status_given(write: _Write) -> int | None:
    if write.fault is not None:
        return write.fault.refusal().status
    if write.refusal is not None:
        return write.refusal.status
    return write.answer.status if write.answer is not None else None


def _ids_in(body: bytes) -> tuple[str, ...]:
    """Ids an answer names: its own, or those of its items."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ()
    if not isinstance(document, dict):
        return ()
    if isinstance(document.get("id"), str):
        return (document["id"],)
    items = document.get("items")
    found = [item.get("id") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return tuple(one for one in found if isinstance(one, str))[:100]


def _content_type(x: Exchange) -> str:
    return x.header("Content-Type") or ""

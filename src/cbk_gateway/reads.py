"""Answering reads and streams: from the cache, from somebody else's fill, or from the upstream.

Reads never touch the journal. A fill runs in a task of its own, because others may be waiting for it when
the client that caused it has left.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from aiohttp import web

from cbk_gateway import forwarding, request_body, settling
from cbk_gateway.cache import CacheKeyParts, Fill, Hit, StoredAnswer
from cbk_gateway.errors import NotAuthorized, Refusal
from cbk_gateway.exchange import SERVER, Exchange
from cbk_gateway.operation import Effect
from cbk_gateway.parties import Tenant
from cbk_gateway.parts import Parts
from cbk_gateway.shedding import Kind, Overloaded
from cbk_gateway.upstream import Answer, UpstreamFault

BYPASS_HEADER = "X-CBK-Cache"
# Answers that an old one may stand in for (RFC 5861 section 4).
_FAILURES = frozenset({500, 502, 503, 504})


@dataclass(slots=True)
class _Overflow:
    """An answer too large to be kept: what was read of it, and the rest as it comes."""

    answer: Answer
    pieces: forwarding.Pieces


async def answer(parts: Parts, x: Exchange) -> web.StreamResponse:
    """Answer a read, a search or a subscription."""
    operation, _, tenant = forwarding.settled(x)
    if not operation.is_cacheable:
        if operation.method == "GET":
            x.cache_status = f"{SERVER}; fwd=bypass; detail=not-cacheable"
        return await _forward(parts, x, passed="")
    if x.asked_run_as is not None:
        # Writes of the child's other parents and credentials are not all seen here.
        x.cache_label, x.cache_status = "bypass", f"{SERVER}; fwd=bypass; detail=run-as"
        return await _forward(parts, x)
    is_filtered = parts.ownership.filters(tenant, operation)
    key = key_parts(x, tenant)
    found = await parts.cache.recall(
        operation,
        key,
        bypass=wants_bypass(x, tenant),
        # An account's list is kept whole; what one of several tenants sees of it has no tag of its own.
        if_none_match=None if is_filtered else x.header("If-None-Match"),
        accept_encoding=None if is_filtered else x.header("Accept-Encoding"),
    )
    if isinstance(found, Hit):
        if found.refresh is not None:
            parts.background.spawn(_refresh(parts, x, found.refresh))
        response = await _answer_hit(parts, x, found, "stale" if "stale" in found.cache_status else "hit")
        if parts.hot_path is not None:
            parts.hot_path.offer(x, found, key)
        return response
    x.cache_status = found.cache_status
    if not isinstance(found, Fill):
        x.cache_label = "bypass"
        # What lacks for the moment only may be found the next time.
        return await _forward(parts, x, passed=None if "fwd=miss" in found.cache_status else found.reason)
    x.cache_label = "miss"
    filling = parts.background.spawn(_fill(parts, x, found))
    try:
        # Shielded: a client that leaves must not take the answer away from those who wait for it.
        filled = await asyncio.shield(filling)
    except asyncio.CancelledError:
        if not found.is_awaited:
            filling.cancel()
        raise
    if isinstance(filled, Hit):
        return await _answer_hit(parts, x, filled, "stale")
    if isinstance(filled, StoredAnswer):
        return await _answer_hit(parts, x, filled, "miss")
    async with filled.answer:
        await forwarding.pass_on(parts, x, filled.answer, filled.pieces)
    settling.settle(parts, x, None)
    return forwarding.response_of(x)


def key_parts(x: Exchange, tenant: Tenant) -> CacheKeyParts:
    """What, besides path and query, selects an answer."""
    run_as = tenant.run_as or x.asked_run_as
    return CacheKeyParts(
        account=x.account,
        credential_class="key",
        run_as=run_as.value if run_as is not None else None,
        accept=first_media_type(x.header("Accept")),
        timezone=x.header("X-Timezone") or "",
    )


def first_media_type(accept: str | None) -> str:
    """What the API reads of `Accept`: the first media type, without parameters; JSON by default."""
    first = (accept or "").partition(",")[0].partition(";")[0].strip().lower()
    return first if first not in {"", "*/*"} else "application/json"


def wants_bypass(x: Exchange, tenant: Tenant) -> bool:
    """Whether the cache is to be passed by.

    Only our own header counts: the Node SDK sends `Cache-Control: max-age=0` with every call.
    """
    return tenant.may_bypass_cache and (x.header(BYPASS_HEADER) or "").strip().lower() == "bypass"


async def _fill(parts: Parts, x: Exchange, fill: Fill) -> Hit | StoredAnswer | _Overflow:
    """Fetch what the cache lacks and give it to the cache; the answer is what the client gets."""
    try:
        parts.shedding.admit(Kind.READ)
        answer = await forwarding.send(parts, x, None, accept=fill.upstream_accept)
        try:
            body, rest = await forwarding.gather(answer, parts.max_whole_bytes)
            if rest is None:
                answer.abort()
                old = fill.stale() if answer.status in _FAILURES else None
                if old is not None:
                    return old
                return await fill.store(answer.status, answer.headers, body)
            fill.abandon("too-large")
        except BaseException:
            answer.abort()
            raise
    except (UpstreamFault, Overloaded):
        settling.settle(parts, x, None, was_sent=False)
        old = fill.stale()
        if old is None:
            raise
        return old
    finally:
        fill.abandon()
    x.cache_label = "bypass"
    return _Overflow(answer, forwarding.chained(body, rest))


async def _answer_hit(parts: Parts, x: Exchange, hit: Hit | StoredAnswer, label: str) -> web.Response:
    operation, _, tenant = forwarding.settled(x)
    x.cache_label = "collapsed" if "collapsed" in hit.cache_status else label
    x.cache_status = hit.cache_status
    headers, body = hit.headers, hit.body
    if hit.status == 200 and parts.ownership.filters(tenant, operation):
        body = await parts.ownership.filter_list(tenant, operation, body)
        headers = tuple(pair for pair in headers if pair[0].lower() != "etag")
    response = x.answer(hit.status, headers, body)
    settling.settle(parts, x, None)
    return response


async def _refresh(parts: Parts, x: Exchange, fill: Fill) -> None:
    """Fetch anew what was just served past its lifetime; a failure leaves the old answer where it is."""
    with contextlib.suppress(UpstreamFault, Refusal):
        filled = await _fill(parts, x, fill)
        if isinstance(filled, _Overflow):
            filled.answer.abort()


async def _forward(parts: Parts, x: Exchange, *, passed: str | None = None) -> web.StreamResponse:
    """Pass a read through uncached: downloads, exports, searches, subscriptions.

    Args:
        parts: What it takes.
        x: The request.
        passed: Why the cache will pass by every such request, "" when it is not asked; None when it may not.
    """
    operation, _, tenant = forwarding.settled(x)
    parts.shedding.admit(Kind.READ)
    if x.body is None and x.request.method == "POST":
        x.body = await request_body.take(x.request, parts.bounds)
    await forwarding.check_body(parts, x)
    # What has to be looked into must come uncoded.
    accept = (x.header("Accept") or "*/*") if parts.ownership.filters(tenant, operation) else None
    try:
        answer = await forwarding.send(parts, x, x.body, accept=accept)
    except UpstreamFault as fault:
        settling.settle_fault(parts, x, fault, None)
        raise
    async with answer:
        if answer.status == 200 and parts.ownership.filters(tenant, operation):
            return await _answer_filtered(parts, x, answer)
        reader = forwarding.reader_for(operation, answer) if operation.effect is Effect.STREAM else None
        await forwarding.pass_on(parts, x, answer, answer.chunks(), reader=reader)
        if passed is not None and parts.hot_path is not None:
            parts.hot_path.forwarder.offer(x, answer, passed)
    settling.settle_fault(parts, x, None, reader)
    return forwarding.response_of(x)


async def _answer_filtered(parts: Parts, x: Exchange, answer: Answer) -> web.Response:
    """A list of an account that several tenants share, with this tenant's own items only."""
    operation, _, tenant = forwarding.settled(x)
    body, rest = await forwarding.gather(answer, parts.max_whole_bytes)
    if rest is not None:
        raise NotAuthorized("The list is too long to be told apart by owner.", reason="isolation")
    own = await parts.ownership.filter_list(tenant, operation, body)
    settling.settle(parts, x, None)
    return x.answer(answer.status, answer.headers, own)

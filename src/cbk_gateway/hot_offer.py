"""An entry of the hot path, made of a request that the full path has just answered from memory.

Here stands what such a request must be like. Whether it comes often enough and in the right form, and whether
an entry still holds later, is `hotpath.py`'s question.
"""

from __future__ import annotations

from typing import Final

from aiohttp.http_writer import HttpVersion11

from cbk_gateway.cache import CacheKeyParts, Hit
from cbk_gateway.exchange import Exchange
from cbk_gateway.hot_entry import HotEntry
from cbk_gateway.parts import Parts

MAX_BODY_BYTES: Final = 256 * 1024


def entry_of(parts: Parts, x: Exchange, found: Hit, key: CacheKeyParts) -> HotEntry | None:
    """The entry of an exchange whose answer has not gone out yet; None when it is not to be repeated.

    Args:
        parts: What the full path works with.
        x: The exchange.
        found: Its answer.
        key: What the cache knows that by.
    """
    grant, tenant, operation = x.grant, x.tenant, x.operation
    if grant is None or tenant is None or operation is None or x.principal is None:
        return None
    if parts.tracer is not None and x.header("traceparent") is not None:
        # Its client may have decided that it is recorded.
        return None
    if parts.ownership.watches(tenant) or x.cache_label != "hit" or found.refresh is not None:
        return None
    if x.request.version != HttpVersion11 or len(found.body) > MAX_BODY_BYTES:
        return None
    holding = parts.cache.hold(operation, key, x.header("If-None-Match"), x.header("Accept-Encoding"))
    if holding is None or holding.hit.body is not found.body or holding.hit.status != found.status:
        return None
    cells = parts.metrics.bind_request(
        tenant.id, operation.resource, operation.action, found.status, "hit", operation.effect
    )
    token_name = parts.identity.name_of(x.request.headers.getall("Authorization", ()))
    claim = parts.limiter.claim(tenant, x.principal.subject, operation)
    return HotEntry(x, operation, x.principal, tenant, holding, token_name, cells, grant, claim)

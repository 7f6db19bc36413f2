"""What a request asks of the cache, decided from its operation alone. Pure.

An `Ask` names one entry; or there is none, and a bounded word says why. Which answers may be kept once they
are here is `storability.py`'s question.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from cbk_gateway.cache import keys, representation
from cbk_gateway.cache.copy import Copy, Wish
from cbk_gateway.cache.entry import Entry
from cbk_gateway.cache.options import CacheOptions
from cbk_gateway.operation import Operation

_MAX_VARYING_CHARS: Final = 200
_MAX_ASKS: Final = 8192


@dataclass(frozen=True, slots=True)
class Ask:
    """One entry, and how this kind of request may use it.

    Attributes:
        account: Whose it is.
        credential_class: What kind of credential asks.
        digest: Its name.
        shared_digest: The name that it has for all accounts together.
        reads: Types whose epochs it depends on.
        ttl_s: Seconds that the configuration gives it.
        resource: Its type.
        action: `list` or `fetch`.
        accept: The media type to ask the upstream for.
        is_jsonl: Whether the entry is a JSON page and the answer wanted is JSON Lines.
        take: The page size its query names, for that.
        may_fill: Whether the request may fetch the entry when it is not there.
        is_global: Whether it may be the same for every account.
        label: What it is, for operators: its type, path and query.
    """

    account: str
    credential_class: str
    digest: str
    shared_digest: str
    reads: tuple[str, ...]
    ttl_s: float
    resource: str
    action: str
    accept: str
    is_jsonl: bool
    take: int | None
    may_fill: bool
    is_global: bool
    label: str

    def wish(self, if_none_match: str | None, accept_encoding: str | None) -> Wish:
        """How one request wants it."""
        return Wish(if_none_match, representation.codings(accept_encoding), self.is_jsonl, self.take)

    def copy(self, entry: Entry, sent_at: float, now_ms: int) -> Copy:
        """An entry of this name, as this process has it: see `copy.py` about the times."""
        return Copy(
            entry,
            account=self.account,
            digest=self.digest,
            label=self.label,
            reads=self.reads,
            sent_at=sent_at,
            now_ms=now_ms,
        )


def ask_of(operation: Operation, parts: keys.CacheKeyParts, options: CacheOptions) -> Ask | str:
    """The entry that a request asks for, or the word saying why there is none."""
    if not options.enabled:
        return "disabled"
    route = operation.route
    ttl_s = options.ttl_s(route.resource, route.lifetime)
    if not operation.is_cacheable or ttl_s <= 0:
        return "not-cacheable"
    if len(parts.accept) > _MAX_VARYING_CHARS or len(parts.timezone) > _MAX_VARYING_CHARS:
        return "representation"
    accept = keys.representation(parts)
    is_jsonl, take = False, None
    if route.action == "list" and accept != keys.JSON:
        if accept != keys.JSONL:
            return "representation"
        if not options.cache_jsonl_walks:
            if not representation.can_walk_in_one_page(operation):
                return "representation"
            is_jsonl, accept, take = True, keys.JSON, representation.take_of(operation.query)
    return Ask(
        account=parts.account,
        credential_class=parts.credential_class,
        digest=keys.digest(operation, parts, accept),
        shared_digest=keys.digest(operation, _nobody(parts), accept),
        reads=keys.epoch_types(operation),
        ttl_s=ttl_s,
        resource=route.resource,
        action=route.action,
        accept=accept,
        is_jsonl=is_jsonl,
        take=take,
        # A walk without a size is a page only for small collections, which a page must have shown first.
        may_fill=not is_jsonl or take is not None,
        is_global=route.lifetime is route.lifetime.GLOBAL,
        label=f"{route.resource} {operation.path}" + ("?" + operation.query if operation.query else ""),
    )


class Asks:
    """`ask_of`, remembered for the requests that come again and again."""

    def __init__(self, options: CacheOptions) -> None:
        self._options = options
        self._known: OrderedDict[tuple[str, str, keys.CacheKeyParts], Ask] = OrderedDict()

    def of(self, operation: Operation, parts: keys.CacheKeyParts) -> Ask | str:
        """The entry that a request asks for, or the word saying why there is none."""
        name = (operation.path, operation.query, parts)
        known = self._known.get(name)
        if known is not None and operation.method == "GET":
            return known
        ask = ask_of(operation, parts, self._options)
        if not isinstance(ask, str):
            self._known[name] = ask
            if len(self._known) > _MAX_ASKS:
                self._known.popitem(last=False)
        return ask


def _nobody(parts: keys.CacheKeyParts) -> keys.CacheKeyParts:
    """What an answer depends on, but for who asks."""
    return keys.CacheKeyParts("", "", None, parts.accept, parts.timezone)

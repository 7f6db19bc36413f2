"""Repeated cached reads, answered from the bytes of their request before anything is parsed.

Clients send the same request head again and again. Once the full path has answered one from this worker's
own memory, the same bytes get the same answer without parsing, verifying a signature, or looking up labels.
Nothing is decided here: every step asks the package that decides on the full path.

Why it is safe, step by step:

- *Same meaning.* An entry is found by the whole of a read buffer and made only from a buffer that held one
  complete GET and nothing else, at a message boundary of its connection (`listener.py` keeps count of
  those). What a head means depends on its bytes alone, so equal bytes are the operation, the headers and the
  key of the cache that the full path understood. One byte more or less is another request.
- *Same caller.* Each time, `Identity.recall` must give the very principal: it knows only verified tokens
  that have not expired, were not revoked, and whose key was not withdrawn, and nobody while revocations are
  unknown.
- *Same rights.* Authorisation follows from principal, tenant and operation alone. The registry must hold the
  very tenant; a change of tenants puts other objects there. Tenants whose objects are looked at one by one
  (`isolation`) have no entries.
- *Same limits.* `Limiter.admit_now` decides, and its refusal is given as the full path would give it. When
  only the store can tell, or a tenant's requests may wait in line, the full path takes over, and nothing was
  taken from a limit before.
- *Same answer.* `Holding.look` must say that memory would give this very copy in this very variant now. From
  there to the socket nothing is awaited, so no write can come between.
- *Same order.* Only an idle connection is answered: no request being served, none waiting, no bytes half
  read, nothing left to send.

The `verify` mode proves it continuously: the full path answers, and this module says what it would have said.
Heads hold tokens, so entries are never shown, counted only; they leave with the least used, beyond a bound
on number and bytes, and all at once when tenants change or tokens are revoked.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import HttpVersion11

from cbk_gateway import cors
from cbk_gateway.cache import CacheKeyParts, Hit, Holding
from cbk_gateway.errors import JSON_CONTENT_TYPE, Refusal
from cbk_gateway.exchange import SERVER, Exchange, address_of
from cbk_gateway.limits import Grant
from cbk_gateway.listener import GatewayProtocol
from cbk_gateway.operation import Operation
from cbk_gateway.parties import Principal, Tenant
from cbk_gateway.parts import Parts
from cbk_gateway.prepared import PreparedHit, prepare, rate_lines, refusal_head
from cbk_gateway.telemetry import AccessEntry
from cbk_gateway.telemetry.request_id import is_acceptable, new_request_id
from cbk_gateway.telemetry.timing import server_timing

if TYPE_CHECKING:
    from cbk_gateway.telemetry.traffic import RequestCells

_log = structlog.get_logger(__name__)

MAX_ENTRIES: Final = 4096
MAX_BYTES: Final = 32 * 1024**2
MAX_HEAD_BYTES: Final = 8 * 1024
MAX_BODY_BYTES: Final = 256 * 1024
_MAX_SEEN: Final = 8192


class Entry:
    """One repeated request: who sent it, what it may do, what it gets."""

    __slots__ = (
        "address_hops",
        "cells",
        "fixed_id",
        "holding",
        "operation",
        "origin_fields",
        "prepared",
        "principal",
        "rate_names",
        "status",
        "tenant",
        "token_name",
    )

    def __init__(
        self,
        x: Exchange,
        holding: Holding,
        token_name: bytes,
        cells: RequestCells,
        grant: Grant,
    ) -> None:
        assert x.operation is not None  # noqa: S101 - `offer` looked
        assert x.principal is not None  # noqa: S101 - as above
        assert x.tenant is not None  # noqa: S101 - as above
        self.operation: Operation = x.operation
        self.principal: Principal = x.principal
        self.tenant: Tenant = x.tenant
        self.holding = holding
        self.token_name = token_name
        self.cells = cells
        self.status = holding.hit.status
        self.rate_names = tuple(grant.headers)
        offered = x.header("X-Request-Id")
        self.fixed_id = offered if offered is not None and is_acceptable(offered) else None
        self.origin_fields = cors.granted(x.tenant.allowed_origins, x.header("Origin"))
        self.address_hops = tuple(x.request.headers.getall("X-Forwarded-For", ()))
        self.prepared: PreparedHit | None = None

    def __repr__(self) -> str:
        return f"<Entry {self.tenant.id} {self.operation.route.template} {self.status}>"


class HotPath:
    """The entries of one worker.

    Args:
        parts: What the full path works with.
        is_verifying: Whether the full path answers everything and is compared with.

    Attributes:
        served: Answers given from entries, refusals included.
        compared: Answers compared, when verifying.
        differences: How many of them differed: a defect, and logged as an error.
    """

    def __init__(self, parts: Parts, *, is_verifying: bool = False) -> None:
        self._parts = parts
        self._is_verifying = is_verifying
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._size_bytes = 0
        # Bound once: these are read for every request.
        self._recall = parts.identity.recall
        self._tenant_of = parts.registry.get
        self._admit = parts.limiter.admit_now
        self._count_token = parts.metrics.identity.token_remembered
        self._count_bodies = parts.metrics.bodies
        self.served = 0
        self.compared = 0
        self.differences = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<HotPath {len(self)} entries, {self._size_bytes} bytes, {self.served} served>"

    def clear(self, _: object = None) -> None:
        """Forget all entries: tenants changed, or tokens were revoked."""
        self._entries.clear()
        self._seen.clear()
        self._size_bytes = 0

    # Answering.

    def answer(self, head: bytes, connection: GatewayProtocol) -> bool:
        """Answer a request of an idle connection, if it is a repeated one. Once per read buffer."""
        entry = self._entries.get(head)
        if entry is None:
            return False
        started = time.perf_counter()
        times = self._standing(head, entry)
        if times is None:
            return False
        if self._is_verifying:
            connection.expected = entry
            return False
        try:
            grant = self._admit(entry.tenant, entry.principal.subject, entry.operation)
        except Refusal as refusal:
            self._refuse(entry, refusal, connection, started)
            return True
        if grant is None:
            return False
        self._give(entry, grant, times, connection, started)
        return True

    def _standing(self, head: bytes, entry: Entry) -> tuple[int, int] | None:
        """The answer's times if everything still holds; else the entry is forgotten."""
        principal = entry.principal
        times = None
        if self._recall(entry.token_name) is principal and self._tenant_of(principal.tenant) is entry.tenant:
            times = entry.holding.look()
        if times is None:
            self._forget(head)
        else:
            self._entries.move_to_end(head)
        return times

    def _give(
        self, entry: Entry, grant: Grant, times: tuple[int, int], connection: GatewayProtocol, started: float
    ) -> None:
        prepared = entry.prepared
        assert prepared is not None  # noqa: S101 - entries without are not kept
        request_id = entry.fixed_id or new_request_id()
        rates = rate_lines(grant.headers)
        total_s = time.perf_counter() - started
        head = prepared.head(times[0], request_id, rates, times[1], total_s, rfc822_formatted_time())
        connection.give(head + prepared.body)
        self.served += 1
        entry.holding.count()
        self._count_token(entry.principal.issuer)
        entry.cells.observe(total_s, None, request_id)
        self._count_bodies(entry.tenant.id, 0, len(prepared.body))
        access = self._parts.access
        if access is not None and access.wants(entry.status, total_s):
            self._write_line(entry, connection, request_id, total_s, len(prepared.body), None)

    def _refuse(self, entry: Entry, refusal: Refusal, connection: GatewayProtocol, started: float) -> None:
        """Give a refusal of the limiter, as `Exchange.refuse` would."""
        metrics, parts, tenant = self._parts.metrics, self._parts, entry.tenant.id
        request_id = entry.fixed_id or new_request_id()
        body = refusal.body(request_id)
        total_s = time.perf_counter() - started
        fields = [("Content-Type", JSON_CONTENT_TYPE), *refusal.headers.items()]
        fields += [("X-Request-Id", request_id), ("Server", SERVER)]
        if parts.shows_timing:
            fields.append(("Server-Timing", server_timing(total_s, None)))
        fields += entry.origin_fields
        fields += [("Content-Length", str(len(body))), ("Date", rfc822_formatted_time())]
        connection.give(refusal_head("HTTP/1.1 429 Too Many Requests", fields) + body)
        self.served += 1
        self._count_token(entry.principal.issuer)
        metrics.refusal(refusal.reason, refusal.status, tenant)
        operation = entry.operation
        metrics.request(
            tenant,
            operation.resource,
            operation.action,
            refusal.status,
            "none",
            total_s,
            effect=operation.effect,
            request_id=request_id,
        )
        metrics.bodies(tenant, 0, len(body))
        access = parts.access
        if access is not None and access.wants(refusal.status, total_s):
            self._write_line(entry, connection, request_id, total_s, len(body), refusal)

    def _write_line(  # noqa: PLR0917 - all of it is of one answer
        self,
        entry: Entry,
        connection: GatewayProtocol,
        request_id: str,
        total_s: float,
        sent_bytes: int,
        refusal: Refusal | None,
    ) -> None:
        parts = self._parts
        if parts.access is None:
            return
        parts.access.write(
            AccessEntry(
                request_id=request_id,
                method="GET",
                path=entry.operation.route.template,
                status=entry.status if refusal is None else refusal.status,
                total_s=total_s,
                tenant=entry.tenant.id,
                cache="hit" if refusal is None else "none",
                client=address_of(connection.peername, entry.address_hops, parts.trusted_proxies),
                reason=refusal.reason if refusal is not None else None,
                sent_bytes=sent_bytes,
            )
        )

    # Learning.

    def offer(self, x: Exchange, found: Hit, key: CacheKeyParts) -> None:
        """Consider an answer that the full path has just taken from the cache; it has not gone out yet."""
        connection = x.request.protocol
        if not isinstance(connection, GatewayProtocol) or connection.sole_head is None:
            return
        head, grant, tenant, operation = connection.sole_head, x.grant, x.tenant, x.operation
        if head in self._entries or not self._is_repeated(head):
            return
        if grant is None or tenant is None or operation is None or x.principal is None:
            return
        if grant.reserved or grant.slots or tenant.limits.max_wait_s > 0:
            return
        if self._parts.tracer is not None:
            # A span tells of the steps of a request, and here there are none.
            return
        if self._parts.ownership.watches(tenant) or x.cache_label != "hit" or found.refresh is not None:
            return
        if x.request.version != HttpVersion11 or len(found.body) > MAX_BODY_BYTES:
            return
        holding = self._parts.cache.hold(
            operation, key, x.header("If-None-Match"), x.header("Accept-Encoding")
        )
        if holding is None or holding.hit.body is not found.body or holding.hit.status != found.status:
            return
        cells = self._parts.metrics.bind_request(
            tenant.id, operation.resource, operation.action, found.status, "hit", operation.effect
        )
        token_name = self._parts.identity.name_of(x.request.headers.getall("Authorization", ()))
        connection.offered = Entry(x, holding, token_name, cells, grant)

    def keep(self, head: bytes, entry: Entry, response: web.StreamResponse) -> None:
        """Keep an entry whose answer has gone out, in the words in which it did."""
        body = entry.holding.hit.body
        line = f"HTTP/1.1 {response.status} {response.reason}"
        entry.prepared = prepare(line, response.headers.items(), body, entry.rate_names)
        if entry.prepared is None or not response.keep_alive or head in self._entries:
            return
        self._entries[head] = entry
        self._size_bytes += _size(head, entry)
        while len(self._entries) > MAX_ENTRIES or self._size_bytes > MAX_BYTES:
            self._forget(next(iter(self._entries)))

    def compare(self, entry: Entry, response: web.StreamResponse) -> None:
        """Compare what the full path said with what the entry would have said, fields in their order."""
        times = entry.holding.look()
        if response.status == 429 or times is None:
            return
        if self._recall(entry.token_name) is not entry.principal or entry.prepared is None:
            return
        self.compared += 1
        fields = list(response.headers.items())
        rates = rate_lines({name: value for name, value in fields if name in entry.rate_names})
        said = response.headers.get
        request_id = str(entry.fixed_id or said("X-Request-Id", ""))
        spent_s = _total_s(said("Server-Timing", ""))
        # Whole seconds may turn over between the two.
        age_s = _near(times[0], said("Age", ""))
        ttl_s = _near(times[1], said("Cache-Status", "").rpartition("=")[2])
        fast = entry.prepared.head(age_s, request_id, rates, ttl_s, spent_s, said("Date", ""))
        line = f"HTTP/1.1 {response.status} {response.reason}"
        body = response.body if isinstance(response, web.Response) else None
        if refusal_head(line, fields) != fast or (body or b"") != entry.prepared.body:
            self.differences += 1
            _log.error("hot_path_differs", operation=entry.operation.route.audit_name, status=response.status)

    def _is_repeated(self, head: bytes) -> bool:
        """Whether these bytes came before: a head that is never repeated must not push others out."""
        if len(head) > MAX_HEAD_BYTES:
            return False
        name = hash(head)
        if name in self._seen:
            del self._seen[name]
            return True
        self._seen[name] = None
        if len(self._seen) > _MAX_SEEN:
            self._seen.popitem(last=False)
        return False

    def _forget(self, head: bytes) -> None:
        entry = self._entries.pop(head, None)
        if entry is not None:
            self._size_bytes -= _size(head, entry)


def _size(head: bytes, entry: Entry) -> int:
    return len(head) + (entry.prepared.size_bytes if entry.prepared is not None else 0)


def _near(whole: int, said: str) -> int:
    """What was said, if it is a number next to ours; else ours, so that the two differ."""
    return int(said) if said.isdigit() and abs(int(said) - whole) <= 1 else whole


def _total_s(timing: str) -> float:
    value = timing.partition("total;dur=")[2].partition(",")[0]
    return float(value or 0) / 1000

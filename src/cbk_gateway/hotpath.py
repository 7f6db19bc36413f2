"""Repeated cached reads, answered from the bytes of their request before anything is parsed.

Clients send the same request head again and again. Once the full path has answered one from this worker's
own memory, the same bytes get the same answer without parsing, verifying a signature, or looking up labels.
Nothing is decided here: every step asks the package that decides on the full path.

What no memory may answer is `fastforward.py`'s, and bad tokens are `hot_refusals.py`'s: both are asked for
requests that are unknown here, and keep to the same rules.

Why it is safe, step by step:

- *Same meaning.* An entry is found by the whole of a read buffer and made only from a buffer that held one
  complete GET and nothing else, at a message boundary of its connection (`listener.py` keeps count of
  those). What a head means depends on its bytes alone, so equal bytes are the operation, the headers and the
  key of the cache that the full path understood. One byte more or less is another request.
- *Same caller.* `Identity.recall` must give the very principal: it knows only verified tokens that have not
  expired, were not revoked, and whose key was not withdrawn, and nobody while revocations are unknown.
- *Same rights.* Authorisation follows from principal, tenant and operation alone. The registry must hold the
  very tenant; a change of tenants puts other objects there. Tenants whose objects are looked at one by one
  (`isolation`) have no entries.
- *Same limits.* Each time, `Claim.draw` or `Limiter.admit_now` decides, and a refusal is given as the full
  path would give it. When only the store can tell, or a tenant's requests may wait in line, the full path
  takes over, and nothing was taken from a limit before.
- *Same answer.* `Holding.look` must say that memory would give this very copy in this very variant now. From
  there to the socket nothing is awaited, so no write can come between.
- *Still so.* Caller, rights and answer are looked at once for many givings, and again as soon as anything of
  it may have changed: by itself, at the time that the looks named (`HotEntry.ends_at`: token, lifetime,
  lease on memory, the next whole second of `Age` or `Date`), or by an event, which whoever it happens to
  notes in `Breaks` in the same step (revocation, withdrawn key, dropped or evicted copy, lost feed). A change
  of tenants removes all entries.
- *Same order.* Only an idle connection is answered: no request being served, none waiting, no bytes half
  read, nothing left to send.

The `verify` mode proves it continuously: the full path answers, and this module says what it would have said.
Heads hold tokens, so entries are never shown, counted only; they leave with the least used, beyond a bound
on number and bytes, and all at once when tenants change or tokens are revoked.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from time import monotonic
from typing import Final

import structlog
from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import HttpVersion11

from cbk_gateway.addresses import address_of
from cbk_gateway.cache import CacheKeyParts, Hit
from cbk_gateway.errors import Refusal
from cbk_gateway.exchange import Exchange
from cbk_gateway.fastforward import Forwarder
from cbk_gateway.forward_entry import ForwardEntry
from cbk_gateway.hot_compare import says_the_same
from cbk_gateway.hot_entry import HotEntry
from cbk_gateway.hot_refusals import HotRefusals
from cbk_gateway.lease_queue import LeaseQueue
from cbk_gateway.limits import Usage
from cbk_gateway.listener import GatewayProtocol
from cbk_gateway.parts import Parts
from cbk_gateway.prepared import prepare, rate_lines
from cbk_gateway.prepared_refusal import DateLine, PreparedRefusal
from cbk_gateway.telemetry import AccessEntry
from cbk_gateway.telemetry.request_id import new_request_id
from cbk_gateway.telemetry.traffic import QUICK_S, QUICK_US

_log = structlog.get_logger(__name__)

MAX_ENTRIES: Final = 4096
MAX_BYTES: Final = 32 * 1024**2
MAX_HEAD_BYTES: Final = 8 * 1024
MAX_BODY_BYTES: Final = 256 * 1024
_MAX_SEEN: Final = 8192


class HotPath:
    """The entries of one worker.

    Args:
        parts: What the full path works with.
        is_verifying: Whether the full path answers everything and is compared with.

    Attributes:
        forwarder: Forwards what no memory may answer.
        refusals: Refuses bad tokens.
        queue: Where requests wait for a slice of a limit.
        refused: Refusals of the limiter given from entries.
        compared: Answers compared, when verifying.
        differences: How many of them differed: a defect, and logged as an error.
    """

    def __init__(self, parts: Parts, *, is_verifying: bool = False) -> None:
        self._parts = parts
        self._is_verifying = is_verifying
        self._entries: OrderedDict[bytes, HotEntry] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._size_bytes = 0
        self._date = DateLine()
        # Bound once: these are used for every request.
        self._breaks = parts.breaks
        self._now = parts.cache.now
        self._access = parts.access
        self._recall = parts.identity.recall
        self._told: dict[str, int] = {}
        parts.metrics.before_scrape(self._tell_all)
        self.queue = LeaseQueue(parts)
        self.forwarder = Forwarder(parts, self)
        self.refusals = HotRefusals(parts, self)
        self._gone = self.refused = 0
        self.compared = 0
        self.differences = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<HotPath {len(self)} entries, {self._size_bytes} bytes, {self.served} served>"

    @property
    def served(self) -> int:
        """Answers given from entries, refusals of the limiter included."""
        return self._gone + self.refused + sum(entry.given for entry in self._entries.values())

    def clear(self, _: object = None) -> None:
        """Forget all entries: tenants changed, or tokens were revoked."""
        self._tell_all()
        self._gone += sum(entry.given for entry in self._entries.values())
        self._entries.clear()
        self.forwarder.clear()
        self.refusals.clear()
        self._seen.clear()
        self._size_bytes = 0

    # Answering.

    def answer(self, head: bytes, connection: GatewayProtocol) -> bool:
        """Answer a request of an idle connection, if it is a repeated one. Once per read buffer."""
        entry = self._entries.get(head)
        if entry is None:
            return not self._is_verifying and (
                self.forwarder.answer(head, connection) or self.refusals.answer(head, connection)
            )
        now = self._now()
        if (now >= entry.ends_at or entry.breaks != self._breaks.count) and not self._renew(head, entry, now):
            return False
        if self._is_verifying:
            connection.expected = entry
            return False
        started = now if self.queue.since is None else self.queue.since
        rates = entry.claim.draw(monotonic()) if entry.claim is not None else None
        if rates is None:
            asked = self._ask_limiter(head, entry, connection, started)
            if isinstance(asked, bool):
                return asked
            rates = asked
        request_id = entry.fixed_id or new_request_id()
        first, second, third, last = entry.rendered
        spent_s = self._now() - started
        micros = int(spent_s * 1e6)
        is_quick = micros < QUICK_US
        timing = entry.timings[micros] if is_quick else entry.prepared.timing(spent_s)
        connection.give(b"".join((first, request_id.encode(), second, rates, third, timing, last)))
        if is_quick:
            entry.count += 1
            entry.spent_s += spent_s
            entry.last_id = request_id
        else:
            entry.tell(self._parts.metrics, 1)
            entry.cells.observe(spent_s, None, request_id)
        if self._access is not None and self._access.wants(entry.status, spent_s):
            self._write_line(entry, connection, request_id, spent_s, len(entry.prepared.body))
        return True

    def _renew(self, head: bytes, entry: HotEntry, now: float) -> bool:
        """Look again whether everything holds, and until when; if it does not, the entry is forgotten."""
        parts, breaks = self._parts, self._breaks.count
        if self.still_holds(entry):
            standing = entry.holding.look()
            if standing is not None:
                self._entries.move_to_end(head)
                wall = time.time()
                # The date turns over with the second, and a token ends by the same clock.
                lasts_s = min(1.0 - wall % 1.0, parts.identity.lasts_s(entry.token_name))
                entry.ends_at = min(standing.ends_at, now + lasts_s)
                entry.breaks = breaks
                date = rfc822_formatted_time()
                entry.rendered = entry.prepared.render(standing.age_s, standing.ttl_s, date)
                return True
        self._forget(head)
        return False

    def still_holds(self, entry: HotEntry | ForwardEntry) -> bool:
        """Whether the token of an entry is still that caller's, and the caller's tenant the very same."""
        principal = entry.principal
        return (
            self._recall(entry.token_name) is principal
            and self._parts.registry.get(principal.tenant) is entry.tenant
        )

    def _ask_limiter(
        self, head: bytes, entry: HotEntry, connection: GatewayProtocol, started: float
    ) -> bytes | bool:
        """Go on where no lease decides.

        Returns:
            The rate lines of a request that may be answered; else whether it is taken care of: refused at
            once, or waiting for a slice. The full path serves what is not.
        """
        claim, given = entry.claim, self.queue.take()
        if claim is not None and given is not None:
            claim.drawn += 1
            return rate_lines(given.headers)
        now = monotonic()
        if claim is not None and entry.refusal is not None and entry.refused_s == claim.refused_s(now):
            claim.note_refused(now)
            self._refuse(entry, entry.refusal, connection, started)
            return True
        try:
            grant = self._parts.limiter.admit_now(entry.tenant, entry.principal.subject, entry.operation)
        except Refusal as refusal:
            # What was counted so far was refused in other words.
            entry.tell(self._parts.metrics)
            entry.refused_s = int(refusal.headers.get("Retry-After", "0"))
            entry.refusal = PreparedRefusal(
                refusal, b"", entry.origin_fields, shows_timing=self._parts.shows_timing
            )
            self._refuse(entry, entry.refusal, connection, started)
            return True
        if grant is None:
            return claim is not None and self.queue.wait(claim, head, connection, started)
        rates = rate_lines(grant.headers)
        if grant.reserved or grant.slots:
            # What is given is known, and nothing comes between.
            grant.settle_now(Usage(None, len(entry.prepared.body)))
        return rates

    def _refuse(
        self, entry: HotEntry, refusal: PreparedRefusal, connection: GatewayProtocol, started: float
    ) -> None:
        request_id = entry.fixed_id or new_request_id()
        spent_s = self._now() - started
        connection.give(refusal.answer(request_id, spent_s, self._date.at(time.time())))
        self.refused += 1
        if spent_s < QUICK_S:
            entry.refused_count += 1
            entry.refused_spent_s += spent_s
        else:
            entry.tell_refusals(self._parts.metrics, refusal, spent_s)
        if self._access is not None and self._access.wants(refusal.status, spent_s):
            self._write_line(entry, connection, request_id, spent_s, refusal.body_bytes, refusal)

    def _tell_all(self) -> None:
        for entry in self._entries.values():
            entry.tell(self._parts.metrics)
        now = {
            "hit": self.served - self.refused,
            "forward": self.forwarder.served,
            "refusal": self.refusals.served + self.refused,
            "verified": self.compared,
            "differed": self.differences,
        }
        for kind, count in now.items():
            self._parts.metrics.hot_path(kind, count - self._told.get(kind, 0))
        self._told = now

    def _write_line(  # noqa: PLR0917 - all of it is of one answer
        self,
        entry: HotEntry,
        connection: GatewayProtocol,
        request_id: str,
        total_s: float,
        sent_bytes: int,
        refusal: PreparedRefusal | None = None,
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
        connection, grant, tenant, operation = x.request.protocol, x.grant, x.tenant, x.operation
        if not isinstance(connection, GatewayProtocol) or not self.learns(x):
            return
        if grant is None or tenant is None or operation is None or x.principal is None:
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
        claim = self._parts.limiter.claim(tenant, x.principal.subject, operation)
        connection.offered = HotEntry(
            x, operation, x.principal, tenant, holding, token_name, cells, grant, claim
        )

    def learns(self, x: Exchange) -> bool:
        """Whether a request that was served came in a form to be remembered, and not for the first time."""
        connection = x.request.protocol
        if not isinstance(connection, GatewayProtocol) or connection.sole_head is None:
            return False
        if self._parts.tracer is not None:
            # A span tells of the steps of a request, and here there are none.
            return False
        head = connection.sole_head
        return head not in self._entries and head not in self.forwarder and self._is_repeated(head)

    def keep(self, head: bytes, entry: HotEntry | ForwardEntry, response: web.StreamResponse) -> None:
        """Keep an entry whose answer has gone out, in the words in which it did."""
        if isinstance(entry, ForwardEntry):
            if response.keep_alive:
                self.forwarder.keep(head, entry)
            return
        body = entry.holding.hit.body
        line = f"HTTP/1.1 {response.status} {response.reason}"
        prepared = prepare(line, response.headers.items(), body, entry.rate_names)
        if prepared is None or not response.keep_alive or head in self._entries:
            return
        entry.prepared, entry.timings = prepared, prepared.timings
        self._entries[head] = entry
        self._size_bytes += _size(head, entry)
        while len(self._entries) > MAX_ENTRIES or self._size_bytes > MAX_BYTES:
            self._forget(next(iter(self._entries)))

    def compare(self, entry: HotEntry, response: web.StreamResponse) -> None:
        """Compare what the full path said with what the entry would have said, fields in their order."""
        standing = entry.holding.look()
        if response.status == 429 or standing is None:
            return
        if self._recall(entry.token_name) is not entry.principal:
            return
        self.compared += 1
        if not says_the_same(entry, standing, response):
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
            entry.tell(self._parts.metrics)
            self._gone += entry.given
            self._size_bytes -= _size(head, entry)


def _size(head: bytes, entry: HotEntry) -> int:
    return len(head) + entry.prepared.size_bytes

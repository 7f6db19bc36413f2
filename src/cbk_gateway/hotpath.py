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
- *Same limits.* Each time, the purse of a claim (`limits/purse.py`), `Claim.draw` or `Limiter.admit_now`
  decides, and a refusal is given as the full path would give it. With plenty in a purse one comparison does
  what `draw` would; whatever the store says and another policy end that in the step in which they come. A
  refusal is repeated while no lease pays for the request and the bucket remembers that very refusal. When
  only the store can tell, or a tenant's requests may wait in line, the full path takes over, and nothing was
  taken from a limit before. All that is drawn or refused is counted, and told to the metrics before each
  scrape, to the demand a hundred times per second.
- *Same answer.* `Holding.look` must say that memory would give this very copy in this very variant now. From
  there to the socket nothing is awaited, so no write can come between.
- *Still so.* Caller, rights and answer are looked at once for many givings, and again as soon as anything of
  it may have changed: by itself, at the time that the looks named (`HotEntry.ends_at`: token, lifetime,
  lease on memory, the next whole second of `Age` or `Date`), or by an event, which whoever it happens to
  notes in `Breaks` in the same step (revocation, withdrawn key, dropped or evicted copy, lost feed). A change
  of tenants removes all entries.
- *Same order.* Only a resting connection is answered (`resting.py`): no request being served, none waiting,
  no bytes half read, and a client that takes what it is sent. What is written now goes out behind what was.
- *Same traces.* Where spans are made, the sampler is asked first, of a trace id drawn beforehand. What it
  wants recorded takes the full path under that id: nothing is drawn twice, and as many are recorded.

The `verify` mode proves it continuously: the full path answers, and this module says what it would have said.
Heads hold tokens, so entries are never shown, counted only; they leave with the least used, beyond a bound
on number and bytes, and all at once when tenants change or tokens are revoked.
"""

from __future__ import annotations

import time

import structlog
from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from cbk_gateway import access_lines
from cbk_gateway.cache import CacheKeyParts, Hit
from cbk_gateway.errors import Refusal
from cbk_gateway.exchange import Exchange
from cbk_gateway.fastforward import Forwarder
from cbk_gateway.forward_entry import ForwardEntry
from cbk_gateway.hot_compare import says_the_same
from cbk_gateway.hot_entries import HotEntries
from cbk_gateway.hot_entry import HotEntry
from cbk_gateway.hot_offer import entry_of
from cbk_gateway.hot_refusals import HotRefusals
from cbk_gateway.lease_queue import LeaseQueue
from cbk_gateway.limits import Usage
from cbk_gateway.listener import GatewayProtocol
from cbk_gateway.parts import Parts
from cbk_gateway.prepared import prepare, rate_lines
from cbk_gateway.prepared_refusal import DateLine, PreparedRefusal
from cbk_gateway.telemetry.request_id import new_request_id, request_ids
from cbk_gateway.telemetry.traffic import QUICK_S

_log = structlog.get_logger(__name__)


class HotPath:
    """The entries of one worker.

    Args:
        parts: What the full path works with.
        is_verifying: Whether the full path answers everything and is compared with.

    Attributes:
        forwarder: Forwards what no memory may answer.
        refusals: Refuses bad tokens.
        queue: Where requests wait for a slice of a limit.
        compared: Answers compared, when verifying.
        differences: How many of them differed: a defect, and logged as an error.

    Raises:
        ValueError: Cache and limiter do not go by the same clock.
    """

    def __init__(self, parts: Parts, *, is_verifying: bool = False) -> None:
        self._parts = parts
        self._is_verifying = is_verifying
        if parts.cache.now is not parts.limiter.now:
            message = "the hot path reads one clock for the cache and for the limiter"
            raise ValueError(message)
        self._entries = HotEntries(parts.metrics)
        self._date = DateLine()
        # Bound once: these are used for every request.
        self._breaks = parts.breaks
        self._find = self._entries.find
        self._now = parts.cache.now
        self._access = parts.access
        self._recall = parts.identity.recall
        self._told: dict[str, int] = {}
        parts.metrics.before_scrape(self._tell_all)
        self.queue = LeaseQueue(parts)
        self.forwarder = Forwarder(parts, self)
        self.refusals = HotRefusals(parts, self)
        self.compared = 0
        self.differences = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<HotPath {self._entries!r}, {self.served} served>"

    @property
    def served(self) -> int:
        """Answers given from entries, refusals of the limiter included."""
        return self._entries.given + self._entries.refused

    def clear(self, _: object = None) -> None:
        """Forget all entries: tenants changed, or tokens were revoked."""
        self._entries.clear()
        self.forwarder.clear()
        self.refusals.clear()

    # Answering.

    def now(self) -> float:
        """The clock of cache, limiter and hot path."""
        return self._now()

    def answer(self, head: bytes, connection: GatewayProtocol) -> bool:
        """Answer a request of a resting connection, if it is a repeated one. Once per read buffer.

        Nearly every request ends here, so whatever can be concluded beforehand is.
        """
        entry = self._find(head)
        if entry is None:
            return not self._is_verifying and (
                self.refusals.answer(head, connection) or self.forwarder.answer(head, connection)
            )
        now = self._now()
        if now >= entry.ends_at or entry.breaks != self._breaks.count:
            return self._renew(head, entry, now) and self._answer(head, entry, connection, now)
        purse = entry.purse
        lease = purse.lease - entry.cost
        if lease < purse.plenty or now >= purse.plenty_until or entry.queues:
            if lease < 0.0 and now < entry.refused_until:
                return self._refuse_again(head, entry, connection, now)
            return self._answer(head, entry, connection, now)
        purse.lease = lease
        if now >= request_ids.until:
            request_ids.look(now)
        request_id = request_ids.next()
        first, second, last = entry.pieces
        spent_s = self._now() - now
        if spent_s >= QUICK_S:
            entry.drawn += 1
            return self._give(entry, connection, request_id, entry.full, now)
        timing = entry.timings[int(spent_s * 1e6)]
        connection.write(b"".join((first, request_id, second, timing, last)))
        connection.given_at = now
        entry.quick += 1
        entry.spent_s += spent_s
        entry.last_id = request_id
        if self._access is not None:
            self._log(entry, connection, request_id, spent_s)
        return True

    def answer_late(self, head: bytes, connection: GatewayProtocol) -> bool:
        """Try once more with a request that waited for a slice of a limit."""
        entry, now = self._find(head), self._now()
        if entry is None:
            return self.forwarder.answer(head, connection)
        if (now >= entry.ends_at or entry.breaks != self._breaks.count) and not self._renew(head, entry, now):
            return False
        return self._answer(head, entry, connection, now)

    def _answer(self, head: bytes, entry: HotEntry, connection: GatewayProtocol, now: float) -> bool:
        """Answer where more than a comparison decides."""
        if self._is_verifying:
            connection.expected = entry
            return False
        tracer = self._parts.tracer
        if tracer is not None:
            if connection.drawn_trace is None:
                connection.drawn_trace = tracer.draw()
            if tracer.records(connection.drawn_trace):
                return False
        started = now if self.queue.since is None else self.queue.since
        rates = entry.claim.draw(now) if entry.claim is not None else None
        if rates is None:
            asked = self._ask_limiter(head, entry, connection, now, started)
            if isinstance(asked, bool):
                return asked
            rates = asked
        return self._give(entry, connection, entry.fixed_id or new_request_id().encode(), rates, started)

    def _give(
        self, entry: HotEntry, connection: GatewayProtocol, request_id: bytes, rates: bytes, started: float
    ) -> bool:
        first, second, third, last = entry.rendered
        now = self._now()
        spent_s = now - started
        timing = entry.prepared.timing(spent_s)
        connection.give(b"".join((first, request_id, second, rates, third, timing, last)), now)
        connection.drawn_trace = None
        if spent_s < QUICK_S:
            entry.count += 1
            entry.spent_s += spent_s
            entry.last_id = request_id
        else:
            entry.tell(self._parts.metrics, 1)
            entry.cells.observe(spent_s, None, request_id.decode())
        if self._access is not None:
            self._log(entry, connection, request_id, spent_s)
        return True

    def _renew(self, head: bytes, entry: HotEntry, now: float) -> bool:
        """Look again whether everything holds, and until when; if it does not, the entry is forgotten."""
        parts, breaks = self._parts, self._breaks.count
        if self.still_holds(entry):
            standing = entry.holding.look()
            if standing is not None:
                self._entries.touch(head)
                wall = time.time()
                # The date turns over with the second, and a token ends by the same clock.
                lasts_s = min(1.0 - wall % 1.0, parts.identity.lasts_s(entry.token_name))
                entry.ends_at = min(standing.ends_at, now + lasts_s)
                entry.breaks = breaks
                is_simple = not self._is_verifying and parts.tracer is None
                entry.renew(standing, rfc822_formatted_time(), may_be_quick=is_simple)
                return True
        self._entries.forget(head)
        return False

    def still_holds(self, entry: HotEntry | ForwardEntry) -> bool:
        """Whether the token of an entry is still that caller's, and the caller's tenant the very same."""
        principal = entry.principal
        return (
            self._recall(entry.token_name) is principal
            and self._parts.registry.get(principal.tenant) is entry.tenant
        )

    def _ask_limiter(
        self, head: bytes, entry: HotEntry, connection: GatewayProtocol, now: float, started: float
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
        known = entry.refuse_as_known(claim, now, self._date.at(time.time())) if claim is not None else None
        if known is not None:
            self._refuse(entry, known, connection, started)
            return True
        try:
            grant = self._parts.limiter.admit_now(entry.tenant, entry.principal.subject, entry.operation)
        except Refusal as refusal:
            self._refuse(entry, entry.refuse_anew(refusal, self._parts), connection, started)
            return True
        if grant is None:
            return claim is not None and self.queue.wait(claim, head, connection, started)
        rates = rate_lines(grant.headers)
        if grant.reserved or grant.slots:
            # What is given is known, and nothing comes between.
            grant.settle_now(Usage(None, len(entry.prepared.body)))
        return rates

    def _refuse_again(self, head: bytes, entry: HotEntry, connection: GatewayProtocol, now: float) -> bool:
        """Refuse as a moment ago, where the bucket remembers the very refusal."""
        refusal = entry.refusal
        if refusal is None or entry.purse.blocked.get(entry.cost) != entry.blocked_until:
            return self._answer(head, entry, connection, now)
        if now >= request_ids.until:
            request_ids.look(now)
        request_id = request_ids.next()
        first, second, third, last = entry.refused_pieces
        spent_s = self._now() - now
        if spent_s >= QUICK_S:
            return self._answer(head, entry, connection, now)
        timing = refusal.timings[int(spent_s * 1e6)]
        connection.write(b"".join((first, request_id, second, timing, third, request_id, last)))
        connection.given_at = now
        entry.refused_quick += 1
        entry.refused_spent_s += spent_s
        if self._access is not None:
            self._log(entry, connection, request_id, spent_s, refusal)
        return True

    def _refuse(
        self, entry: HotEntry, refusal: PreparedRefusal, connection: GatewayProtocol, started: float
    ) -> None:
        request_id = entry.fixed_id or new_request_id().encode()
        now = self._now()
        spent_s = now - started
        connection.give(refusal.answer(request_id.decode(), spent_s, self._date.at(time.time())), now)
        connection.drawn_trace = None
        if spent_s < QUICK_S:
            entry.refused_count += 1
            entry.refused_spent_s += spent_s
        else:
            entry.tell_refusals(self._parts.metrics, refusal, spent_s)
        if self._access is not None:
            self._log(entry, connection, request_id, spent_s, refusal)

    def _tell_all(self) -> None:
        self._entries.tell()
        now = {
            "hit": self._entries.given,
            "forward": self.forwarder.served,
            "refusal": self.refusals.served + self._entries.refused,
            "verified": self.compared,
            "differed": self.differences,
        }
        for kind, count in now.items():
            self._parts.metrics.hot_path(kind, count - self._told.get(kind, 0))
        self._told = now

    def _log(
        self,
        entry: HotEntry,
        connection: GatewayProtocol,
        request_id: bytes,
        total_s: float,
        refusal: PreparedRefusal | None = None,
    ) -> None:
        status = entry.status if refusal is None else refusal.status
        if self._access is None or not self._access.wants(status, total_s):
            return
        access_lines.write(
            self._parts,
            connection,
            entry.address_hops,
            entry.operation,
            entry.tenant.id,
            request_id.decode(),
            status,
            total_s,
            len(entry.prepared.body) if refusal is None else refusal.body_bytes,
            cache="hit" if refusal is None else "none",
            reason=refusal.reason if refusal is not None else None,
        )

    # Learning.

    def offer(self, x: Exchange, found: Hit, key: CacheKeyParts) -> None:
        """Consider an answer that the full path has just taken from the cache; it has not gone out yet."""
        connection = x.request.protocol
        if isinstance(connection, GatewayProtocol) and self._is_repeated(x):
            connection.offered = entry_of(self._parts, x, found, key)

    def learns(self, x: Exchange) -> bool:
        """Whether a request that was served came in a form to be remembered, and not for the first time."""
        return self._parts.tracer is None and self._is_repeated(x)

    def _is_repeated(self, x: Exchange) -> bool:
        connection = x.request.protocol
        if not isinstance(connection, GatewayProtocol) or connection.sole_head is None:
            return False
        head = connection.sole_head
        return head not in self._entries and head not in self.forwarder and self._entries.is_repeated(head)

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
        self._entries.keep(head, entry)

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

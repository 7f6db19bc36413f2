"""Repeated reads that no cache may answer, forwarded from the bytes of their request.

The other half of `hotpath.py`, under the same rules: an entry is found by the whole of a read buffer of an
idle connection, made only from a request that the full path has just served so, and caller, rights and
limits are looked at as there. What is saved is the parsing, the understanding and the building of what goes
upstream: between two requests of the same bytes only request id and trace differ.

What comes back must be plain (`upstream/swift.py`): a whole, short answer whose fields the client may have as
they are. Whatever else happens, nothing has gone to the client, a read has changed nothing, and the full path
serves the request anew, with its own retries, streams and refusals. What was drawn from a limit is given
back before. Only an upstream that took too long is not asked again.

While an answer is awaited the connection counts as busy, what its client sends on is kept for later, and a
client that leaves ends the call.
"""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic
from time import time as wall_time
from typing import TYPE_CHECKING, Final

from aiohttp.http_writer import HttpVersion11

from cbk_gateway import access_lines, forwarding
from cbk_gateway.errors import Refusal
from cbk_gateway.exchange import CLIENT_GONE, SERVER, Exchange
from cbk_gateway.forward_entry import Fields, ForwardEntry, pieces_of
from cbk_gateway.listener import GatewayProtocol
from cbk_gateway.operation import Effect
from cbk_gateway.parts import Parts
from cbk_gateway.prepared import rate_lines
from cbk_gateway.prepared_refusal import DateLine, PreparedRefusal
from cbk_gateway.telemetry.request_id import new_request_id
from cbk_gateway.telemetry.traceparent import more_traceparents, ready_traceparents
from cbk_gateway.tenancy.rotation import Which
from cbk_gateway.upstream import MAX_SWIFT_BYTES, Answer, Swift, UpstreamFault

if TYPE_CHECKING:
    from cbk_gateway.hotpath import HotPath
    from cbk_gateway.telemetry.forwarded import ForwardedCells

MAX_ENTRIES: Final = 4096
_LOOK_EVERY_S: Final = 1.0
_AVOID_S: Final = 60.0
_CURRENT: Final = Which.CURRENT
_SERVER_LINE: Final = f"\r\nServer: {SERVER}\r\n".encode()
# With one of these, two requests of the same bytes would not be forwarded alike.
_OWN_WORDS: Final = frozenset({"x-request-id", "traceparent", "tracestate"})


class Forwarding(Swift):
    """One request under way; told by the upstream of its answer and by the connection of its client's end."""

    __slots__ = ("client", "entry", "forwarder", "head", "id_octets", "rates", "request_id", "started")

    def __init__(  # noqa: PLR0917 - all of it is of one request
        self,
        forwarder: Forwarder,
        entry: ForwardEntry,
        head: bytes,
        client: GatewayProtocol,
        rates: bytes,
        started: float,
    ) -> None:
        # What the base class sets; calling it would cost more than all of this.
        self.lane = entry.lane
        self._head, self._is_over = None, False
        self.forwarder = forwarder
        self.entry = entry
        self.head = head
        self.client = client
        self.rates = rates
        self.started = started
        self.request_id = request_id = new_request_id()
        self.id_octets = request_id.encode()

    def answered(self, status: int, fields: Fields, body: bytes, upstream_s: float) -> None:
        """A whole answer."""
        self.forwarder.give(self, status, fields, body, upstream_s)

    def unusual(self) -> None:
        """An answer for the full path, which asks for it anew; the next ones will probably be so too."""
        self.forwarder.avoid(self.head)
        self.forwarder.step_back(self)

    def faulted(self, fault: UpstreamFault) -> None:
        """No answer. An upstream that took its time is not asked again."""
        if fault.timed_out:
            self.forwarder.refuse(self, fault.refusal())
        else:
            self.forwarder.step_back(self)

    def leave(self) -> None:
        """The client has left."""
        self.abandon()
        self.forwarder.left(self)


class Forwarder:
    """The entries of one worker. Made by the hot path, which asks it for what it does not know itself."""

    def __init__(self, parts: Parts, hot_path: HotPath) -> None:
        self._parts = parts
        self._hot_path = hot_path
        self._entries: OrderedDict[bytes, ForwardEntry] = OrderedDict()
        self._avoided: OrderedDict[int, float] = OrderedDict()
        self._breaks = parts.breaks
        self._now = parts.cache.now
        self._shedding = parts.shedding
        self._access = parts.access
        self._report = parts.credentials.report
        self._send_now = parts.upstream.send_now
        self._in_flight = parts.metrics.in_flight
        self._forwarded = parts.metrics.forwarded
        parts.metrics.before_scrape(self._tell_all)
        self._date = DateLine()
        self._date_line, self._date_ends_at = b"", 0.0
        self.served = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, head: bytes) -> bool:
        return head in self._entries

    def clear(self) -> None:
        """Forget all entries."""
        self._tell_all()
        self._entries.clear()

    def forget(self, head: bytes) -> None:
        """Forget one entry."""
        entry = self._entries.pop(head, None)
        if entry is not None:
            self._tell(entry)

    def avoid(self, head: bytes) -> None:
        """Forget an entry whose answers are not plain, and do not make it anew for a while."""
        self.forget(head)
        self._avoided[hash(head)] = self._now() + _AVOID_S
        if len(self._avoided) > MAX_ENTRIES:
            self._avoided.popitem(last=False)

    # Answering.

    def answer(self, head: bytes, connection: GatewayProtocol) -> bool:
        """Forward a request of an idle connection, if it is a repeated one. Once per read buffer."""
        entry = self._entries.get(head)
        if entry is None or self._shedding.refused:
            return False
        started, now = monotonic(), self._now()
        if (now >= entry.ends_at or entry.breaks != self._breaks.count) and not self._renew(head, entry, now):
            return False
        claim = entry.claim
        purse = claim.purse
        lease = purse.lease - claim.cost
        rates: bytes | None
        if lease >= purse.plenty and now < purse.plenty_until and not claim.queues:
            purse.lease = lease
            claim.drawn += 1
            rates = claim.full
        else:
            rates = claim.draw(now)
        if rates is None:
            given = self._hot_path.queue.take()
            if given is None:
                return self._hot_path.queue.wait(entry.claim, head, connection, now)
            entry.claim.drawn += 1
            rates = rate_lines(given.headers)
        work = Forwarding(self, entry, head, connection, rates, started)
        trace = (ready_traceparents or more_traceparents()).pop()
        request = b"".join((entry.before_id, work.id_octets, entry.between, trace, entry.after))
        if not self._send_now(work, request):
            self._parts.limiter.give_back(entry.claim)
            return False
        self._in_flight.value += 1
        connection.await_answer(work)
        return True

    def _renew(self, head: bytes, entry: ForwardEntry, now: float) -> bool:
        breaks = self._breaks.count
        if self._hot_path.still_holds(entry):
            lasts_s = self._parts.identity.lasts_s(entry.token_name)
            entry.ends_at = now + min(_LOOK_EVERY_S, lasts_s)
            entry.breaks = breaks
            self._entries.move_to_end(head)
            return True
        self.forget(head)
        return False

    def give(self, work: Forwarding, status: int, fields: Fields, body: bytes, upstream_s: float) -> None:
        """Write an answer, and count it."""
        entry = work.entry
        # An answer that was recognised comes with the very fields of the one before.
        lines = entry.known_lines if fields is entry.known_fields else entry.lines_of(status, fields)
        if lines is None:
            work.unusual()
            return
        now = monotonic()
        total_s = now - work.started
        if now >= self._date_ends_at:
            self._turn_date(now)
        date = b"\r\n" if entry.has_date else self._date_line
        said = entry.said_after_rates
        if entry.shows_timing:
            said %= (total_s * 1000.0, upstream_s * 1000.0, (total_s - upstream_s) * 1000.0)
        self._in_flight.value -= 1
        work.client.give_awaited(
            b"".join((lines, work.id_octets, _SERVER_LINE, work.rates, said, date, body))
        )
        self.served += 1
        entry.count += 1
        entry.sent_bytes += len(body)
        cells = entry.cells if status == 200 else self._cells_of(entry, status)
        self._forwarded.note(cells, total_s, upstream_s, work.request_id)
        self._report(entry.tenant, _CURRENT, status, entry.operation)
        if self._access is not None and self._access.wants(status, total_s):
            self._write_line(work, status, total_s, upstream_s, len(body))

    def _turn_date(self, now: float) -> None:
        """Set the date until the next second begins; `now` is of the steady clock."""
        wall = wall_time()
        self._date_line = self._date.at(wall)
        self._date_ends_at = now + 1.0 - wall % 1.0

    def _cells_of(self, entry: ForwardEntry, status: int) -> ForwardedCells:
        """The series of an entry's answers of this status."""
        operation, metrics = entry.operation, self._parts.metrics
        requests = metrics.bind_request(
            entry.tenant.id,
            operation.resource,
            operation.action,
            status,
            entry.cache_label,
            operation.effect,
        )
        answers = metrics.upstream.bind_answers(operation.route.cost_class, status)
        return metrics.forwarded.bind(requests, answers)

    def step_back(self, work: Forwarding) -> None:
        """Let the full path serve the request; nothing of it has been counted yet."""
        self._parts.limiter.give_back(work.entry.claim)
        self._parts.metrics.request_ended()
        work.client.resume(work.head)

    def refuse(self, work: Forwarding, refusal: Refusal) -> None:
        """Give a refusal as the full path would."""
        entry, metrics = work.entry, self._parts.metrics
        total_s = monotonic() - work.started
        metrics.request_ended()
        entry.count += 1
        prepared = PreparedRefusal(
            refusal, work.rates, entry.origin_fields, shows_timing=self._parts.shows_timing
        )
        work.client.give_awaited(prepared.answer(work.request_id, total_s, self._date.at(wall_time())))
        metrics.refusal(refusal.reason, refusal.status, entry.tenant.id)
        self._count_other(work, refusal.status, total_s, prepared.body_bytes)

    def left(self, work: Forwarding) -> None:
        """The client has left before the answer."""
        self._parts.metrics.request_ended()
        work.entry.count += 1
        self._count_other(work, CLIENT_GONE, monotonic() - work.started, 0)

    def _count_other(self, work: Forwarding, status: int, total_s: float, sent_bytes: int) -> None:
        """Count a request that ended otherwise than by the answer it was made for."""
        entry, operation, parts = work.entry, work.entry.operation, self._parts
        parts.metrics.request(
            entry.tenant.id,
            operation.resource,
            operation.action,
            status,
            entry.cache_label,
            total_s,
            total_s,
            effect=operation.effect,
            request_id=work.request_id,
        )
        parts.metrics.bodies(entry.tenant.id, 0, sent_bytes)
        if parts.access is not None and parts.access.wants(status, total_s):
            self._write_line(work, status, total_s, total_s, sent_bytes)

    def _tell_all(self) -> None:
        for entry in self._entries.values():
            self._tell(entry)

    def _tell(self, entry: ForwardEntry) -> None:
        """Tell the metrics of what was only counted so far."""
        metrics, times, tenant = self._parts.metrics, entry.count, entry.tenant.id
        if entry.claim.drawn:
            metrics.limits.decided(tenant, "admitted", "", entry.claim.drawn)
            entry.claim.drawn = 0
        if times:
            metrics.identity.token_remembered(entry.principal.issuer, times)
            metrics.bodies(tenant, 0, entry.sent_bytes)
            if entry.passed:
                metrics.cache.passed(entry.passed, times)
            entry.count = entry.sent_bytes = 0

    def _write_line(
        self, work: Forwarding, status: int, total_s: float, upstream_s: float, sent_bytes: int
    ) -> None:
        entry = work.entry
        access_lines.write(
            self._parts,
            work.client,
            entry.hops,
            entry.operation,
            entry.tenant.id,
            work.request_id,
            status,
            total_s,
            sent_bytes,
            cache=entry.cache_label,
            upstream_s=upstream_s,
        )

    # Learning.

    def offer(self, x: Exchange, upstream_answer: Answer, passed: str) -> None:
        """Consider a read that the full path has just forwarded.

        Args:
            x: The exchange; its answer has gone out.
            upstream_answer: What the upstream said.
            passed: Why the cache passes every such request by; "" when it was not asked.
        """
        connection, tenant, operation = x.request.protocol, x.tenant, x.operation
        if not isinstance(connection, GatewayProtocol) or connection.sole_head is None:
            return
        if tenant is None or operation is None or x.principal is None or x.body is not None:
            return
        if self._now() < self._avoided.get(hash(connection.sole_head), 0.0):
            return
        headers, length = x.request.headers, upstream_answer.content_length
        if upstream_answer.status != 200 or length is None or length > MAX_SWIFT_BYTES:
            return
        if forwarding.form_of(upstream_answer) is not None or not _OWN_WORDS.isdisjoint(
            map(str.lower, headers)
        ):
            return
        if operation.effect is not Effect.READ or x.request.version != HttpVersion11:
            return
        parts = self._parts
        if tenant.next_key is not None or parts.ownership.watches(tenant) or not self._hot_path.learns(x):
            return
        claim = parts.limiter.claim(tenant, x.principal.subject, operation)
        credential = parts.credentials.credential_for(tenant, operation)
        call = forwarding.call_for(parts, x, operation, credential, trace=x.trace)
        pieces = pieces_of(parts.upstream.head_of(call), x.request_id, x.trace.header())
        if claim is None or pieces is None:
            return
        lane = parts.upstream.lane(call)
        entry = ForwardEntry(x, x.principal, tenant, lane, pieces, claim, shows_timing=parts.shows_timing)
        entry.passed = passed
        entry.token_name = parts.identity.name_of(headers.getall("Authorization", ()))
        entry.cells = self._cells_of(entry, 200)
        connection.offered = entry

    def keep(self, head: bytes, entry: ForwardEntry) -> None:
        """Keep an entry whose answer has gone out."""
        self._entries[head] = entry
        while len(self._entries) > MAX_ENTRIES:
            self.forget(next(iter(self._entries)))

"""Repeated requests whose token is bad, refused from their bytes.

A client in a loop with a bad token should not cost more than one that is served. As in `hotpath.py`, an entry
is found by the whole of a read buffer of a resting connection and made only from a request that the full path
has just refused so. It lives a second at most and not longer than the reasons for it: only faults that lie
in the token itself are remembered (`_LASTING`), and `Breaks` ends them all when keys or revocations change.
So the worst is that a token which has just become good is refused for a second more. Bad tokens cannot push
good entries out: these are few and kept apart.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from cbk_gateway import cors
from cbk_gateway.errors import Refusal
from cbk_gateway.exchange import Exchange
from cbk_gateway.identity import Reason
from cbk_gateway.listener import GatewayProtocol
from cbk_gateway.parts import Parts
from cbk_gateway.prepared_refusal import DateLine, Pieces, PreparedRefusal
from cbk_gateway.telemetry.request_id import ID_LENGTH, request_ids
from cbk_gateway.telemetry.traffic import QUICK_S

if TYPE_CHECKING:
    from cbk_gateway.hotpath import HotPath

MAX_ENTRIES: Final = 256
_LIFE_S: Final = 1.0
_LASTING: Final = frozenset({Reason.MALFORMED, Reason.SIGNATURE, Reason.EXPIRED, Reason.ALGORITHM})


class _Entry:
    """One repeated bad request."""

    __slots__ = ("breaks", "count", "ends_at", "labels", "pieces", "prepared", "said_until", "spent_s")

    def __init__(
        self, prepared: PreparedRefusal, labels: tuple[str, str, str], breaks: int, ends_at: float
    ) -> None:
        self.prepared = prepared
        self.labels = labels
        self.breaks = breaks
        self.ends_at = ends_at
        # Its words, and until when they are these: the date turns over.
        self.pieces: Pieces = (b"", b"", b"", b"")
        self.said_until = 0.0
        # Givings that were not told to the metrics yet.
        self.count = 0
        self.spent_s = 0.0


class HotRefusals:
    """The entries of one worker. Made by the hot path, which asks it for what it does not know itself."""

    def __init__(self, parts: Parts, hot_path: HotPath) -> None:
        self._parts = parts
        self._hot_path = hot_path
        self._breaks = parts.breaks
        self._now = parts.cache.now
        self._date = DateLine()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        parts.metrics.before_scrape(self._tell_all)
        self.served = 0

    def __len__(self) -> int:
        return len(self._entries)

    def answer(self, head: bytes, connection: GatewayProtocol) -> bool:
        """Refuse a request of a resting connection, if it is a repeated one. Once per read buffer."""
        entry = self._entries.get(head)
        if entry is None:
            return False
        now = self._now()
        if (now >= entry.said_until or entry.breaks != self._breaks.count) and not self._renew(
            head, entry, now
        ):
            return False
        if now >= request_ids.until:
            request_ids.look(now)
        request_id = request_ids.next()
        first, second, third, last = entry.pieces
        spent_s = self._now() - now
        if spent_s < QUICK_S:
            timing = entry.prepared.timings[int(spent_s * 1e6)]
            entry.spent_s += spent_s
        else:
            timing = entry.prepared.timing(spent_s)
            entry.spent_s += QUICK_S
        connection.write(b"".join((first, request_id, second, timing, third, request_id, last)))
        connection.given_at = now
        self.served += 1
        entry.count += 1
        return True

    def _renew(self, head: bytes, entry: _Entry, now: float) -> bool:
        """Word it anew, or forget it when its time is over."""
        if now >= entry.ends_at or entry.breaks != self._breaks.count:
            self._forget(head)
            return False
        wall = time.time()
        entry.pieces = entry.prepared.pieces(self._date.at(wall))
        entry.said_until = min(entry.ends_at, now + 1.0 - wall % 1.0)
        return True

    def offer(self, x: Exchange, refusal: Refusal) -> None:
        """Consider a refusal of the full path that is about to go out."""
        connection, operation = x.request.protocol, x.operation
        if refusal.reason not in _LASTING or x.principal is not None or operation is None:
            return
        if not isinstance(connection, GatewayProtocol) or connection.sole_head is None:
            return
        if (
            x.header("X-Request-Id") is not None
            or self._parts.access is not None
            or not self._hot_path.learns(x)
        ):
            return
        origin = cors.granted(("*",), x.header("Origin"))
        prepared = PreparedRefusal(refusal, b"", origin, shows_timing=self._parts.shows_timing)
        labels = (operation.resource, operation.action, operation.effect)
        self._entries[connection.sole_head] = _Entry(
            prepared, labels, self._breaks.count, self._now() + _LIFE_S
        )
        if len(self._entries) > MAX_ENTRIES:
            self._forget(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget all entries."""
        self._tell_all()
        self._entries.clear()

    def _forget(self, head: bytes) -> None:
        entry = self._entries.pop(head, None)
        if entry is not None:
            self._tell(entry)

    def _tell_all(self) -> None:
        for entry in self._entries.values():
            self._tell(entry)

    def _tell(self, entry: _Entry) -> None:
        """Tell the metrics of what was only counted so far."""
        count, prepared, metrics = entry.count, entry.prepared, self._parts.metrics
        if not count:
            return
        (resource, action, effect), spent_s = entry.labels, entry.spent_s
        entry.count, entry.spent_s = 0, 0.0
        metrics.identity.token_refused(prepared.reason, count)
        metrics.refusal(prepared.reason, prepared.status, None, count)
        cells = metrics.bind_request(None, resource, action, prepared.status, "none", effect)
        cells.observe_quick(count, spent_s)
        metrics.bodies(None, 0, count * (prepared.body_bytes + ID_LENGTH))

"""One repeated cached read: who sent it, what it may do, and the words of its answer.

Knows and shows nothing by itself: whether it still holds is `hotpath.py`'s question. Heads hold tokens, so
neither they nor entries are ever printed.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

from cbk_gateway import cors
from cbk_gateway.cache import Holding
from cbk_gateway.cache.holding import Standing
from cbk_gateway.errors import Refusal
from cbk_gateway.exchange import Exchange
from cbk_gateway.limits import Claim, Grant, Purse
from cbk_gateway.operation import Operation
from cbk_gateway.parties import Principal, Tenant
from cbk_gateway.parts import Parts
from cbk_gateway.prepared import PreparedHit, Rendered
from cbk_gateway.prepared_refusal import Pieces, PreparedRefusal
from cbk_gateway.telemetry import Metrics
from cbk_gateway.telemetry.request_id import ID_LENGTH, is_acceptable
from cbk_gateway.telemetry.traffic import RequestCells

_NOTE_EVERY_S: Final = 0.01
NOTHING_AT_HAND: Final = Purse()
"""The purse of whatever needs more than a comparison to be decided."""


class HotEntry:
    """One repeated request, as the full path has just served it.

    Args:
        x: Its exchange.
        operation: What it asks.
        principal: Who asks.
        tenant: For whom.
        holding: The answer.
        token_name: What identity knows its token by.
        cells: The series it counts in.
        grant: What it was admitted with.
        claim: What the next ones draw on; None when only the limiter can tell.

    Attributes:
        prepared: The words of its answer; set before the entry is kept.
        timings: What they say of the time that a giving took, by microseconds; likewise.
        purse: What it may draw on by a comparison (`limits/purse.py`); one that never has plenty where that
            is not enough to decide.
        queues: Tenants whose requests wait in line; while somebody does, no comparison is enough.
        full: The rate lines of its answer when there is plenty.
        pieces: Its words until `ends_at` when there is plenty: before the request id, before the timing, and
            after.
        quick: Givings of those that were not told to the metrics yet.
        count: Other givings, likewise.
        drawn: How many of those were drawn for by comparison all the same, likewise.
        refused_until: Until when it is refused in the words of `refused_pieces`, unless a lease comes or the
            bucket's refusal is another than that of `blocked_until`.
        refused_quick: Refusals given so that were not told to the metrics yet.
        refused_count: Other refusals, likewise.
    """

    __slots__ = (
        "_refused_noted", "_refused_told", "address_hops", "blocked_until", "breaks", "cells", "claim",
        "cost", "count", "drawn", "ends_at", "fixed_id", "full", "holding", "last_id", "operation",
        "origin_fields", "pieces", "prepared", "principal", "purse", "queues", "quick", "rate_names",
        "refusal", "refused_count", "refused_pieces", "refused_quick", "refused_s", "refused_spent_s",
        "refused_until", "rendered", "spent_s", "status", "tenant", "timings", "token_name", "told",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - made in one place, from what that place has found
        self,
        x: Exchange,
        operation: Operation,
        principal: Principal,
        tenant: Tenant,
        holding: Holding,
        token_name: bytes,
        cells: RequestCells,
        grant: Grant,
        claim: Claim | None,
    ) -> None:
        self.operation = operation
        self.principal = principal
        self.tenant = tenant
        self.holding = holding
        self.token_name = token_name
        self.cells = cells
        self.claim = claim
        self.status = holding.hit.status
        self.rate_names = tuple(grant.headers)
        offered = x.header("X-Request-Id")
        is_taken = offered is not None and is_acceptable(offered)
        self.fixed_id = offered.encode() if offered is not None and is_taken else None
        self.origin_fields = cors.granted(tenant.allowed_origins, x.header("Origin"))
        self.address_hops = tuple(x.request.headers.getall("X-Forwarded-For", ()))
        # Until when, and since which count of breaks, all of it was found to hold; and its words until then.
        self.ends_at = 0.0
        self.breaks = -1
        self.rendered: Rendered = (b"", b"", b"", b"")
        self.pieces = (b"", b"", b"")
        self.full = b""
        self.purse = NOTHING_AT_HAND
        self.cost = claim.cost if claim is not None else 0.0
        self.queues: Collection[str] = claim.queues if claim is not None else ()
        self.prepared: PreparedHit
        self.timings: tuple[bytes, ...] = ()
        # The refusal that says to come back in so many seconds.
        self.refused_s = 0
        self.refusal: PreparedRefusal | None = None
        self.refused_until = self.blocked_until = 0.0
        self.refused_pieces: Pieces = (b"", b"", b"", b"")
        self.quick = self.count = self.drawn = self.told = 0
        self.refused_quick = self.refused_count = self._refused_told = self._refused_noted = 0
        self.spent_s = self.refused_spent_s = 0.0
        self.last_id: bytes | None = None

    def __repr__(self) -> str:
        return f"<HotEntry {self.tenant.id} {self.operation.route.template} {self.status}>"

    @property
    def given(self) -> int:
        """How often its answer was given."""
        return self.told + self.count + self.quick

    @property
    def refused(self) -> int:
        """How often it was refused by a limit."""
        return self._refused_told + self.refused_count + self.refused_quick

    def renew(self, standing: Standing, date: str, *, may_be_quick: bool) -> None:
        """Word its answer as it stands now; `may_be_quick` says whether a comparison may decide on it."""
        first, second, third, last = self.prepared.render(standing.age_s, standing.ttl_s, date)
        self.rendered = first, second, third, last
        self.purse, self.refused_until = NOTHING_AT_HAND, 0.0
        if may_be_quick and self.claim is not None and self.fixed_id is None:
            self.purse, self.full = self.claim.purse, self.claim.full
            self.pieces = (first, second + self.full + third, last)

    def refuse_anew(self, refusal: Refusal, parts: Parts) -> PreparedRefusal:
        """Refuse one request as the limiter has just said, and keep the words."""
        # What was counted so far was refused in other words.
        self.tell(parts.metrics)
        self.refused_s = int(refusal.headers.get("Retry-After", "0"))
        self.refused_until = 0.0
        self.refusal = PreparedRefusal(refusal, b"", self.origin_fields, shows_timing=parts.shows_timing)
        return self.refusal

    def refuse_as_known(self, claim: Claim, now: float, date: bytes) -> PreparedRefusal | None:
        """Refuse one request as the store refused the one before, and say how far the next may be so too.

        Args:
            claim: What it would draw on, which has just failed.
            now: The limiter's clock.
            date: The `Date` line, and the end of the head.

        Returns:
            The refusal, which the demand has been told of; None when it would be another.
        """
        refusal, until = self.refusal, claim.blocked_until(now)
        if refusal is None or not until or self.refused_s != max(1, math.ceil(until - now)):
            return None
        claim.refused += 1
        # Leases are sized by what is asked for in a second: a hundredth of it may be told at once.
        claim.note_refused(self.refused_quick - self._refused_noted + 1, now)
        self._refused_noted = self.refused_quick
        if self.purse is claim.view:
            self.blocked_until = until
            self.refused_pieces = refusal.pieces(date)
            self.refused_until = min(self.ends_at, now + _NOTE_EVERY_S, until - self.refused_s + 1)
        return refusal

    def tell(self, metrics: Metrics, more: int = 0) -> None:
        """Tell the metrics of the givings so far, and of `more` whose time is told elsewhere."""
        tenant, claim = self.tenant.id, self.claim
        timed = self.count + self.quick
        times, drawn = timed + more, self.quick + self.drawn
        self.told += times
        if timed:
            last_id = self.last_id.decode() if self.last_id is not None else None
            self.cells.observe_quick(timed, self.spent_s, last_id)
            self.count, self.quick, self.spent_s, self.last_id = 0, 0, 0.0, None
        self.drawn = 0
        if claim is not None:
            drawn += claim.drawn
            claim.drawn = 0
        if drawn:
            metrics.limits.decided(tenant, "admitted", "", drawn)
        if times:
            metrics.cache.hit("l1", times)
            metrics.bodies(tenant, 0, times * len(self.prepared.body))
            metrics.identity.token_remembered(self.principal.issuer, times)
        if self.refusal is not None:
            self.tell_refusals(metrics, self.refusal)

    def tell_refusals(self, metrics: Metrics, refusal: PreparedRefusal, slow_s: float | None = None) -> None:
        """Tell the metrics of the refusals so far, and of one that took `slow_s` seconds."""
        tenant, operation, claim = self.tenant.id, self.operation, self.claim
        timed = self.refused_count + self.refused_quick
        times = timed + (slow_s is not None)
        if not times:
            return
        self._refused_told += times
        refused = self.refused_quick
        cells = metrics.bind_request(
            tenant, operation.resource, operation.action, refusal.status, "none", operation.effect
        )
        if timed:
            cells.observe_quick(timed, self.refused_spent_s)
            # What the demand was not told of yet stays known.
            self._refused_noted -= self.refused_quick
            self.refused_count, self.refused_quick, self.refused_spent_s = 0, 0, 0.0
        if slow_s is not None:
            cells.observe(slow_s, None)
        if claim is not None:
            refused += claim.refused
            claim.refused = 0
            if refused:
                metrics.limits.decided(tenant, "rate", claim.policy, refused)
        metrics.refusal(refusal.reason, refusal.status, tenant, times)
        metrics.identity.token_remembered(self.principal.issuer, times)
        metrics.bodies(tenant, 0, times * (refusal.body_bytes + ID_LENGTH))

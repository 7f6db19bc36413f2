"""One repeated cached read: who sent it, what it may do, and the words of its answer.

Knows and shows nothing by itself: whether it still holds is `hotpath.py`'s question. Heads hold tokens, so
neither they nor entries are ever printed.
"""

from __future__ import annotations

from cbk_gateway import cors
from cbk_gateway.cache import Holding
from cbk_gateway.exchange import Exchange
from cbk_gateway.limits import Claim, Grant
from cbk_gateway.operation import Operation
from cbk_gateway.parties import Principal, Tenant
from cbk_gateway.prepared import PreparedHit, Rendered
from cbk_gateway.prepared_refusal import PreparedRefusal
from cbk_gateway.telemetry import Metrics
from cbk_gateway.telemetry.request_id import ID_LENGTH, is_acceptable
from cbk_gateway.telemetry.traffic import RequestCells


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
    """

    __slots__ = (
        "address_hops", "breaks", "cells", "claim", "count", "ends_at", "fixed_id", "holding", "last_id",
        "operation", "origin_fields", "prepared", "principal", "rate_names", "refusal", "refused_count",
        "refused_s", "refused_spent_s", "rendered", "spent_s", "status", "tenant", "timings", "token_name",
        "told",
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
        self.fixed_id = offered if offered is not None and is_acceptable(offered) else None
        self.origin_fields = cors.granted(tenant.allowed_origins, x.header("Origin"))
        self.address_hops = tuple(x.request.headers.getall("X-Forwarded-For", ()))
        # Until when, and since which count of breaks, all of it was found to hold; and its words until then.
        self.ends_at = 0.0
        self.breaks = -1
        self.rendered: Rendered = (b"", b"", b"", b"")
        self.prepared: PreparedHit
        self.timings: tuple[bytes, ...] = ()
        # The refusal that says to come back in so many seconds.
        self.refused_s = 0
        self.refusal: PreparedRefusal | None = None
        # What was not told to the metrics yet.
        self.count = self.told = self.refused_count = 0
        self.spent_s = self.refused_spent_s = 0.0
        self.last_id: str | None = None

    def __repr__(self) -> str:
        return f"<HotEntry {self.tenant.id} {self.operation.route.template} {self.status}>"

    @property
    def given(self) -> int:
        """How often its answer was given."""
        return self.told + self.count

    def tell(self, metrics: Metrics, more: int = 0) -> None:
        """Tell the metrics of the givings so far, and of `more` whose time is told elsewhere."""
        tenant, times, claim = self.tenant.id, self.count + more, self.claim
        self.told += times
        if self.count:
            self.cells.observe_quick(self.count, self.spent_s, self.last_id)
            self.count, self.spent_s, self.last_id = 0, 0.0, None
        if claim is not None and claim.drawn:
            metrics.limits.decided(tenant, "admitted", "", claim.drawn)
            claim.drawn = 0
        if times:
            metrics.cache.hit("l1", times)
            metrics.bodies(tenant, 0, times * len(self.prepared.body))
            metrics.identity.token_remembered(self.principal.issuer, times)
        if self.refusal is not None:
            self.tell_refusals(metrics, self.refusal)

    def tell_refusals(self, metrics: Metrics, refusal: PreparedRefusal, slow_s: float | None = None) -> None:
        """Tell the metrics of the refusals so far, and of one that took `slow_s` seconds."""
        tenant, operation, claim = self.tenant.id, self.operation, self.claim
        times = self.refused_count + (slow_s is not None)
        if not times:
            return
        cells = metrics.bind_request(
            tenant, operation.resource, operation.action, refusal.status, "none", operation.effect
        )
        if self.refused_count:
            cells.observe_quick(self.refused_count, self.refused_spent_s)
            self.refused_count, self.refused_spent_s = 0, 0.0
        if slow_s is not None:
            cells.observe(slow_s, None)
        if claim is not None and claim.refused:
            metrics.limits.decided(tenant, "rate", claim.policy, claim.refused)
            claim.refused = 0
        metrics.refusal(refusal.reason, refusal.status, tenant, times)
        metrics.identity.token_remembered(self.principal.issuer, times)
        metrics.bodies(tenant, 0, times * (refusal.body_bytes + ID_LENGTH))

"""What one worker knows of its tenants' quotas and open requests. Pure state; no store, no clock.

The store's counters are the truth; these remember what it said last, and what it has not been told yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cbk_gateway.limits.calendar import Span
from cbk_gateway.limits.ledger import QuotaQuestion, SlotQuestion
from cbk_gateway.limits.plan import quota_key, slot_key
from cbk_gateway.parties import Quota

_WARN_AT_PERCENT = (80, 100)


@dataclass(slots=True)
class QuotaView:
    """One quota in one period.

    Attributes:
        tenant_id: Whose it is.
        quota: The policy.
        span: The period.
        used: What the store said last was used, reservations included.
        pending: Corrections the store has not been told yet; may be negative.
        warned: The highest percentage that was reported in this period.
        blocked_until: Until when `blocked_amount` or more is refused without asking.
    """

    tenant_id: str
    quota: Quota
    span: Span
    used: int = 0
    pending: int = 0
    warned: int = 0
    blocked_until: float = 0.0
    blocked_amount: int = 0

    @property
    def key(self) -> str:
        """Its counter in the store."""
        return quota_key(self.tenant_id, self.quota, self.span.name)

    @property
    def is_enforced(self) -> bool:
        """Whether it refuses."""
        return self.quota.hard and not self.quota.shadow

    def question(self, amount: int, *, is_enforced: bool) -> QuotaQuestion:
        """Add an amount, if there is room."""
        return QuotaQuestion(self.key, self.quota.limit, amount, is_enforced, self.used, self.span)

    def block(self, amount: int, until: float) -> None:
        """Remember a refusal."""
        self.blocked_amount, self.blocked_until = amount, until

    def blocks(self, amount: int, now: float) -> bool:
        """Whether a remembered refusal covers it."""
        return now < self.blocked_until and amount >= self.blocked_amount and self.is_enforced

    def learn(self, used: int) -> int:
        """Remember what is used; returns the percentage newly passed, or 0."""
        self.used = used
        percent = used * 100 // max(1, self.quota.limit)
        passed = max((mark for mark in _WARN_AT_PERCENT if percent >= mark), default=0)
        if passed <= self.warned:
            return 0
        self.warned = passed
        return passed


@dataclass(slots=True)
class SlotView:
    """Open requests, or open streams, of one tenant in this worker.

    Attributes:
        tenant_id: Whose they are.
        kind: "requests" or "streams".
        own: How many this worker has open: always right, and what the store is told.
        most: The bound in force.
        is_stale: Whether the store believes another number.
    """

    tenant_id: str
    kind: str
    most: int
    own: int = 0
    is_stale: bool = False
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = slot_key(self.tenant_id, self.kind)

    def question(self, *, is_wanted: bool) -> SlotQuestion:
        """Say how many are open, and perhaps want one more."""
        return SlotQuestion(self.key, self.most, self.own, is_wanted)

    def has_local_room(self, workers: int) -> bool:
        """Whether one more fits into this worker's share while the store is away."""
        return self.own < max(1, self.most // max(1, workers))

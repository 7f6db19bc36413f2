"""What one worker knows and holds of its tenants' quotas and open requests. Pure; the clock is an argument.

The store's counters are the truth; these remember what it said last, what it has not been told yet, and what
this worker took in advance. Whatever is on lease is counted there already, so that all workers together never
pass a limit. Leases are given where there is plenty of room only: near a limit, or near the 80 % mark of a
quota, every request is counted one by one.

What a worker that dies takes with it: its free places are open again when its entry expires; of its share of
a quota nobody can tell what was spent, so all of it counts as spent. That is at most one part in
`QUOTA_PART` times the number of workers of the room that was left.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from cbk_gateway.limits.calendar import Span
from cbk_gateway.limits.ledger import QuotaQuestion, SlotQuestion
from cbk_gateway.limits.plan import quota_key, slot_key
from cbk_gateway.parties import Quota

_WARN_AT_PERCENT: Final = (80, 100)
QUOTA_PART: Final = 8
SLOT_PART: Final = 2


@dataclass(slots=True, eq=False)
class QuotaView:
    """One quota in one period.

    Attributes:
        tenant_id: Whose it is.
        quota: The policy.
        span: The period.
        used: What the store said last was used, reservations and all leases included.
        pending: Corrections the store has not been told yet; may be negative.
        lease: What this worker may still use of what it took in advance.
        lease_until: Until when.
        warned: The highest percentage that was reported in this period.
        blocked_until: Until when `blocked_amount` or more is refused without asking.
        refill: Done when the lease that is being fetched has come; None when none is.
        is_lost: Whether the store was away since it said what is used.
    """

    tenant_id: str
    quota: Quota
    span: Span
    used: int = 0
    pending: int = 0
    lease: int = 0
    lease_until: float = 0.0
    warned: int = 0
    blocked_until: float = 0.0
    blocked_amount: int = 0
    refill: asyncio.Future[None] | None = None
    is_lost: bool = False
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = quota_key(self.tenant_id, self.quota, self.span.name)

    @property
    def is_enforced(self) -> bool:
        """Whether it refuses."""
        return self.quota.hard and not self.quota.shadow

    @property
    def spent(self) -> int:
        """What is used as far as this worker knows, without what it has on lease."""
        return self.used + self.pending - self.lease

    @property
    def warning_percent(self) -> int:
        """How much is used of a soft quota that passed a mark; 0 when there is nothing to warn of."""
        if self.quota.hard or self.quota.shadow:
            return 0
        percent = self.spent * 100 // max(1, self.quota.limit)
        return percent if percent >= _WARN_AT_PERCENT[0] else 0

    def covers(self, amount: int, now: float) -> bool:
        """Whether the lease pays for it."""
        return amount <= self.lease and now < self.lease_until

    def question(self, amount: int, *, wanted: int, workers: int) -> QuotaQuestion:
        """Ask for an amount, with so much on lease besides, and hand over what the store was not told.

        The lease pays first, whatever its age: what it holds is this worker's alone.
        """
        limit = self.quota.limit
        mark = next((one for one in _WARN_AT_PERCENT if self.spent * 100 < one * limit), 0)
        # Beyond the last mark only a soft quota is still given anything, and nothing can go wrong with it.
        top = limit * mark // 100 if mark else self.spent + limit
        correction, self.pending = self.pending, 0
        paid = min(amount, self.lease)
        self.lease -= paid
        return QuotaQuestion(
            self.key,
            limit,
            amount - paid,
            self.is_enforced,
            self.used,
            self.span,
            correction,
            want=max(0, wanted - self.lease),
            top=top,
            part=QUOTA_PART * workers,
            paid=paid,
            is_lost=self.is_lost,
        )

    def report(self) -> QuotaQuestion:
        """Tell the store what it was not told, and ask for nothing."""
        correction, self.pending = self.pending, 0
        return QuotaQuestion(
            self.key,
            self.quota.limit,
            0,
            is_enforced=False,
            floor=self.used,
            span=self.span,
            correction=correction,
            is_lost=self.is_lost,
        )

    def give_back(self, keep: int) -> None:
        """Put what the lease holds beyond that among what the store is to be told."""
        if self.lease > keep:
            self.pending -= self.lease - keep
            self.lease = keep

    def correct(self, correction: int, now: float) -> bool:
        """Enter what a request spent beyond what was held for it, or less.

        Returns:
            Whether the store must know. It need not while there is a lease that pays for it, or takes it.
        """
        if now < self.lease_until and correction <= self.lease:
            self.lease -= correction
            return False
        self.pending += correction
        return correction != 0

    def block(self, amount: int, until: float) -> None:
        """Remember a refusal."""
        self.blocked_amount, self.blocked_until = amount, until

    def blocks(self, amount: int, now: float) -> bool:
        """Whether a remembered refusal covers it."""
        return now < self.blocked_until and amount >= self.blocked_amount and self.is_enforced

    def learn(self, used: int) -> int:
        """Remember what is used; returns the percentage newly passed, or 0."""
        self.used = used
        self.is_lost = False
        percent = (used - self.lease) * 100 // max(1, self.quota.limit)
        passed = max((mark for mark in _WARN_AT_PERCENT if percent >= mark), default=0)
        if passed <= self.warned:
            return 0
        self.warned = passed
        return passed


@dataclass(slots=True, eq=False)
class SlotView:
    """Open requests, or open streams, of one tenant in this worker.

    Attributes:
        tenant_id: Whose they are.
        kind: "requests" or "streams".
        most: The bound in force.
        own: How many this worker has open: always right.
        kept: How many the store counts for this worker at least: its open requests and free places.
        kept_until: Until when it does, without a sign of life.
        spare: How many free places this worker may ask for: 0 when places go back as soon as they are free.
        high: Most open requests at a time in this stretch of time.
        high_before: The same of the stretch before.
        number: Number of the last question.
        is_stale: Whether the store should be told another number.
        refill: Done when the places that are being fetched have come; None when none are.
    """

    tenant_id: str
    kind: str
    most: int
    own: int = 0
    kept: int = 0
    kept_until: float = 0.0
    spare: int = 0
    high: int = 0
    high_before: int = 0
    number: int = 0
    is_stale: bool = False
    refill: asyncio.Future[None] | None = None
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = slot_key(self.tenant_id, self.kind)

    @property
    def peak(self) -> int:
        """Most open requests at a time lately."""
        return max(self.high, self.high_before)

    def turn(self) -> None:
        """Begin a new stretch of time to take the peak of."""
        self.high_before, self.high = self.high, self.own

    def covers(self, now: float) -> bool:
        """Whether a free place is kept."""
        return self.own < self.kept and now < self.kept_until

    def open(self) -> None:
        """Count a request as open."""
        self.own = own = self.own + 1
        if own > self.high:  # noqa: PLR1730 - a call less for every request
            self.high = own

    def close(self) -> bool:
        """Count a request as ended.

        Returns:
            Whether the store must know at once, because others cannot have the place before. Where there is
            room for spare places, too many of them go back with the next round.
        """
        self.own -= 1
        # Twice as many, or each request that ends would send one place back.
        if self.kept - self.own > 2 * self.spare:
            self.is_stale = True
        return self.is_stale and self.spare == 0

    def question(self, *, wanted: int, workers: int) -> SlotQuestion:
        """Ask for a place for one request, which is counted as open from now on, and for spare ones."""
        self.number += 1
        declared = self.own
        self.open()
        # Until the answer is there, no other request may take a place this question does not declare.
        self.kept = self.own
        self.is_stale = False
        return SlotQuestion(
            self.key,
            self.most,
            declared,
            is_wanted=True,
            number=self.number,
            want=wanted,
            part=SLOT_PART * workers,
        )

    def report(self, workers: int) -> SlotQuestion:
        """Say how many are open and kept, which is no more than were needed lately, and want none."""
        self.number += 1
        goal = min(self.peak, self.own + self.spare)
        self.kept = max(self.own, min(self.kept, goal))
        self.is_stale = False
        part = SLOT_PART * workers
        return SlotQuestion(self.key, self.most, self.kept, is_wanted=False, number=self.number, part=part)

    def enter(self, asked: SlotQuestion, total: int, places: int, until: float, *, is_admitted: bool) -> None:
        """Enter an answer; `total` is what all workers have or keep. Later questions make it void."""
        if asked.number != self.number:
            return
        self.kept_until = until
        if asked.is_wanted:
            self.kept = max(self.own, asked.own + is_admitted + places)
        room = max(0, self.most - total + self.kept - self.own) // asked.part
        is_admission = asked.is_wanted and is_admitted
        self.spare = (room if places else 0) if is_admission else min(self.spare, room)

    def lose(self) -> None:
        """Nothing is certain but what is open: a question failed, or the store is away."""
        self.kept = min(self.kept, self.own)
        self.spare = 0
        self.is_stale = True

    def has_local_room(self, workers: int) -> bool:
        """Whether one more fits into this worker's share while the store is away."""
        return self.own < max(1, self.most // max(1, workers))

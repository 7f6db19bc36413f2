"""A request to decide and the decision: values, and how a refusal is made of them.

Who decides is `inquiry.py` with the store, or `outage.py` without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from cbk_gateway.errors import Refusal
from cbk_gateway.limits import answers
from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.counters import QuotaView, SlotView
from cbk_gateway.limits.desk import Draws, Held, Views
from cbk_gateway.limits.plan import Plan, label
from cbk_gateway.limits.reservation import quota_standing, reset_text
from cbk_gateway.operation import Operation


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be decided."""

    views: Views
    operation: Operation

    @property
    def plan(self) -> Plan:
        """The limits that count it."""
        return self.views.plan

    @property
    def name(self) -> str:
        """The operation's bounded name."""
        return self.operation.route.audit_name


@dataclass(frozen=True, slots=True)
class Taken:
    """A decision.

    Attributes:
        drawn: What was taken from buckets.
        reserved: What is held in quotas.
        slots: Where an open request was counted.
        refusal: Why not, or None when admitted; then nothing was taken.
        outcome: Word for reports: admitted, rate, quota, concurrency, unavailable.
        policy: The policy that refused, or "".
        wait_s: When waiting helps, how long.
    """

    drawn: Draws = ()
    reserved: Held = ()
    slots: tuple[SlotView, ...] = ()
    refusal: Refusal | None = None
    outcome: str = "admitted"
    policy: str = ""
    wait_s: float = 0.0


def rate_refusal(view: BucketView, wait_s: float, now: float) -> Taken:
    """A bucket's refusal as a decision."""
    standing = answers.standing_of(view.ref.rate, view.estimate(now))
    refusal = answers.rate_refusal(standing, wait_s, (standing,))
    return Taken(refusal=refusal, outcome="rate", policy=view.policy, wait_s=wait_s)


def quota_refusal(view: QuotaView, now_us: int, timezone: str) -> Taken:
    """A quota's refusal as a decision."""
    quota = view.quota
    refusal = answers.quota_refusal(
        quota_standing(view, now_us), label(quota.measure, quota.period), reset_text(view, timezone)
    )
    return Taken(refusal=refusal, outcome="quota", policy=quota.name)


def slot_refusal(slot: SlotView) -> Taken:
    """The refusal of a bound on open requests as a decision."""
    refusal = answers.slot_refusal(slot.kind, slot.most)
    return Taken(refusal=refusal, outcome="concurrency", policy=f"concurrent-{slot.kind}")

"""Quotas in numbers: how much a request holds back, how a quota stands, when it starts anew. Pure.

What a call really spent is read by `usage.py`; the books of it are kept by `bookkeeping.py`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from zoneinfo import ZoneInfo

from cbk_gateway.limits.answers import Standing, standing_of
from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.counters import QuotaView
from cbk_gateway.limits.grant import Usage
from cbk_gateway.parties import Measure

MICRO = 1_000_000
_MOST_OF_LIMIT = (
    4  # an estimate never holds back more than a quarter: one odd call must not lock a tenant out
)


def amount_to_hold(view: QuotaView, expected: int) -> int:
    """What to hold in a quota for a call expected to spend so much; requests always count one."""
    if view.quota.measure is Measure.REQUESTS:
        return 1
    return min(expected, max(1, view.quota.limit // _MOST_OF_LIMIT))


def amount_spent(view: QuotaView, held: int, usage: Usage) -> int:
    """What a finished call counts. An answer that does not tell its tokens counts what was held."""
    if view.quota.measure is Measure.REQUESTS:
        return held
    if view.quota.measure is Measure.BYTES:
        return usage.bytes
    return held if usage.tokens is None else usage.tokens


def quota_standing(view: QuotaView, now_us: int) -> Standing:
    """How a quota stands at an instant."""
    left = max(0, view.quota.limit - view.spent)
    window_s = (view.span.end_us - view.span.start_us) / MICRO
    return Standing(view.quota.name, view.quota.limit, window_s, left, (view.span.end_us - now_us) / MICRO)


def reset_text(view: QuotaView, timezone: str) -> str:
    """When a quota's period ends, in the tenant's own time: `2026-12-01T00:00:00+01:00`."""
    return dt.datetime.fromtimestamp(view.span.end_us / MICRO, ZoneInfo(timezone)).isoformat()


def standings(
    drawn: Iterable[tuple[BucketView, float]],
    reserved: Iterable[tuple[QuotaView, int]],
    now_us: int,
    now: float,
) -> tuple[Standing, ...]:
    """How every enforced limit of a request stands: rates first, then quotas."""
    rates = tuple(
        standing_of(view.ref.rate, view.estimate(now)) for view, _ in drawn if not view.ref.rate.shadow
    )
    return rates + tuple(quota_standing(view, now_us) for view, _ in reserved if not view.quota.shadow)

"""Days and months of a time zone, from an instant. Pure; the instant is an argument.

A quota's period begins at the tenant's local midnight. Days of 23 or 25 hours, where clocks are changed,
come out right because both ends are computed from local dates.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cbk_gateway.parties import Period

MICRO: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """One calendar period: its name (`2026-11-22` or `2026-11`), begin and end in epoch microseconds."""

    name: str
    start_us: int
    end_us: int


def span_of(now_us: int, period: Period, timezone: str) -> Span:
    """The day or month that holds an instant, in an IANA time zone."""
    local = dt.datetime.fromtimestamp(now_us / MICRO, ZoneInfo(timezone)).date()
    return _span(local if period is Period.DAY else local.replace(day=1), period, timezone)


@lru_cache(maxsize=4096)
def _span(first: dt.date, period: Period, timezone: str) -> Span:
    if period is Period.DAY:
        following, name = first + dt.timedelta(days=1), first.isoformat()
    else:
        following, name = (first + dt.timedelta(days=32)).replace(day=1), first.strftime("%Y-%m")
    return Span(name, _midnight_us(first, timezone), _midnight_us(following, timezone))


def _midnight_us(date: dt.date, timezone: str) -> int:
    midnight = dt.datetime(date.year, date.month, date.day, tzinfo=ZoneInfo(timezone))
    return int(midnight.timestamp()) * MICRO

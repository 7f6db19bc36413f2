"""Days and months where clocks change, years end and leap days are."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.limits.calendar import MICRO, span_of
from cbk_gateway.parties import Period


def at(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp()) * MICRO


@pytest.mark.parametrize(
    ("instant", "period", "zone", "name", "hours"),
    [
        ("2026-11-22T18:00:00+00:00", Period.DAY, "UTC", "2026-11-22", 24),
        ("2026-11-22T23:30:00+00:00", Period.DAY, "Europe/Berlin", "2026-11-23", 24),
        ("2026-03-29T12:00:00+00:00", Period.DAY, "Europe/Berlin", "2026-03-29", 23),
        ("2026-10-25T12:00:00+00:00", Period.DAY, "Europe/Berlin", "2026-10-25", 25),
        ("2026-12-31T23:59:59+00:00", Period.MONTH, "UTC", "2026-12", 31 * 24),
        ("2028-02-29T00:00:00+00:00", Period.MONTH, "UTC", "2028-02", 29 * 24),
        ("2026-11-01T03:00:00+00:00", Period.MONTH, "America/Los_Angeles", "2026-10", 31 * 24),
    ],
)
def test_a_period_is_the_tenants_own(instant: str, period: Period, zone: str, name: str, hours: int) -> None:
    span = span_of(at(instant), period, zone)
    assert (span.name, span.end_us - span.start_us) == (name, hours * 3600 * MICRO)


@given(
    st.integers(0, 4_000_000_000),
    st.sampled_from(Period),
    st.sampled_from(["UTC", "Europe/Berlin", "America/Los_Angeles", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_every_instant_is_in_exactly_one_period(second: int, period: Period, zone: str) -> None:
    # Invariant: the span holds the instant, and the next span begins where it ends.
    span = span_of(second * MICRO, period, zone)
    assert span.start_us <= second * MICRO < span.end_us
    assert span_of(span.end_us, period, zone).start_us == span.end_us

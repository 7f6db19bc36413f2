"""Headers and refusals in the words of their specifications."""

from __future__ import annotations

import math

import orjson
import pytest

from cbk_gateway.limits import answers
from cbk_gateway.limits.answers import Standing
from cbk_gateway.parties import Rate


def test_headers_name_the_limit_that_decides_and_all_that_count() -> None:
    tight, wide = Standing("tenant", 10, 2, 3.7, 1.2), Standing("day", 1000, 86400, 900, 500)
    assert answers.rate_headers(tight, (tight, wide)) == {
        "RateLimit": '"tenant";r=3;t=2',
        "RateLimit-Policy": '"tenant";q=10;w=2, "day";q=1000;w=86400',
        "X-RateLimit-Limit": "10",
        "X-RateLimit-Remaining": "3",
        "X-RateLimit-Reset": "2",
    }


def test_the_lean_form_for_one_rate_says_the_same() -> None:
    rate = Rate('t"x', 5, 10)
    standing = answers.standing_of(rate, 3.7)
    assert answers.single_rate_headers(rate, 3, 2) == answers.rate_headers(standing, (standing,))


def test_nothing_limits_is_no_header() -> None:
    assert answers.rate_headers(None, ()) == {}


def test_a_policy_name_cannot_break_out_of_its_string() -> None:
    one = Standing('a"b\\c\r\né', 1, 1, 1, 1)
    assert answers.rate_headers(one, (one,))["RateLimit"] == '"a\\"b\\\\c___";r=1;t=1'


@pytest.mark.parametrize("wait_s", [0.0001, 0.4, 1.0, 1.01, 59.2])
def test_a_wait_is_whole_seconds_rounded_up_and_never_zero(wait_s: float) -> None:
    standing = answers.standing_of(Rate("tenant", 5, 10), 0.5)
    refusal = answers.rate_refusal(standing, wait_s, (standing,))
    assert refusal.headers["Retry-After"] == str(max(1, math.ceil(wait_s)))
    assert refusal.headers["X-RateLimit-Remaining"] == "0"
    assert (refusal.status, refusal.code) == (429, "TOO_MANY_REQUESTS")


def test_a_quota_says_when_it_starts_anew() -> None:
    standing = Standing("monthly", 1000, 86400, 0, 3600)
    refusal = answers.quota_refusal(standing, "tokens per month", "2026-12-01T00:00:00+01:00")
    body = orjson.loads(refusal.body())
    assert refusal.code == body["code"] == body["error"]["code"] == "LIMITS_REACHED"
    assert "2026-12-01T00:00:00+01:00" in refusal.message
    assert refusal.headers["Retry-After"] == "3600"


def test_a_limit_that_cannot_be_checked_is_a_503() -> None:
    refusal = answers.store_away_refusal("tenant")
    assert (refusal.status, refusal.code, refusal.headers["Retry-After"]) == (503, "SERVICE_UNAVAILABLE", "1")

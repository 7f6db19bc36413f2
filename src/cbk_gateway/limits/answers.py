"""What a client is told: rate headers and refusals. Pure text from numbers.

`RateLimit` and `RateLimit-Policy` follow draft-ietf-httpapi-ratelimit-headers-10 (structured fields, RFC
9651): `q` the quota units, `w` the window in seconds, `r` what is left, `t` seconds until more is there.
`X-RateLimit-Reset` is in seconds from now, as most clients of that older habit read it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cbk_gateway.errors import LimitsReached, ServiceUnavailable, TooManyRequests
from cbk_gateway.parties import Rate


@dataclass(frozen=True, slots=True)
class Standing:
    """How one limit stands.

    Attributes:
        policy: Its name.
        limit: Most units at once.
        window_s: Seconds in which that many come anew.
        remaining: Units left, fractions kept.
        reset_s: Seconds until it is full again (a rate) or starts anew (a quota).
    """

    policy: str
    limit: float
    window_s: float
    remaining: float
    reset_s: float


def standing_of(rate: Rate, tokens: float) -> Standing:
    """A bucket's standing from its tokens."""
    left = min(max(0.0, tokens), rate.burst)
    return Standing(
        rate.name, rate.burst, rate.burst / rate.per_second, left, (rate.burst - left) / rate.per_second
    )


def rate_headers(deciding: Standing | None, all_standings: tuple[Standing, ...]) -> dict[str, str]:
    """The headers for the limit that decided; the policy header names every limit that counted."""
    if deciding is None:
        return {}
    left, reset = max(0, math.floor(deciding.remaining)), max(0, math.ceil(deciding.reset_s))
    return {
        "RateLimit": f"{_name(deciding.policy)};r={left};t={reset}",
        "RateLimit-Policy": ", ".join(map(_policy, all_standings)),
        "X-RateLimit-Limit": str(math.floor(deciding.limit)),
        "X-RateLimit-Remaining": str(left),
        "X-RateLimit-Reset": str(reset),
    }


def single_rate_headers(rate: Rate, left: int, reset: int) -> dict[str, str]:
    """The headers of the commonest case, one rate; the same as `rate_headers` gives."""
    name, policy, limit = _constant_parts(rate.name, rate.burst, rate.per_second)
    return {
        "RateLimit": f"{name};r={left};t={reset}",
        "RateLimit-Policy": policy,
        "X-RateLimit-Limit": limit,
        "X-RateLimit-Remaining": str(left),
        "X-RateLimit-Reset": str(reset),
    }


def single_rate_pieces(rate: Rate) -> tuple[str, str, str, str, str]:
    """`single_rate_headers` as lines, around their numbers: left, reset, left, reset."""
    name, policy, limit = _constant_parts(rate.name, rate.burst, rate.per_second)
    constant = f"\r\nRateLimit-Policy: {policy}\r\nX-RateLimit-Limit: {limit}\r\nX-RateLimit-Remaining: "
    return f"RateLimit: {name};r=", ";t=", constant, "\r\nX-RateLimit-Reset: ", "\r\n"


@lru_cache(maxsize=4096)
def _constant_parts(name: str, burst: float, per_second: float) -> tuple[str, str, str]:
    standing = Standing(name, burst, burst / per_second, 0, 0)
    return _name(name), _policy(standing), str(math.floor(burst))


def quota_warning(used_up: Mapping[str, int]) -> dict[str, str]:
    """The header of soft quotas that passed a mark: `X-Quota-Warning: "calls";used=87`, in whole percent."""
    if not used_up:
        return {}
    return {
        "X-Quota-Warning": ", ".join(f"{_name(name)};used={percent}" for name, percent in used_up.items())
    }


def _policy(one: Standing) -> str:
    return _policy_text(one.policy, one.limit, one.window_s)


@lru_cache(maxsize=4096)
def _policy_text(policy: str, limit: float, window_s: float) -> str:
    return f"{_name(policy)};q={math.floor(limit)};w={max(1, math.ceil(window_s))}"


@lru_cache(maxsize=4096)
def _name(policy: str) -> str:
    """A policy name as a structured-field string (RFC 9651 section 3.3.3: printable ASCII)."""
    safe = "".join(char if " " <= char <= "~" else "_" for char in policy)
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'


def rate_refusal(standing: Standing, wait_s: float, others: tuple[Standing, ...]) -> TooManyRequests:
    """429 of a bucket: it says which one and when to come back."""
    seconds = max(1, math.ceil(wait_s))
    return TooManyRequests(
        f"The rate limit '{standing.policy}' is used up; it allows another request in {_seconds(seconds)}.",
        retry_after_s=seconds,
        reason="rate",
        headers=_with_wait(rate_headers(standing, others), standing.policy, seconds),
        details={"policy": standing.policy, "retryAfter": seconds},
    )


def quota_refusal(standing: Standing, measure: str, reset_text: str) -> LimitsReached:
    """429 of a quota: it says which one and when its period ends."""
    seconds = max(1, math.ceil(standing.reset_s))
    return LimitsReached(
        f"The quota '{standing.policy}' of {math.floor(standing.limit)} {measure} is used up; "
        f"it starts anew at {reset_text}.",
        retry_after_s=seconds,
        reason="quota",
        headers=_with_wait(rate_headers(standing, (standing,)), standing.policy, seconds),
        details={"policy": standing.policy, "retryAfter": seconds, "resetsAt": reset_text},
    )


def slot_refusal(kind: str, most: int) -> TooManyRequests:
    """429 of the bound on open requests or streams; it frees itself as soon as one of them ends."""
    name = f"concurrent-{kind}"
    standing = Standing(name, most, 1, 0, 1)
    return TooManyRequests(
        f"The limit '{name}' is reached: {most} of your {kind} are open; try again when one has ended.",
        retry_after_s=1,
        reason="concurrency",
        headers=rate_headers(standing, (standing,)),
        details={"policy": name, "retryAfter": 1},
    )


def store_away_refusal(policy: str) -> ServiceUnavailable:
    """503 of a limit that must not be passed unchecked."""
    return ServiceUnavailable(
        f"The limit '{policy}' cannot be checked at the moment; try again shortly.",
        reason="limits_unavailable",
        headers={"Retry-After": "1"},
        details={"policy": policy},
    )


def _with_wait(headers: Mapping[str, str], policy: str, seconds: int) -> dict[str, str]:
    """On a refusal `t` is the wait itself, and nothing is left."""
    return {**headers, "RateLimit": f"{_name(policy)};r=0;t={seconds}", "X-RateLimit-Remaining": "0"}


def _seconds(count: int) -> str:
    return "1 second" if count == 1 else f"{count} seconds"

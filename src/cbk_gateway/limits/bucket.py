"""The token bucket in plain Python: the rule that `admit.lua` runs, for tests, documentation and thought.

No store, no clock: time is an argument, in microseconds. The gateway itself never decides with this
module; the script does, and a test compares the two step by step.

The rule. A bucket holds at most `burst` tokens and gains `rate` per second. A request takes its cost from
every bucket that counts it, or from none. A worker may *lease* tokens: they leave the bucket now and may be
spent within `lease_life_us`. While they are out, the bucket refills only to `burst - leased`.

Why nothing is over-admitted. Let S(a, b) be what is spent in the window from a to b. It was either out on
lease at a, or was taken from the bucket within the window. So S <= leased(a) + tokens(a) + rate * (b - a),
and since tokens + leased <= burst always, S <= burst + rate * (b - a), for any number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

MICRO: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class BucketState:
    """What the store keeps of one bucket.

    Attributes:
        tokens: What may be taken now, fractions kept.
        at: Server time of `tokens`, microseconds.
        epoch: Number of the lease period `at` lies in.
        leased: Tokens leased in that period.
        leased_before: Tokens leased in the period before.
    """

    tokens: float
    at: int
    epoch: int = 0
    leased: float = 0.0
    leased_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Draw:
    """What one request asks of one bucket.

    Attributes:
        rate: Tokens per second.
        burst: Most tokens it holds.
        cost: Tokens asked; more than `burst` counts as `burst`, which takes a full bucket.
        want: Whole tokens wanted on lease besides.
        is_shadow: Whether a miss is only counted.
        given_back: Unspent tokens returned with this request.
        closed: Size of a lease that ended, spent or given back: it no longer holds the bucket down.
        closed_epoch: The period that lease was taken in.
    """

    rate: float
    burst: float
    cost: float = 1.0
    want: float = 0.0
    is_shadow: bool = False
    given_back: float = 0.0
    closed: float = 0.0
    closed_epoch: int = -1


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one decision; `wait_us` is 0 when admitted, else the time until it may succeed."""

    is_admitted: bool
    states: tuple[BucketState, ...]
    extras: tuple[float, ...]
    missed: tuple[bool, ...]
    wait_us: int


def refilled(state: BucketState | None, draw: Draw, now: int, lease_life_us: int) -> BucketState:
    """The bucket as it stands at `now`, with what is given back. None is a bucket never used: full."""
    epoch = now // lease_life_us
    if state is None:
        state = BucketState(draw.burst, now, epoch)
    tokens, at = _filled(state, draw, now, lease_life_us)
    state = replace(state, tokens=tokens, at=at)
    if epoch == state.epoch + 1:
        state = replace(state, epoch=epoch, leased_before=state.leased, leased=0.0)
    elif epoch > state.epoch:
        state = replace(state, epoch=epoch, leased_before=0.0, leased=0.0)
    if draw.closed_epoch == state.epoch:
        state = replace(state, leased=max(0.0, state.leased - draw.closed))
    elif draw.closed_epoch == state.epoch - 1:
        state = replace(state, leased_before=max(0.0, state.leased_before - draw.closed))
    return replace(state, tokens=min(brim(state, draw), state.tokens + draw.given_back))


def _filled(state: BucketState, draw: Draw, now: int, lease_life_us: int) -> tuple[float, int]:
    """Let time pass. Until leases end, with the period after their own, it fills only to what they leave."""
    tokens, at = state.tokens, state.at
    for till, leased in (
        (min(now, (state.epoch + 1) * lease_life_us), state.leased + state.leased_before),
        (min(now, (state.epoch + 2) * lease_life_us), state.leased),
        (now, 0.0),
    ):
        if till > at:
            tokens = min(max(0.0, draw.burst - leased), tokens + (till - at) * draw.rate / MICRO)
            at = till
    return tokens, at


def brim(state: BucketState, draw: Draw) -> float:
    """How far it may refill while leases are out."""
    return max(0.0, draw.burst - (state.leased + state.leased_before))


def decide(
    states: Sequence[BucketState | None], draws: Sequence[Draw], now: int, lease_life_us: int
) -> Verdict:
    """Take from every bucket or from none.

    Refusals and shadow misses take nothing; what was given back stays given back either way.
    """
    current = [refilled(state, draw, now, lease_life_us) for state, draw in zip(states, draws, strict=True)]
    needs = [min(draw.cost, draw.burst) for draw in draws]
    missed = tuple(state.tokens < need for state, need in zip(current, needs, strict=True))
    waits = [
        _wait_us(state, draw, need, now, lease_life_us)
        for state, draw, need, miss in zip(current, draws, needs, missed, strict=True)
        if miss and not draw.is_shadow
    ]
    extras = [0.0] * len(current)
    if not waits:
        for i, (draw, need) in enumerate(zip(draws, needs, strict=True)):
            if missed[i]:
                continue
            left = current[i].tokens - need
            extras[i] = max(0.0, min(draw.want, math.floor(left)))
            leased = current[i].leased + extras[i]
            current[i] = replace(current[i], tokens=left - extras[i], leased=leased)
    return Verdict(not waits, tuple(current), tuple(extras), missed, max(waits, default=0))


def _wait_us(state: BucketState, draw: Draw, need: float, now: int, lease_life_us: int) -> int:
    """Until the tokens are really there: they come only up to the brim, and the brim rises as leases end."""
    tokens, at = state.tokens, max(now, state.at)
    for till, leased in (
        ((state.epoch + 1) * lease_life_us, state.leased + state.leased_before),
        ((state.epoch + 2) * lease_life_us, state.leased),
    ):
        most = max(0.0, draw.burst - leased)
        if need <= most:
            break
        if till > at:
            tokens = min(most, tokens + (till - at) * draw.rate / MICRO)
            at = till
    return max(1, at - now + math.ceil((need - tokens) / draw.rate * MICRO))

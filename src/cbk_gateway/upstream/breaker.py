"""When to stop calling something that fails, and when to ask again. A pure state machine.

Rule 1: closed counts samples in a rolling window and opens when enough of them failed.
Rule 2: open lets nothing through until its pause is over; then one probe may go.
Rule 3: half open waits for that probe: success closes it and forgets the past, failure opens it for
twice the pause, up to a bound.

Time is an argument. What counts as a failure, who probes and what is refused is `guard.py`'s business.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

from cbk_gateway.upstream.options import BreakerOptions

_BUCKETS: Final = 10


class BreakerState(StrEnum):
    """The three states."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Counts outcomes of one thing.

    Attributes:
        state: Where it stands.
        probe_at: When an open breaker may be probed, in the caller's seconds.
    """

    __slots__ = (
        "_failures", "_fresh", "_newest", "_options", "_pause_s", "_samples", "_turns_at", "probe_at",
        "state",
    )  # fmt: skip

    def __init__(self, options: BreakerOptions) -> None:
        self._options = options
        self._samples = [0] * _BUCKETS
        self._failures = [0] * _BUCKETS
        self._newest = 0
        # Good outcomes of the newest bucket that are not among its samples yet, and when its time is over.
        self._fresh = 0
        self._turns_at = -math.inf
        self._pause_s = options.open_s
        self.state = BreakerState.CLOSED
        self.probe_at = 0.0

    def record(self, now: float, *, failed: bool) -> bool:
        """Count one outcome; True when it opened the breaker.

        Outcomes of calls that were under way when it opened say nothing new and are dropped.
        """
        if now < self._turns_at and not failed:
            # Only a closed breaker has such a time.
            self._fresh += 1
            return False
        if self.state is not BreakerState.CLOSED:
            return False
        place = self._turn_to(now)
        self._samples[place] += 1
        if not failed:
            return False
        self._failures[place] += 1
        return self._may_open(now)

    def amend(self, now: float) -> bool:
        """An outcome that was counted as good turned out a failure; True when that opened the breaker."""
        if self.state is not BreakerState.CLOSED:
            return False
        place = self._turn_to(now)
        if sum(self._failures) >= sum(self._samples):
            # What was counted then has left the window.
            self._samples[place] += 1
        self._failures[place] += 1
        return self._may_open(now)

    def begin_probe(self, now: float) -> bool:
        """Whether the caller is to probe now; at most one caller is told so."""
        if self.state is not BreakerState.OPEN or now < self.probe_at:
            return False
        self.state = BreakerState.HALF_OPEN
        return True

    def end_probe(self, now: float, *, healthy: bool) -> None:
        """Take the probe's verdict."""
        if healthy:
            self.state = BreakerState.CLOSED
            self._pause_s = self._options.open_s
            self._samples = [0] * _BUCKETS
            self._failures = [0] * _BUCKETS
            self._fresh = 0
            return
        self._pause_s = min(self._pause_s * 2, self._options.longest_open_s)
        self.state = BreakerState.OPEN
        self.probe_at = now + self._pause_s

    def _may_open(self, now: float) -> bool:
        samples, failures = sum(self._samples), sum(self._failures)
        if samples < self._options.minimum_samples or failures < samples * self._options.failure_share:
            return False
        self.state = BreakerState.OPEN
        self._turns_at = -math.inf
        self.probe_at = now + self._pause_s
        return True

    def _turn_to(self, now: float) -> int:
        """Empty the buckets that have left the window; returns the place of the present one."""
        self._samples[self._newest % _BUCKETS] += self._fresh
        self._fresh = 0
        window_s = self._options.window_s
        present = int(now * _BUCKETS / window_s)
        for tick in range(max(self._newest + 1, present - _BUCKETS + 1), present + 1):
            self._samples[tick % _BUCKETS] = 0
            self._failures[tick % _BUCKETS] = 0
        self._newest = max(self._newest, present)
        self._turns_at = (self._newest + 1) * window_s / _BUCKETS
        return self._newest % _BUCKETS

    def __repr__(self) -> str:
        return f"<Breaker {self.state}, {sum(self._failures)} of {sum(self._samples) + self._fresh} failed>"

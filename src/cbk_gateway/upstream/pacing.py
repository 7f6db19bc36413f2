"""How fast to go on calling an account that the upstream has told to slow down. Pure; time is an argument.

The API answers 429 without saying when to come back, and tells a burst from an exhausted month only in
the text. So each 429 doubles the gap between calls and each success halves it: a burst is over in
seconds, an exhausted account costs the upstream next to nothing.
"""

from __future__ import annotations

import math
from typing import Final

FIRST_GAP_S: Final = 0.1
LONGEST_GAP_S: Final = 5.0


class Pace:
    """The gap between calls of one account.

    Attributes:
        gap_s: Seconds between two calls; 0 when nothing holds it back.
    """

    __slots__ = ("_next_at", "gap_s")

    def __init__(self) -> None:
        self.gap_s = 0.0
        self._next_at = 0.0

    def limited(self, now: float, retry_after_s: float | None) -> float:
        """The upstream answered 429; returns the seconds until the next call is due."""
        self.gap_s = min(max(self.gap_s * 2, FIRST_GAP_S), LONGEST_GAP_S)
        wait_s = self.gap_s if retry_after_s is None else retry_after_s
        self._next_at = max(self._next_at, now + wait_s)
        return self._next_at - now

    def succeeded(self) -> None:
        """The upstream answered anything else."""
        self.gap_s /= 2
        if self.gap_s < FIRST_GAP_S / 2:
            self.gap_s = 0.0

    def reserve(self, now: float, patience_s: float) -> float | None:
        """Take the next place: seconds to wait for it, or None when that is longer than `patience_s`."""
        wait_s = max(0.0, self._next_at - now)
        if wait_s > patience_s:
            return None
        self._next_at = max(now, self._next_at) + self.gap_s
        return wait_s

    def wait_s(self, now: float) -> float:
        """Seconds until a call may go."""
        return max(0.0, self._next_at - now)

    def is_free(self, now: float) -> bool:
        """Whether nothing holds it back any more."""
        return self.gap_s == 0.0 and self._next_at <= now

    def __repr__(self) -> str:
        return f"<Pace {self.gap_s:g} s>"


def sane_retry_after(text: str | None, longest_s: float) -> float | None:
    """Seconds from a `Retry-After` field (RFC 9110 section 10.2.3), within reason; None when it says none.

    Its date form is not read: the clocks of two hosts need not agree.
    """
    if text is None or not text.strip().isdigit() or len(text) > 9:
        return None
    return min(float(max(1, int(text))), longest_s)


def whole_seconds(seconds: float) -> int:
    """Round up for a header: at least 1, so that nobody comes back too early."""
    return max(1, math.ceil(seconds))

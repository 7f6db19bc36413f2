"""Who else is alive, and whether everybody is back after an outage. Pure; the clocks are arguments.

The number alive divides the limits while the store is away, so it must not dip because a store that forgot
everything has only heard of half the workers yet.
"""

from __future__ import annotations


class Roster:
    """What the roll calls said.

    Args:
        expected: Workers at least, before any were heard of.
        dead_after_s: How long a higher count is kept after a lower one was heard.
    """

    def __init__(self, expected: int, dead_after_s: float) -> None:
        self._expected = max(1, expected)
        self._dead_after_s = dead_after_s
        self._heard_at = 0.0
        self._lost = False
        self._back = 0
        self._returned_at = 0.0
        self.returned_at_us = 0
        """Server time of the first roll call after an outage; 0 before."""
        self.alive = self._expected

    def note(self, alive: int, back: int, now_us: int, now: float) -> None:
        """Enter a roll call: workers alive, and those heard of since the store came back."""
        alive = max(alive, self._expected)
        if alive >= self.alive or (not self._lost and now - self._heard_at > self._dead_after_s):
            self.alive = alive
            self._heard_at = now
        if self._lost and self.returned_at_us == 0:
            self.returned_at_us = now_us
            self._returned_at = now
            back = 1
        self._back = back

    def lose_store(self) -> None:
        """The store is away: nobody is back."""
        self._lost = True
        self.returned_at_us = 0

    def is_complete(self, now: float, patience_s: float) -> bool:
        """Whether all workers known before the outage are back, or have been waited for long enough."""
        if self.returned_at_us == 0:
            return False
        if self._back < self.alive and now - self._returned_at < patience_s:
            return False
        self._lost = False
        self.returned_at_us = 0
        return True

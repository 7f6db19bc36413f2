"""When to stop asking a store that does not answer. A plain automaton: the clock is an argument.

Three states. *Closed*: every call goes out. After `threshold` failures in a row it *opens*: no call goes
out. When `pause_s` has passed, one probe may go out; while it runs the breaker stays open for all others
(half open). The probe's success closes it, its failure opens it for another pause.
"""

from __future__ import annotations


class Breaker:
    """Counts failures and says whether to ask.

    Args:
        threshold: Failures in a row that open it.
        pause_s: Seconds from opening to the next probe.
    """

    __slots__ = ("_failures", "_is_probing", "_opened_at", "_pause_s", "_threshold")

    def __init__(self, threshold: int, pause_s: float) -> None:
        self._threshold = threshold
        self._pause_s = pause_s
        self._failures = 0
        self._opened_at: float | None = None
        self._is_probing = False

    @property
    def is_closed(self) -> bool:
        """Whether calls go out."""
        return self._opened_at is None

    def seconds_to_probe(self, now: float) -> float:
        """Seconds until a probe may go out; 0 when one may now or the breaker is closed."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._pause_s - now)

    def may_probe(self, now: float) -> bool:
        """Claim the one probe of this pause; whoever gets True must report its outcome."""
        if self._opened_at is None or self._is_probing or self.seconds_to_probe(now) > 0:
            return False
        self._is_probing = True
        return True

    def succeeded(self) -> bool:
        """Note an answer. Returns whether this closed an open breaker."""
        was_open = self._opened_at is not None
        self._failures = 0
        self._opened_at = None
        self._is_probing = False
        return was_open

    def failed(self, now: float) -> bool:
        """Note a call without an answer. Returns whether this opened a closed breaker."""
        self._failures += 1
        if self._opened_at is not None:
            # Late failures of calls sent before the opening must not push the probe away.
            if self._is_probing:
                self._is_probing = False
                self._opened_at = now
            return False
        if self._failures < self._threshold:
            return False
        self._opened_at = now
        return True

    def __repr__(self) -> str:
        state = "closed" if self._opened_at is None else "half-open" if self._is_probing else "open"
        return f"<Breaker {state} failures={self._failures}/{self._threshold}>"

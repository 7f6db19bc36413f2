"""How much per second this worker is asked for, by one limit or one tenant: leases are sized by it.

Pure state and arithmetic; the clock (monotonic seconds of this process) is an argument.
"""

from __future__ import annotations

from typing import Final

_WINDOW_S: Final = 1.0
_SUDDEN_S: Final = 0.25
_SILENCE_S: Final = 4.0


class Demand:
    """A rate, measured over windows of a second.

    It rises at once when many requests come at a time, and falls by halves, so that one quiet second of a
    busy tenant does not cost it its leases. One or two requests at a time are no flood, however short the
    time between them: somebody who asks once per second has a demand of 1.

    Attributes:
        per_second: What was asked lately.
    """

    __slots__ = ("_seen", "_since", "per_second")

    def __init__(self) -> None:
        self.per_second = 0.0
        self._seen = 0.0
        self._since = 0.0

    def note(self, amount: float, now: float, each: float | None = None) -> None:
        """Count one request for so much, admitted or not; or several, `each` for so much."""
        elapsed = now - self._since
        if elapsed >= _WINDOW_S:
            fresh = self._seen / elapsed
            is_falling = fresh < self.per_second and elapsed < _SILENCE_S
            self.per_second = (self.per_second + fresh) / 2 if is_falling else fresh
            self._seen = amount
            self._since = now
            return
        self._seen = seen = self._seen + amount
        # The first and the last of a row lie at its ends: so many fewer are between them.
        if elapsed < _SUDDEN_S:  # noqa: PLR1730 - max() costs a call, on every request; so below
            elapsed = _SUDDEN_S
        one = amount if each is None else each
        sudden = (seen - one - one) / elapsed
        if sudden > self.per_second:  # noqa: PLR1730
            self.per_second = sudden

    def __repr__(self) -> str:
        return f"<Demand {self.per_second:.1f}/s>"

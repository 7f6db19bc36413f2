"""How many calls may run at a time, learnt from how the upstream fares. Pure; time is an argument.

Additive increase, multiplicative decrease: the bound grows by one per bound of good calls while at least
half of it is used, and shrinks at a sign of overload (a fault, a 503, or a call many times slower than
usual), at most once per usual call time, because the calls under way then all tell the same story.
"""

from __future__ import annotations

from typing import Final

from cbk_gateway.upstream.options import ConcurrencyOptions

_SLOWEST_PULSE_S: Final = 2.0
_FASTEST_PULSE_S: Final = 0.1
_LEARNING: Final = 0.02
_FIRST_LESSONS: Final = 20
_STEADY_LESSONS: Final = 50
"""From here on the slow mean's weight is `_LEARNING`."""


class FixedBound:
    """A bound that learns nothing."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value


class AdaptiveBound:
    """The bound on short calls.

    Attributes:
        value: The bound; compare with whole numbers of calls.
        usual_s: Usual time to the head of an answer, as learnt from good calls.
    """

    __slots__ = ("_lessons", "_options", "_steady_until", "_tolerance", "usual_s", "value")

    def __init__(self, options: ConcurrencyOptions) -> None:
        self._options = options
        self._tolerance = options.tolerance
        self._lessons = 0
        self._steady_until = 0.0
        self.value = options.start
        self.usual_s = 0.0

    def record(self, now: float, took_s: float, in_flight: int, *, overloaded: bool) -> bool:
        """Learn from one call; True when the bound shrank.

        Args:
            now: Any steadily growing seconds.
            took_s: Time to the head of the answer.
            in_flight: Calls under way, this one included.
            overloaded: Whether it failed as calls to an overloaded server do.
        """
        usual_s = self.usual_s
        if not overloaded and took_s <= usual_s * self._tolerance and self._lessons >= _STEADY_LESSONS:
            # What follows would come to the same: nearly every call is a good one among many.
            self.usual_s = usual_s + _LEARNING * (took_s - usual_s)
            if in_flight * 2 >= self.value:
                self._grow()
            return False
        known = self._lessons >= _FIRST_LESSONS
        is_slow = known and took_s > usual_s * self._tolerance and took_s > _FASTEST_PULSE_S
        if not overloaded:
            self._learn(took_s)
        if overloaded or is_slow:
            return self._shrink(now)
        if in_flight * 2 >= self.value:
            self._grow()
        return False

    def _grow(self) -> None:
        self.value = min(self.value + 1.0 / self.value, self._options.most)

    def _shrink(self, now: float) -> bool:
        if now < self._steady_until:
            return False
        self._steady_until = now + min(max(self.usual_s, _FASTEST_PULSE_S), _SLOWEST_PULSE_S)
        self.value = max(self.value * self._options.decrease, self._options.least)
        return True

    def _learn(self, took_s: float) -> None:
        # A plain mean at first, then a slow one: an hour of slowness becomes usual, a minute does not.
        self._lessons += 1
        weight = max(1.0 / self._lessons, _LEARNING)
        # One slow call teaches at most as much as the slowest that is still usual.
        if self._lessons > _FIRST_LESSONS:
            took_s = min(took_s, self.usual_s * self._tolerance)
        self.usual_s += weight * (took_s - self.usual_s)

    def __repr__(self) -> str:
        return f"<AdaptiveBound {self.value:.1f}, usual {self.usual_s * 1000:.1f} ms>"

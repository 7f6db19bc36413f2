"""How much a call will probably spend: the amount held back before its answer is known. Pure.

Per tenant and operation the mean and mean deviation of what was spent are kept, moving towards each new
value; the estimate is the mean plus one deviation, so that most calls spend less than was held.
"""

from __future__ import annotations

from collections import OrderedDict

_STEP = 0.125  # as TCP smooths round trips (RFC 6298 section 2): recent calls count, one outlier does not
_MOST_REMEMBERED = 20_000


class Estimates:
    """Remembers what calls spent.

    Args:
        first: The estimate while nothing is known.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self._known: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def expect(self, tenant_id: str, operation: str) -> int:
        """What to hold back."""
        known = self._known.get((tenant_id, operation))
        if known is None:
            return self._first
        return max(0, round(known[0] + known[1]))

    def learn(self, tenant_id: str, operation: str, spent: int) -> None:
        """Note what a call spent."""
        key = (tenant_id, operation)
        known = self._known.pop(key, None)
        if known is None:
            self._known[key] = (float(spent), spent / 2)
        else:
            mean, deviation = known
            self._known[key] = (
                mean + _STEP * (spent - mean),
                deviation + 2 * _STEP * (abs(spent - mean) - deviation),
            )
        while len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)

"""How long to wait before a dead worker is started again. Pure; the clock is an argument.

The first death costs nobody anything, so its successor starts at once. Deaths that follow a short life
double the wait, so that a worker which cannot live does not eat the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_S: Final = 0.25
LONGEST_S: Final = 30.0
SHORT_LIFE_S: Final = 10.0


@dataclass(slots=True)
class Backoff:
    """Counts deaths after short lives."""

    in_a_row: int = 0

    def wait_s(self, lived_s: float) -> float:
        """Seconds to wait after the death of a worker that lived `lived_s` seconds."""
        if lived_s >= SHORT_LIFE_S:
            self.in_a_row = 0
            return 0.0
        self.in_a_row += 1
        return 0.0 if self.in_a_row == 1 else min(LONGEST_S, FIRST_S * 2.0 ** (self.in_a_row - 2))

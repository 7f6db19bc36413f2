"""One write being told to the other workers: who has to answer, and until when to wait for it.

A value with its bookkeeping. Sending and waiting are `membership.py`'s.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Announcement:
    """A write being told to the others.

    Attributes:
        waiting_for: Workers that have not answered yet, with the end of their lease by this clock.
        answered: Workers that have.
        needed: How many have to answer, known by name or not.
        doubt_ends_at: When no lease can last any more that the register may have forgotten.
    """

    waiting_for: dict[str, float] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    needed: int = 0
    doubt_ends_at: float = 0.0
    is_sent: bool = False
    is_heard: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, worker: str) -> None:
        """A worker answered."""
        self.answered.add(worker)
        self.waiting_for.pop(worker, None)
        self.settle()

    def settle(self) -> None:
        """See whether all have answered."""
        if self.is_sent and not self.waiting_for and len(self.answered) >= self.needed:
            self.is_heard.set()

    @property
    def ends_at(self) -> float:
        """When there is nothing left to wait for, whoever answers or not."""
        return max(self.doubt_ends_at, *self.waiting_for.values(), 0.0)

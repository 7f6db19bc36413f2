"""One write being told to the other workers, and one heartbeat: who has to answer, how long to wait for it.

Values with their bookkeeping. Sending and waiting are `membership.py`'s.
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
        refused: Those among them whose lease is not renewed any more, because another writer saw to it.
        needed: How many have to answer, known by name or not.
        doubt_ends_at: When no lease can last any more that the register may have forgotten.
    """

    waiting_for: dict[str, float] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    needed: int = 0
    doubt_ends_at: float = 0.0
    is_sent: bool = False
    is_heard: asyncio.Event = field(default_factory=asyncio.Event)

    def owe(self, name: str, ends_at: float) -> None:
        """A worker has to answer or to be waited for, as the register names it: "!" marks a refused one."""
        worker = name.removeprefix("!")
        if worker in self.answered:
            return
        self.waiting_for[worker] = ends_at
        if worker != name:
            self.refused.add(worker)

    @property
    def laggards(self) -> tuple[str, ...]:
        """Those who have not answered and whose lease may still go on."""
        return tuple(worker for worker in self.waiting_for if worker not in self.refused)

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


@dataclass(slots=True)
class Beat:
    """A heartbeat under way: it counts once it was both granted and heard."""

    sent_at: float
    is_granted: bool = False
    is_heard: bool = False

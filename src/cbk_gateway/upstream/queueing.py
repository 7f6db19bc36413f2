"""Waiting for a place among the calls that run: bounded in number and time, fair between tenants.

Places go round by tenant, so one tenant's thousand waiting calls delay another's single one by one turn.
How many places there are is decided elsewhere (`concurrency.py`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Protocol

from cbk_gateway.upstream.outcomes import Cause, Outcome, UpstreamFault

Turn = asyncio.Future[None]


class Places(Protocol):
    """How many calls may run now."""

    @property
    def value(self) -> float:
        """Compared with whole numbers of calls."""
        ...


class FairQueue:
    """Places and who waits for them.

    Args:
        places: Says how many calls may run now.
        max_waiting: Calls that may wait, over all tenants.
        patience_s: Longest wait.

    Attributes:
        running: Calls that hold a place.
    """

    __slots__ = ("_max_waiting", "_patience_s", "_places", "_waiting", "_waiting_count", "running")

    def __init__(self, places: Places, max_waiting: int, patience_s: float) -> None:
        self._places = places
        self._max_waiting = max_waiting
        self._patience_s = patience_s
        self._waiting: OrderedDict[str, deque[Turn]] = OrderedDict()
        self._waiting_count = 0
        self.running = 0

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return self._waiting_count

    def try_enter(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self._waiting_count or self.running >= self._places.value:
            return False
        self.running += 1
        return True

    async def enter(self, tenant: str) -> None:
        """Wait for a place.

        Raises:
            UpstreamFault: Too many wait, or it took too long; the outcome is `not_sent`.
        """
        if self.try_enter():
            return
        if self._waiting_count >= self._max_waiting:
            self._make_room(tenant)
        turn: Turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        self._waiting_count += 1
        try:
            async with asyncio.timeout(self._patience_s):
                await turn
        except TimeoutError:
            self._withdraw(tenant, turn)
            raise UpstreamFault(Cause.QUEUE_TIMEOUT, Outcome.NOT_SENT) from None
        except BaseException:
            self._withdraw(tenant, turn)
            raise

    def leave(self) -> None:
        """Give a place back."""
        self.running -= 1
        if self._waiting:
            self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self.running < self._places.value:
            tenant, turns = next(iter(self._waiting.items()))
            turn = turns.popleft()
            self._waiting_count -= 1
            if turns:
                self._waiting.move_to_end(tenant)
            else:
                del self._waiting[tenant]
            if not turn.done():
                self.running += 1
                turn.set_result(None)

    def _withdraw(self, tenant: str, turn: Turn) -> None:
        """Take a turn out that nobody waits for; a place it got meanwhile goes to the next."""
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self.leave()
            return
        turns = self._waiting.get(tenant)
        if turns is not None and turn in turns:
            turns.remove(turn)
            self._waiting_count -= 1
            if not turns:
                del self._waiting[tenant]

    def _make_room(self, tenant: str) -> None:
        """Refuse the newest call of the tenant with most waiting; that may be the one who asks.

        Raises:
            UpstreamFault: It is.
        """
        longest = max(self._waiting, key=lambda one: len(self._waiting[one]), default=tenant)
        turns = self._waiting.get(longest, deque())
        if longest == tenant or len(turns) <= len(self._waiting.get(tenant, ())) + 1:
            raise UpstreamFault(Cause.QUEUE_FULL, Outcome.NOT_SENT)
        turn = turns.pop()
        self._waiting_count -= 1
        if not turn.done():
            turn.set_exception(UpstreamFault(Cause.QUEUE_FULL, Outcome.NOT_SENT))

    def __repr__(self) -> str:
        return f"<FairQueue {self.running} running, {self._waiting_count} waiting>"

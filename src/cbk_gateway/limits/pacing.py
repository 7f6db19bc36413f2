"""Waiting for a token instead of being refused: one bounded queue per tenant, first come, first served.

Knows nothing of limits; it hands out turns. The one whose turn it is sleeps until its token is due.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from typing import Protocol


class Outcome(Protocol):
    """What the pacer must know of a refusal."""

    @property
    def wait_s(self) -> float:
        """Seconds until the same request may succeed; 0 when waiting does not help."""


@dataclass(slots=True)
class _Queue:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Pacer:
    """The queues of one worker.

    Args:
        most: Requests that may wait per tenant.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._queues: dict[str, _Queue] = {}

    @property
    def queues(self) -> Collection[str]:
        """Tenants for whom `has_queue` holds, as they come and go."""
        return self._queues

    def has_queue(self, tenant_id: str) -> bool:
        """Whether somebody waits: newcomers must not pass them."""
        return tenant_id in self._queues

    def length(self, tenant_id: str) -> int:
        """How many of a tenant's requests wait."""
        queue = self._queues.get(tenant_id)
        return queue.waiting if queue is not None else 0

    def may_wait(self, tenant_id: str, outcome: Outcome, patience_s: float) -> bool:
        """Whether a refused request can hope for its token in time and there is room to wait."""
        ahead = self.length(tenant_id)
        return 0 < outcome.wait_s * (ahead + 1) <= patience_s and ahead < self._most

    @contextlib.asynccontextmanager
    async def turn(self, tenant_id: str, patience_s: float) -> AsyncIterator[bool]:
        """Wait for one's turn; gives False at once when the queue is full, and when patience ends before."""
        queue = self._queues.setdefault(tenant_id, _Queue())
        if queue.waiting >= self._most:
            yield False
            return
        queue.waiting += 1
        has_turn = False
        try:
            try:
                async with asyncio.timeout(patience_s):
                    has_turn = await queue.lock.acquire()
            except TimeoutError:
                has_turn = False
            yield has_turn
        finally:
            if has_turn:
                queue.lock.release()
            queue.waiting -= 1
            if queue.waiting == 0:
                self._queues.pop(tenant_id, None)

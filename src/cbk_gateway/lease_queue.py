"""Repeated requests that wait together for one answer of the limiter's store.

When a lease is used up, every busy connection of a tenant finds that out in the same instant. Sending them
all through the full path would cost more than everything that leases save, so they wait here until the store
was asked once for all of them. One gets what was asked for, and the others are tried again: a slice may have
come along, or a refusal that holds for them too. Whom that does not help goes the full way. Nothing was drawn
or counted for a request while it waits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cbk_gateway.limits import Claim, Grant
from cbk_gateway.parts import Parts

if TYPE_CHECKING:
    from cbk_gateway.listener import GatewayProtocol

_MOST_ROUNDS: Final = 4

_Question = asyncio.Task[Grant | None]


class _Waiting:
    """One request that waits."""

    __slots__ = ("connection", "head", "rounds", "since")

    def __init__(self, head: bytes, connection: GatewayProtocol, since: float, rounds: int) -> None:
        self.head = head
        self.connection: GatewayProtocol | None = connection
        self.since = since
        self.rounds = rounds

    def leave(self) -> None:
        """Its client has gone."""
        self.connection = None


class LeaseQueue:
    """The requests of one worker that wait for the store.

    Attributes:
        since: While one is tried again: when it came, by the cache's clock. None otherwise.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._waiting: dict[_Question, list[_Waiting]] = {}
        self._grant: Grant | None = None
        self._rounds = 0
        self.since: float | None = None

    def wait(self, claim: Claim, head: bytes, connection: GatewayProtocol, now: float) -> bool:
        """Let a request wait for the store's answer; False when none is coming, or it waited enough."""
        question = self._parts.limiter.ask_for(claim) if self._rounds < _MOST_ROUNDS else None
        if question is None:
            return False
        waiting = _Waiting(head, connection, now, self._rounds + 1)
        known = self._waiting.get(question)
        if known is None:
            self._waiting[question] = [waiting]
            question.add_done_callback(self._try_again)
        else:
            known.append(waiting)
        connection.await_answer(waiting)
        return True

    def take(self) -> Grant | None:
        """What the store gave, for the first who is tried again."""
        grant, self._grant = self._grant, None
        return grant

    def _try_again(self, question: _Question) -> None:
        waiting = self._waiting.pop(question)
        self._grant = None if question.cancelled() else question.result()
        for one in waiting:
            if one.connection is not None:
                self.since, self._rounds = one.since, one.rounds
                try:
                    one.connection.retry(one.head)
                finally:
                    self.since, self._rounds = None, 0
        unused = self.take()
        if unused is not None:
            # Everybody has left, or went another way.
            self._parts.background.spawn(unused.refund())

"""Requests of one worker that want the same entry at the same time: one leads, the others follow.

Owns who waits for whom within a worker. What the leader does, and what waits in other workers, is elsewhere.

A flight takes followers only while it is certain that nothing older than their own beginning can come of it:
a write that this worker hears of makes the flight *void* (see `Flights.void`), after which it answers those
who joined before, and nobody else. A leader that cannot go on hands over to one follower, never to all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakSet

from cbk_gateway.cache.keys import depends_on

F = TypeVar("F")
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Answered(Generic[C]):
    """The leader has an answer for all.

    Attributes:
        copy: The answer.
        forwarded_status: The upstream's status when it was fetched, None when it was found.
        is_stored: Whether it was kept.
        stale: Why it is served past its lifetime, a bounded word; None when it is not.
    """

    copy: C
    forwarded_status: int | None
    is_stored: bool
    stale: str | None = None


@dataclass(frozen=True, slots=True)
class Declined:
    """There is nothing to share: everybody forwards. `reason` is a bounded word."""

    reason: str


@dataclass(frozen=True, slots=True)
class Promoted(Generic[F]):
    """The follower takes over: the flight, or with `fill` the fetch itself."""

    fill: F | None


Landing = Answered[C] | Declined | Promoted[F]


class Flight(Generic[C, F]):
    """One entry being looked for or fetched.

    Attributes:
        token: Its name towards other workers.
        session: The feed's session when it began; None when the feed was not live.
        is_void: Whether a write made its entry old since it began.
        is_joinable: Whether others may follow.
        is_beside_write: Whether a write was under way when the store was asked, so that only the store can
            tell whether what is fetched now is older than that write.
    """

    __slots__ = (
        "__weakref__",
        "_waiting",
        "account",
        "digest",
        "is_beside_write",
        "is_joinable",
        "is_void",
        "reads",
        "session",
        "token",
    )

    def __init__(
        self, account: str, digest: str, reads: tuple[str, ...], token: str, session: int | None
    ) -> None:
        self.account = account
        self.digest = digest
        self.reads = reads
        self.token = token
        self.session = session
        self.is_void = False
        self.is_joinable = session is not None
        self.is_beside_write = False
        self._waiting: deque[asyncio.Future[Landing[C, F]]] = deque()

    @property
    def followers(self) -> int:
        """How many wait."""
        return sum(not one.done() for one in self._waiting)

    def follow(self) -> asyncio.Future[Landing[C, F]]:
        """A place in the queue. Whoever gives it up after it was served must pass on what it got."""
        place: asyncio.Future[Landing[C, F]] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        return place

    def land(self, landing: Answered[C] | Declined) -> None:
        """Tell all followers."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(landing)

    def promote(self, fill: F | None) -> bool:
        """Hand over to one follower. Returns False when there is none."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(Promoted(fill))
                return True
        return False


class Flights(Generic[C, F]):
    """The flights of a worker, by what they fetch. `new_token` names a flight towards other workers."""

    def __init__(self, new_token: Callable[[], str]) -> None:
        self._new_token = new_token
        self._by_digest: dict[str, Flight[C, F]] = {}
        # Weakly, so that a fetch that was forgotten takes its flight with it.
        self._all: dict[str, WeakSet[Flight[C, F]]] = {}

    def joinable(self, digest: str) -> Flight[C, F] | None:
        """A flight that one may follow now."""
        flight = self._by_digest.get(digest)
        return flight if flight is not None and flight.is_joinable and not flight.is_void else None

    def open(self, account: str, digest: str, reads: tuple[str, ...], session: int | None) -> Flight[C, F]:
        """Begin a flight; later requests follow this one."""
        flight: Flight[C, F] = Flight(account, digest, reads, self._new_token(), session)
        self._by_digest[digest] = flight
        self._all.setdefault(account, WeakSet()).add(flight)
        return flight

    def seal(self, flight: Flight[C, F]) -> None:
        """Let nobody follow any more. The flight goes on, and still hears of writes."""
        if self._by_digest.get(flight.digest) is flight:
            del self._by_digest[flight.digest]
        flight.is_joinable = False

    def close(self, flight: Flight[C, F]) -> None:
        """End a flight: nothing more will come of it. May be called twice."""
        self.seal(flight)
        of_account = self._all.get(flight.account)
        if of_account is not None:
            of_account.discard(flight)
            if not of_account:
                del self._all[flight.account]

    def void(self, account: str, types: frozenset[str]) -> None:
        """Take it into account that a write changed these types."""
        for flight in list(self._all.get(account, ())):
            if depends_on(flight.reads, types):
                flight.is_void = True

    def void_all(self) -> None:
        """Take it into account that writes may have passed unheard."""
        for flights in self._all.values():
            for flight in list(flights):
                flight.is_void = True

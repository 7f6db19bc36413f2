"""The cache as the pipeline sees it: recall an answer, announce a write, drop what is old.

Owns the order in which the tiers are asked and who waits for whom. Every rule it applies stands in a module
of its own: names in `keys.py`, what may be asked in `ask.py`, what may be kept in `storability.py`, when
memory may be used in `membership.py`, what surrounds a write in `writes.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cbk_gateway.breaks import Breaks
from cbk_gateway.cache import status
from cbk_gateway.cache.answers import Hit, Pass
from cbk_gateway.cache.ask import Ask, Asks
from cbk_gateway.cache.copy import Copy, Wish
from cbk_gateway.cache.fill import Fill
from cbk_gateway.cache.flight import Answered, Declined, Flight, Landing, Promoted
from cbk_gateway.cache.holding import Holding, held
from cbk_gateway.cache.inventory import Shown
from cbk_gateway.cache.keys import CacheKeyParts
from cbk_gateway.cache.membership import Membership
from cbk_gateway.cache.mention import Mention
from cbk_gateway.cache.observer import CacheObserver, SilentObserver
from cbk_gateway.cache.options import CacheOptions
from cbk_gateway.cache.shared import is_shared_type
from cbk_gateway.cache.shelf import Look, Word
from cbk_gateway.cache.tiers import Tiers, steady
from cbk_gateway.cache.writes import WriteMark, Writes
from cbk_gateway.operation import ALL_TYPES, Operation
from cbk_gateway.store import Store, StoreFault

_POLL_S: Final = 0.25


class Cache:
    """One worker's cache over the tier that all workers share.

    Args:
        store: The store; stays the caller's to close, after `stop`.
        options: See `CacheOptions`.
        observer: Who counts; None for nobody.
        clock: Seconds that only grow.
        breaks: Noted when a `Holding` may not be given any more as it was.
    """

    def __init__(
        self,
        store: Store,
        options: CacheOptions,
        observer: CacheObserver | None = None,
        *,
        clock: Callable[[], float] = steady,
        breaks: Breaks | None = None,
    ) -> None:
        self._options = options
        self._observer: CacheObserver = observer if observer is not None else SilentObserver()
        self._tiers = Tiers(store, options, self._observer, clock, breaks)
        self._writes = Writes(self._tiers, is_cluster=store.is_cluster)
        self._membership = Membership(store, self._tiers, self._writes.recover)
        self._asks = Asks(options)

    def __repr__(self) -> str:
        return f"<Cache {self._tiers.worker} {self._tiers.memory!r}>"

    @property
    def now(self) -> Callable[[], float]:
        """The cache's clock: seconds that only grow."""
        return self._tiers.now

    @property
    def is_live(self) -> bool:
        """Whether this worker's own memory may be served from: the invalidation feed is live."""
        return self._tiers.session(self._tiers.now()) is not None

    async def start(self) -> None:
        """Join the other workers. A store that is away is joined when it comes back."""
        self._writes.start(self._membership)
        await self._membership.start()

    async def stop(self) -> None:
        """Leave the other workers and end all background work. Writes should have ended before."""
        for fill in list(self._tiers.fills):
            fill.abandon()
        await self._tiers.settle(self._options.lease_s * 2)
        await self._writes.stop()
        await self._membership.stop(is_clean=self._writes.are_all_told)
        await self._tiers.settle(1.0)

    def recall_now(
        self,
        operation: Operation,
        parts: CacheKeyParts,
        *,
        if_none_match: str | None = None,
        accept_encoding: str | None = None,
    ) -> Hit | None:
        """The answer from this worker's own memory, or None. Never waits and asks nobody."""
        holding = self.hold(operation, parts, if_none_match, accept_encoding)
        return None if holding is None else holding.taken()

    def hold(
        self, operation: Operation, parts: CacheKeyParts, if_none_match: str | None, coding: str | None
    ) -> Holding | None:
        """Hold on to what memory answers now (arguments as for `recall`). Counts nothing."""
        ask = self._asks.of(operation, parts)
        return (
            None if isinstance(ask, str) else held(self._tiers, ask.digest, ask.wish(if_none_match, coding))
        )

    async def recall(
        self,
        operation: Operation,
        parts: CacheKeyParts,
        *,
        bypass: bool = False,
        if_none_match: str | None = None,
        accept_encoding: str | None = None,
    ) -> Hit | Fill | Pass:
        """Find an answer, or say who has to fetch it.

        Waits, for at most `collapse_wait_s`, while another request of any worker fetches it.

        Args:
            operation: What is asked for.
            parts: What the answer depends on beside path and query.
            bypass: Whether the caller wants a fresh answer that leaves no trace here.
            if_none_match: The request's header of that name.
            accept_encoding: The request's header of that name.
        """
        ask = self._asks.of(operation, parts)
        if isinstance(ask, str):
            return self._pass("method" if operation.method != "GET" else "bypass", ask)
        if bypass:
            return self._pass("bypass", "asked")
        wish = ask.wish(if_none_match, accept_encoding)
        holding = held(self._tiers, ask.digest, wish)
        if holding is not None:
            return holding.taken()
        now = self._tiers.now()
        if not self._membership.is_open(now):
            return self._pass("miss", "store-away")
        if self._tiers.is_declined(ask.digest, now):
            return self._pass("miss", "uncacheable")
        if self._tiers.shared.may_serve(ask):
            hit = await self._from_shared(ask, wish)
            if hit is not None:
                return hit
        return await self._coalesce(ask, wish, now + self._options.collapse_wait_s)

    async def begin_write(
        self, account: str, invalidates: frozenset[str], *, is_open_ended: bool = False
    ) -> WriteMark:
        """Make old what a write may change. To be awaited before the write is forwarded.

        Args:
            account: The account it acts on.
            invalidates: The types it may change; `ALL_TYPES` among them for any.
            is_open_ended: Whether its effects become known before its answer ends: a stream, a model run.
        """
        return await self._writes.begin(account, invalidates, is_open_ended=is_open_ended)

    async def purge(
        self, account: str, types: frozenset[str] = frozenset(), identifier: str | None = None
    ) -> int | None:
        """Drop an account's answers that depend on any of `types`, or all; with everybody's copies of those.

        With an id, drop only the answers of these types that speak of it, and say how many the store had.

        Raises:
            StoreFault: The store is away; they are dropped here now and everywhere when it is back.
        """
        if self._options.shared_platform and (not types or any(map(is_shared_type, types))):
            await self._tiers.shared.purge()
        if identifier is not None:
            return await self._writes.purge_mentions(account, Mention(types, identifier))
        await self._writes.purge(account, types or frozenset({ALL_TYPES}), "purge")
        return None

    async def show(
        self,
        account: str,
        types: frozenset[str] = frozenset(),
        identifier: str | None = None,
        limit: int = 1000,
    ) -> list[Shown]:
        """What the store keeps for an account, of these types and about this id, if they are given.

        Raises StoreFault when the store is away.
        """
        await self._tiers.kept()
        return await self._tiers.inventory.shown(account, Mention(types, identifier), limit)

    # Asking the tiers in order.

    async def _from_shared(self, ask: Ask, wish: Wish) -> Hit | None:
        try:
            copy = await self._tiers.shared.find(ask)
        except StoreFault:
            self._membership.note_fault()
            return None
        if copy is None:
            return None
        now = self._tiers.now()
        hit = copy.hit(now, wish, status.hit(copy.ttl_s(now), detail="shared"))
        if hit is not None:
            self._observer.hit("shared")
        return hit

    def _pass(self, forward: str, reason: str) -> Pass:
        self._observer.passed(reason)
        return Pass(status.forwarded(forward, detail=reason), reason)

    async def _coalesce(self, ask: Ask, wish: Wish, deadline: float) -> Hit | Fill | Pass:
        tiers = self._tiers
        flight = tiers.flights.joinable(ask.digest) if self.is_live else None
        if flight is None:
            flight = tiers.flights.open(ask.account, ask.digest, ask.reads, tiers.session(tiers.now()))
            return await self._lead(flight, ask, wish, deadline)
        while True:
            landing = await self._follow(flight, deadline)
            if landing is None:
                # Whoever comes now should not wait as long for a fetch that may have been forgotten.
                tiers.flights.seal(flight)
                return self._pass("miss", "collapse-timeout")
            if isinstance(landing, Declined):
                return self._pass("miss", landing.reason)
            if isinstance(landing, Promoted):
                if landing.fill is None:
                    return await self._lead(flight, ask, wish, deadline)
                self._observer.missed("handover")
                fill = landing.fill.passed_to(ask, wish)
                tiers.fills.add(fill)
                return fill
            return self._shared(landing, wish)

    def _shared(self, landing: Answered[Copy], wish: Wish) -> Hit | Pass:
        """The answer of another request's fetch or look."""
        now = self._tiers.now()
        said = None
        if landing.stale is not None:
            said = status.hit(landing.copy.ttl_s(now), detail=landing.stale, is_stale=True)
        elif landing.forwarded_status is not None:
            said = status.forwarded(
                "miss",
                status=landing.forwarded_status,
                ttl_s=landing.copy.ttl_s(now) if landing.is_stored else None,
                is_stored=landing.is_stored,
                is_collapsed=True,
            )
        hit = landing.copy.hit(now, wish, said)
        if hit is None:
            return self._pass("miss", "representation")
        if landing.stale is not None:
            self._observer.stale_served("error" if landing.stale == status.IF_ERROR else "revalidate")
        elif said is None:
            self._observer.hit("l2")
        else:
            self._observer.collapsed()
        return hit

    async def _follow(self, flight: Flight[Copy, Fill], deadline: float) -> Landing[Copy, Fill] | None:
        """Wait for the leader; None when the time is up. What comes too late is passed on."""
        place = flight.follow()
        try:
            async with asyncio.timeout(max(0.0, deadline - self._tiers.now())):
                return await place
        except TimeoutError:
            if place.done() and not place.cancelled():
                return place.result()
            return None
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                landing = place.result()
                if isinstance(landing, Promoted):
                    self._step_down(flight, landing.fill)
            raise

    def _step_down(self, flight: Flight[Copy, Fill], fill: Fill | None) -> None:
        """A leader that cannot go on: the next follower leads, or nobody does."""
        if flight.promote(fill):
            return
        self._tiers.flights.close(flight)
        self._tiers.spawn(self._tiers.release(flight.account, flight.digest, flight.token))

    async def _lead(
        self, flight: Flight[Copy, Fill], ask: Ask, wish: Wish, deadline: float
    ) -> Hit | Fill | Pass:
        """Look in the store for everybody who follows, until there is an answer or the right to fetch it."""
        try:
            while True:
                sent_at = self._tiers.now()
                look = await self._tiers.shelf.look(
                    ask.account, ask.digest, ask.reads, flight.token, wants_lease=ask.may_fill
                )
                done = self._seen(flight, ask, wish, look, sent_at)
                if done is not None:
                    return done
                remaining = deadline - self._tiers.now()
                if remaining <= 0:
                    self._step_down(flight, None)
                    return self._pass("miss", "collapse-timeout")
                await self._tiers.wait_for_fill(ask.digest, min(remaining, _POLL_S))
        except StoreFault:
            self._membership.note_fault()
            return self._nothing(flight, "store-away")
        except BaseException:
            self._step_down(flight, None)
            raise

    def _seen(
        self, flight: Flight[Copy, Fill], ask: Ask, wish: Wish, look: Look, sent_at: float
    ) -> Hit | Fill | Pass | None:
        """What a look means for the leader and its followers; None to wait and look again."""
        if look.word is Word.HELD:
            return self._nothing(flight, "write-open")
        if look.word is Word.BEHIND:
            self._membership.hurry()
            return self._nothing(flight, "behind")
        copy = ask.copy(look.entry, sent_at, look.now_ms) if look.entry is not None else None
        if look.word is Word.HIT:
            return self._found(flight, wish, copy)
        if copy is not None and look.word in {Word.OWN, Word.WAIT}:
            hit = self._stale_while_revalidate(flight, ask, wish, look, copy)
            if hit is not None:
                return hit
        if look.word is Word.WAIT:
            return None
        if look.word is Word.MISS:
            return self._nothing(flight, "representation")
        reason = "miss" if copy is None else "stale"
        return self._fill(flight, ask, wish, look=look, stale=copy, sent_at=sent_at, reason=reason)

    def _found(self, flight: Flight[Copy, Fill], wish: Wish, copy: Copy | None) -> Hit | Pass:
        if copy is None:
            # Kept by a gateway with another encryption key: nothing that this one could read or replace.
            return self._nothing(flight, "unreadable")
        self._tiers.admit(flight, copy)
        self._tiers.flights.close(flight)
        flight.land(Answered(copy, None, is_stored=True))
        hit = copy.hit(self._tiers.now(), wish)
        if hit is None:
            return self._pass("miss", "representation")
        self._observer.hit("l2")
        return hit

    def _nothing(self, flight: Flight[Copy, Fill], reason: str) -> Pass:
        self._tiers.flights.close(flight)
        flight.land(Declined(reason))
        return self._pass("miss", reason)

    def _fill(
        self,
        flight: Flight[Copy, Fill],
        ask: Ask,
        wish: Wish,
        *,
        look: Look,
        stale: Copy | None,
        sent_at: float,
        reason: str,
    ) -> Fill:
        if look.is_write_open:
            # What is fetched now may be older than the write that is ending: for those who wait already,
            # and for nobody who comes later, except by way of the store, which knows when it ended.
            flight.is_joinable, flight.is_beside_write = False, True
        self._observer.missed(reason)
        fill = Fill(
            self._tiers,
            flight,
            ask,
            wish,
            vector=look.vector,
            stale=stale,
            started_at=sent_at,
            reason=reason,
        )
        self._tiers.fills.add(fill)
        return fill

    def _stale_while_revalidate(
        self, flight: Flight[Copy, Fill], ask: Ask, wish: Wish, look: Look, copy: Copy
    ) -> Hit | None:
        now = self._tiers.now()
        if now >= copy.fresh_until + self._options.stale_while_revalidate_s:
            return None
        said = status.hit(copy.ttl_s(now), detail=status.REVALIDATING, is_stale=True)
        hit = copy.hit(now, wish, said)
        if hit is None:
            return None
        self._tiers.flights.seal(flight)  # not closed: the refresh has to hear of writes
        flight.land(Answered(copy, None, is_stored=True, stale=status.REVALIDATING))
        self._observer.stale_served("revalidate")
        if look.word is not Word.OWN:
            return hit
        # Without a stale copy: nobody waits for what a refresh that fails might give instead.
        refresh = self._fill(flight, ask, Wish(), look=look, stale=None, sent_at=now, reason="stale")
        return Hit(hit.status, hit.headers, hit.body, hit.cache_status, hit.age_s, refresh)

"""The list of revocations in this process, kept equal to the store's.

A push message wakes the reader at once; a look every `poll_s` seconds makes up for lost messages, so a
revocation reaches every process within a second either way. Without the store:

- a process that has never read the list judges no token (`is_usable` is false): it cannot know;
- one that has keeps judging by the last known list, unless `max_age_s` is set and has passed;
- `revoke` and `lift` fail, and say so: nothing is revoked in one process only.

When the store has lost the list (flushed, or a replica that was behind took over), every running process
writes back the revocations it knows, so losing it for good takes losing all processes as well.
What a revocation does to remembered tokens and open streams is decided by the listener.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog
from redis.exceptions import RedisClusterException, RedisError

from cbk_gateway.breaks import Breaks
from cbk_gateway.identity.observer import IdentityObserver
from cbk_gateway.identity.revocation import Revocation, RevocationList
from cbk_gateway.identity.revocation_store import CHANNEL, NOWHERE, Changes, RevocationStore
from cbk_gateway.store import Store, StoreFault

_log = structlog.get_logger(__name__)


class RevocationFeed:
    """Revocations from everywhere.

    Args:
        store: The shared store; None makes a list of this process alone.
        on_revoked: Called for each revocation that is new or wider here.
        observer: Gets the events.
        clock: Epoch seconds.
        monotonic: Monotonic seconds.
        poll_s: Seconds between two looks without a push.
        max_age_s: How long an unconfirmed list is good; None for ever.

    Attributes:
        known: The list in force in this process.
        is_usable: Whether tokens may be judged by it. A plain attribute: the fast path reads it.
    """

    def __init__(
        self,
        store: Store | None,
        on_revoked: Callable[[Revocation], None],
        observer: IdentityObserver,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        poll_s: float,
        max_age_s: float | None,
        breaks: Breaks,
    ) -> None:
        self._breaks = breaks
        self.known = RevocationList()
        self.is_usable = store is None
        self._store = store
        self._records = RevocationStore(store) if store is not None else None
        self._on_revoked = on_revoked
        self._observer = observer
        self._clock = clock
        self._monotonic = monotonic
        self._poll_s = poll_s
        self._max_age_s = max_age_s
        self._position = NOWHERE
        self._confirmed_at: float | None = None
        self._is_confirmed = False
        self._reading = asyncio.Lock()
        self._nudge = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the list and follow it from now on. A store that is away stops nothing."""
        if self._store is not None and not self._tasks:
            await self.read()
            self._tasks = [
                asyncio.create_task(self._follow(), name="revocations: follow"),
                asyncio.create_task(self._listen(self._store), name="revocations: listen"),
            ]

    async def stop(self) -> None:
        """End the background work."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            # redis-py 8.1 swallows a cancellation that arrives while it subscribes: ask until it is heard.
            while not task.done():
                task.cancel()
                await asyncio.wait((task,), timeout=0.1)

    async def revoke(self, revocation: Revocation) -> Revocation:
        """Put one in force here and everywhere; gives it as it is in force.

        Raises:
            StoreFault: It may not have reached the others, so it is not in force for certain.
        """
        if self._records is not None:
            revocation = await self._records.revoke(revocation, self._clock())
        self._apply(revocation)
        return revocation

    async def lift(self, revocation_id: str) -> bool:
        """Take one back here and everywhere; False if there was none of that id.

        Raises:
            StoreFault: It may still be in force.
        """
        if self._records is None:
            return self.known.drop(revocation_id) is not None
        was_there = await self._records.lift(revocation_id)
        self.known.drop(revocation_id)
        return was_there

    async def listing(self) -> tuple[Revocation, ...]:
        """Those in force, newest first; as the store has them when there is one.

        Raises:
            StoreFault: The store gave no answer.
        """
        if self._records is None:
            self.known.prune(self._clock())
            return self.known.entries()
        stored = RevocationList()
        stored.replace((await self._records.changes(NOWHERE)).revocations)
        stored.prune(self._clock())
        return stored.entries()

    async def read(self) -> bool:
        """Catch up with the store; False if it gave no answer."""
        if self._records is None:
            return True
        async with self._reading:
            try:
                changes = await self._records.changes(self._position)
                if changes.is_complete:
                    await self._take_over(self._records, changes)
                else:
                    for revocation in changes.revocations:
                        self._apply(revocation)
            except StoreFault as fault:
                self._unconfirmed(fault)
                return False
            self._position = changes.position
            self._confirmed()
            return True

    async def _take_over(self, records: RevocationStore, changes: Changes) -> None:
        if self._position is not NOWHERE and changes.position.is_before(self._position):
            stored = {revocation.id for revocation in changes.revocations}
            missing = [one for one in self.known.entries() if one.id not in stored]
            _log.error("revocations_lost_by_store", written_back=len(missing))
            for revocation in missing:
                await records.revoke(revocation, self._clock())
            for revocation in changes.revocations:
                self._apply(revocation)
            return
        for revocation in self.known.replace(changes.revocations):
            self._announce(revocation)

    def _apply(self, revocation: Revocation) -> None:
        if self.known.put(revocation):
            self._announce(revocation)

    def _announce(self, revocation: Revocation) -> None:
        self._observer.revocation_applied(revocation.kind)
        self._on_revoked(revocation)

    def _confirmed(self) -> None:
        self.known.prune(self._clock())
        self._confirmed_at = self._monotonic()
        if not self._is_confirmed:
            _log.info("revocations_confirmed", count=len(self.known))
        self._is_confirmed = self.is_usable = True
        self._observer.revocations_confirmed(len(self.known), is_confirmed=True)

    def _unconfirmed(self, fault: StoreFault) -> None:
        if self._is_confirmed or self._confirmed_at is None:
            _log.warning("revocations_unconfirmed", trouble=fault.trouble, known=len(self.known))
        self._is_confirmed = False
        if self._confirmed_at is None:
            self.is_usable = False
        elif self._max_age_s is not None:
            self.is_usable = self._monotonic() - self._confirmed_at < self._max_age_s
        if not self.is_usable:
            self._breaks.note()
        self._observer.revocations_confirmed(len(self.known), is_confirmed=False)

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._nudge.wait()
            self._nudge.clear()
            await self.read()

    async def _listen(self, store: Store) -> None:
        while True:
            try:
                async with store.pubsub() as subscription:
                    await subscription.subscribe(CHANNEL)
                    # What happened before the subscription stood was not pushed to us.
                    self._nudge.set()
                    while True:
                        message = await subscription.get_message(ignore_subscribe_messages=True, timeout=30.0)
                        if message is not None:
                            self._nudge.set()
            except (RedisError, RedisClusterException, OSError):
                # Looking at intervals goes on meanwhile; the reader reports what is wrong.
                await asyncio.sleep(self._poll_s)

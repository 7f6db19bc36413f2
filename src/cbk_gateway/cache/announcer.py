"""How a worker tells the others of a write, and waits until they have obeyed.

Owns the announcements that are under way. Why obeying is enough is proved in `membership.py`; how a worker
that hears one obeys it is written there too. What surrounds a write is `writes.py`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson
import structlog

from cbk_gateway.cache.announcement import Announcement
from cbk_gateway.cache.feed import set_within
from cbk_gateway.cache.options import Consistency
from cbk_gateway.cache.shelf import FEED, Telling, script
from cbk_gateway.cache.tiers import Tiers
from cbk_gateway.store import Store, StoreFault

_log = structlog.get_logger(__name__)

LEASES: Final = "cbkgw:{cache-feed}:leases"
LIVES: Final = "cbkgw:{cache-feed}:lives"
BIRTH: Final = "cbkgw:{cache-feed}:birth"
DRIFT: Final = 0.02
"""How much two machines' clocks may differ in rate."""

_ACK_PATIENCE_S: Final = 0.25
_UNCOUNTABLE: Final = 1 << 30

Teller = Callable[[Telling], Awaitable[list[Any]]]
"""Runs a script that tells the others; raises StoreFault when they may or may not have been told."""


class Announcer:
    """One worker's announcements.

    Args:
        store: The store.
        tiers: Whose worker this is.
        is_hearing: Whether this worker hears the feed, and counts among those who hear an announcement.
    """

    def __init__(self, store: Store, tiers: Tiers, is_hearing: Callable[[], bool]) -> None:
        self._store = store
        self._tiers = tiers
        self._options = tiers.options
        self._is_hearing = is_hearing
        self._script = script(store, "announce", prelude="register")
        self._leave = script(store, "leave", prelude=None)
        self._under_way: dict[int, Announcement] = {}
        self._count = 0

    async def announce(
        self,
        account: str,
        types: tuple[str, ...],
        identifier: str | None = None,
        *,
        tell: Teller | None = None,
    ) -> Announcement:
        """Tell the others what is old, after it was made so in the store.

        Args:
            account: Whose it is.
            types: The types whose answers are old.
            identifier: With it, old are only answers *of* these types (of any, when there are none) that
                speak of this id; the store has dropped them.
            tell: Another script to tell them by, one that first makes these types old.

        Raises:
            StoreFault: They may or may not have been told.
        """
        self._count += 1
        number = self._count
        announcement = Announcement()
        self._under_way[number] = announcement
        words = [self._tiers.worker, number, account, types]
        message = b"I " + orjson.dumps(words if identifier is None else [*words, identifier])
        lease_ms = int(self._options.lease_s * 1000)
        telling = Telling((LEASES, BIRTH), (FEED, message, self._tiers.worker, lease_ms))
        try:
            reply = await (self._tell(telling) if tell is None else tell(telling))
        except BaseException:
            self._under_way.pop(number, None)
            raise
        self._told(announcement, reply)
        if announcement.is_heard.is_set() or self._options.consistency is Consistency.BOUNDED:
            self._under_way.pop(number, None)
        return announcement

    async def obeyed(self, announcement: Announcement) -> None:
        """Wait until no other worker can serve what was announced to be old. Raises nothing."""
        if announcement.is_heard.is_set() or self._options.consistency is Consistency.BOUNDED:
            return
        started = self._tiers.now()
        if not await set_within(announcement.is_heard, _ACK_PATIENCE_S):
            await self._refuse(announcement)
            await set_within(announcement.is_heard, max(0.0, announcement.ends_at - self._tiers.now()))
        self._forget(announcement)
        self._tiers.observer.write_waited(self._tiers.now() - started)

    def answered(self, worker: str, numbers: Sequence[int]) -> None:
        """Another worker has obeyed these announcements."""
        for number in numbers:
            announcement = self._under_way.get(number)
            if announcement is not None:
                announcement.note(worker)

    async def leave(self, how: str, *workers: str) -> list[int]:
        """Take leases back: see `leave.lua`.

        Raises:
            StoreFault: They may or may not have been.
        """
        reply: list[int] = await self._leave(keys=(LEASES, LIVES), args=(how, *workers))
        return reply

    async def _tell(self, telling: Telling) -> list[Any]:
        reply: list[Any] = await self._script(keys=telling.keys, args=telling.args)
        return reply

    def _told(self, announcement: Announcement, reply: list[Any]) -> None:
        """Note who has to answer."""
        now_ms, receivers, doubt, doubt_ends_ms = reply[:4]
        now = self._tiers.now()
        for worker, ends_ms in zip(reply[4::2], reply[5::2], strict=True):
            announcement.owe(worker.decode(), now + (ends_ms - now_ms) / 1000 * (1 + DRIFT))
        if doubt:
            announcement.doubt_ends_at = now + (doubt_ends_ms - now_ms) / 1000 * (1 + DRIFT)
            # After a restart nobody's answers are enough: those who are missing cannot be counted.
            # On a Cluster a node counts its own subscribers only.
            is_countable = doubt == b"flush" and not self._store.is_cluster
            announcement.needed = receivers - self._is_hearing() if is_countable else _UNCOUNTABLE
        announcement.is_sent = True
        announcement.settle()

    async def _refuse(self, announcement: Announcement) -> None:
        """See to it that no lease of those who do not answer goes on; how long each lasts is known then."""
        laggards = announcement.laggards
        if not laggards:
            return
        _log.warning("cache_feed_unanswered", workers=len(laggards))
        try:
            now_ms, *ends = await self.leave("refused", *laggards)
        except StoreFault:
            return
        now = self._tiers.now()
        for worker, ends_ms in zip(laggards, ends, strict=True):
            if worker in announcement.waiting_for and ends_ms:
                announcement.waiting_for[worker] = now + (ends_ms - now_ms) / 1000 * (1 + DRIFT)

    def _forget(self, announcement: Announcement) -> None:
        for number, one in list(self._under_way.items()):
            if one is announcement:
                del self._under_way[number]

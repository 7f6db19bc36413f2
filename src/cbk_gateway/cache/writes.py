"""Writes under way: their marks in the store, their announcements, and what is made up for after an outage.

Owns the order of things around one write. What other workers do on hearing of it is `membership.py`'s.

**The order.** `begin`: bump the epochs, leave a mark, announce, all in one script (on a Cluster in two, one
after the other, since the account and the feed lie on different nodes); drop here. Only then is the write
forwarded. `finish`: bump again and take the mark away; wait until all have answered the announcement. Only
then does the write's answer leave. Between the two the mark keeps answers fetched meanwhile, which may
show either state, out of every cache; so it does not matter if the second bump fails or never comes: the mark
outlives its writer by `mark_lease_s`, keeps holding answers back, and its end is a bump. A writer that finds
its mark gone at the end, by a flush or because it was itself too late, announces once more. While a write is
open-ended, or may change anything, nothing of the account is served either, because its effects become known
to its client while it runs; such a write is forwarded only when all workers have answered.

**The store away.** Writes go on; reads are not cached. A write that could not be announced is kept in
`_blind`, and its answer waits, for at most one lease, until it could be or until no worker can hold a lease
from before (strict only). On the first heartbeat after the outage the types are bumped and announced, before
this worker serves anything. Three guards stand for what this worker cannot do: a server that was restarted,
failed over or flushed has another run id or no epochs, and then nothing of before counts; a worker that died
with blind writes is noticed by its missing heartbeat, and then nothing of before counts; and a worker that
was away for about a lease is quiet until such a death would have been noticed. What remains is a worker that
is cut off from a store which the others still reach: they cannot know of its writes until it is back, or is
taken for dead `death_after_s` later.
"""

from __future__ import annotations

import asyncio

import structlog

from cbk_gateway.cache.announcement import Announcement
from cbk_gateway.cache.announcer import Announcer
from cbk_gateway.cache.feed import end
from cbk_gateway.cache.membership import Membership
from cbk_gateway.cache.mention import Mention
from cbk_gateway.cache.tiers import Tiers
from cbk_gateway.operation import ALL_TYPES
from cbk_gateway.store import StoreFault

_log = structlog.get_logger(__name__)

_RETRY_S = 0.05


class WriteMark:
    """One write under way. Got from `Cache.begin_write`; ended by `finish`."""

    __slots__ = (
        "_writes",
        "account",
        "announcement",
        "is_known",
        "kind",
        "name",
        "renewed_at",
        "task",
        "types",
    )

    def __init__(self, writes: Writes, account: str, types: tuple[str, ...], kind: str, name: str) -> None:
        self._writes = writes
        self.account = account
        self.types = types
        self.kind = kind
        self.name = name
        self.is_known = False
        self.announcement: Announcement | None = None
        self.renewed_at = 0.0
        self.task: asyncio.Task[None] | None = None

    async def finish(self) -> None:
        """End the write: returns when its answer may leave. Idempotent; raises nothing of its own.

        Call it whatever became of the write, above all when that is not known. The work goes on when the
        caller is cancelled.
        """
        await asyncio.shield(self.ending())

    def ending(self) -> asyncio.Task[None]:
        """The same as a task, begun by the first call."""
        if self.task is None:
            self.task = self._writes.end(self)
        return self.task

    def __repr__(self) -> str:
        return f"<WriteMark {self.account} {' '.join(self.types)} {self.kind}>"


class Writes:
    """The writes of one worker.

    Args:
        tiers: Whose worker this is.
        is_cluster: Whether the store is one, where a script cannot reach an account and the feed at once.
    """

    def __init__(self, tiers: Tiers, *, is_cluster: bool = False) -> None:
        self._tiers = tiers
        self._is_cluster = is_cluster
        self._membership: Membership | None = None
        self._open: dict[str, WriteMark] = {}
        self._blind: dict[str, set[str]] = {}
        self._renewer: asyncio.Task[None] | None = None

    @property
    def are_all_told(self) -> bool:
        """Whether the others know of every write."""
        return not self._blind and not self._open

    def start(self, membership: Membership) -> None:
        """Begin to keep marks alive."""
        self._membership = membership
        self._renewer = asyncio.get_running_loop().create_task(self._renew_forever())

    async def stop(self) -> None:
        """Stop keeping marks alive. Those left end with their lease."""
        if self._renewer is not None:
            await end((self._renewer,))
            self._renewer = None

    async def begin(self, account: str, types: frozenset[str], *, is_open_ended: bool) -> WriteMark:
        """Make `types` old everywhere and leave a mark. Returns when the write may be forwarded."""
        # While it is open nothing of the account is served, so the copies of every type have to go.
        kind, changed = ("o", frozenset({ALL_TYPES})) if is_open_ended or ALL_TYPES in types else ("s", types)
        mark = WriteMark(self, account, tuple(sorted(changed)), kind, self._tiers.new_token())
        self._open[mark.name] = mark
        mark.renewed_at = self._tiers.now()
        try:
            await self._tell(mark)
            if kind == "o" and mark.announcement is not None:
                await self._announcer.obeyed(mark.announcement)
        except StoreFault:
            self._away(mark)
        except BaseException:
            # Cancelled: the mark may stand, so it must end like any other.
            mark.task = self.end(mark)
            raise
        return mark

    def end(self, mark: WriteMark) -> asyncio.Task[None]:
        """The end of a write, in a task of its own."""
        return self._tiers.spawn(self._end(mark))

    async def purge(self, account: str, types: frozenset[str], cause: str) -> None:
        """Make types old everywhere, with no write.

        Raises:
            StoreFault: The store is away; it will be made up for when it is back.
        """
        ordered = tuple(sorted(types))
        try:
            await self._tiers.shelf.finish_write(account, "s", "", ordered)
            self._tiers.drop(account, ordered, cause)
            announcement = await self._announcer.announce(account, ordered)
        except StoreFault:
            self._tiers.drop(account, ordered, cause)
            self._remember(account, ordered)
            raise
        await self._announcer.obeyed(announcement)

    async def purge_mentions(self, account: str, mention: Mention) -> int:
        """Drop the answers that speak of one object, and no others; returns how many the store had.

        The order is a write's: the store first, so that whoever is told finds them gone there. Fetches that
        were under way are not kept (`fence.lua`) and enter no memory, so all that is served afterwards was
        fetched after this began.

        Raises:
            StoreFault: The store is away. When it is back, all answers of these types will be dropped.
        """
        ordered = tuple(sorted(mention.types))
        await self._tiers.kept()
        try:
            dropped = await self._tiers.inventory.drop(account, mention)
            self._tiers.drop_mentions(account, mention)
            announcement = await self._announcer.announce(account, ordered, mention.identifier)
        except StoreFault:
            changed = ordered or (ALL_TYPES,)
            self._tiers.drop(account, changed, "purge")
            self._remember(account, changed)
            raise
        await self._announcer.obeyed(announcement)
        return dropped

    async def recover(self) -> None:
        """Make up for an outage: every write that could not be told of is told now.

        Raises:
            StoreFault: The store is away again.
        """
        for mark in list(self._open.values()):
            if not mark.is_known:
                await self._tell(mark)
        for account in list(self._blind):
            ordered = tuple(sorted(self._blind[account]))
            await self._tiers.shelf.finish_write(account, "s", "", ordered)
            self._tiers.drop(account, ordered, "recovery")
            announcement = await self._announcer.announce(account, ordered)
            await self._announcer.obeyed(announcement)
            left = self._blind[account] - set(ordered)
            if left:
                self._blind[account] = left
            else:
                del self._blind[account]
            _log.info("cache_recovered", account=account, types=len(ordered))

    @property
    def _announcer(self) -> Announcer:
        return self._feed.announcer

    @property
    def _feed(self) -> Membership:
        if self._membership is None:
            raise RuntimeError("the cache was not started")
        return self._membership

    async def _tell(self, mark: WriteMark) -> None:
        """Bump, mark, announce, drop here: the store first, so that whoever drops finds it bumped."""
        shelf, named = self._tiers.shelf, (mark.account, mark.kind, mark.name, mark.types)
        try:
            if self._is_cluster:
                await shelf.begin_write(*named)
            else:
                mark.announcement = await self._announcer.announce(
                    mark.account, mark.types, tell=lambda telling: shelf.begin_write_told(*named, telling)
                )
            mark.is_known = True
        finally:
            self._tiers.drop(mark.account, mark.types, "write")
        if self._is_cluster:
            mark.announcement = await self._announcer.announce(mark.account, mark.types)

    async def _end(self, mark: WriteMark) -> None:
        deadline: float | None = None
        while True:
            try:
                await self._finish_once(mark)
            except StoreFault:
                self._away(mark)
                if deadline is None:
                    deadline = self._feed.leases_end_at()
                if self._tiers.now() >= deadline:
                    self._remember(mark.account, mark.types)
                    break
                await asyncio.sleep(_RETRY_S)
            else:
                break
        self._open.pop(mark.name, None)

    async def _finish_once(self, mark: WriteMark) -> None:
        stood = await self._tiers.shelf.finish_write(mark.account, mark.kind, mark.name, mark.types)
        mark.is_known = True
        if not stood or mark.announcement is None:
            # Without its mark (a flush, a lease that ended), what was fetched meanwhile was kept, and copied.
            self._tiers.drop(mark.account, mark.types, "write")
            mark.announcement = await self._announcer.announce(mark.account, mark.types)
        await self._announcer.obeyed(mark.announcement)

    def _away(self, mark: WriteMark) -> None:
        self._feed.note_fault()
        self._tiers.drop(mark.account, mark.types, "write")
        if not mark.is_known:
            self._feed.note_untold()

    def _remember(self, account: str, types: tuple[str, ...]) -> None:
        """Keep in mind what the others were not told. Nothing is served here before they were."""
        self._blind.setdefault(account, set()).update(types)
        self._feed.note_untold()

    async def _renew_forever(self) -> None:
        pause_s = self._tiers.options.mark_lease_s / 4
        while True:
            await asyncio.sleep(pause_s)
            for mark in list(self._open.values()):
                if self._tiers.now() - mark.renewed_at >= pause_s and mark.task is None:
                    await self._renew(mark)

    async def _renew(self, mark: WriteMark) -> None:
        mark.renewed_at = self._tiers.now()
        try:
            was_there = await self._tiers.shelf.renew_write(mark.account, mark.kind, mark.name, mark.types)
            if not was_there or mark.announcement is None:
                self._tiers.drop(mark.account, mark.types, "recovery")
                mark.announcement = await self._announcer.announce(mark.account, mark.types)
        except StoreFault:
            mark.announcement = None
            self._away(mark)
        else:
            mark.is_known = True

"""The invalidation feed: how every worker hears of a write before the write's answer leaves.

Owns the worker's place among the others: its heartbeat, its subscription, its lease on its own memory, and
what it does on hearing an announcement. What is dropped on hearing one is given in as a function.

**Protocol.** Every worker subscribes to one feed and to a channel of its own. Each `heartbeat_s` it runs a
script that (a) extends its lease in the register of leases, (b) publishes a beat to its own channel. It may
serve from memory until `sent + lease_s` of the last beat that *came back by the subscription*; so a feed that
is down, late or half open ends the use of memory by itself. A writer bumps the epochs in the store and then
announces (`announcer.py`): a script publishes the account and types and reads who holds a lease and until
when. Every worker that hears it drops its copies, voids its flights, and answers. The write's answer leaves
when all of them have answered, or when the leases of those that have not are over; their renewal is refused
meanwhile, for every writer to see, and a refused worker drops its whole memory before it joins again.

**Why no worker serves an answer from before a write W after W was acknowledged.** Let a worker B serve copy c
at time t after that. B's lease is valid at t.

1. B answered W's announcement. It dropped every such copy then, so c came in later. A copy comes in only
   through `Tiers.admit`: the flight that brought it was not void and of the present session. Had that flight
   begun before B heard of W it would be void. So it began after, and its script ran in the store after W's
   bump. An entry that the store holds as good then was kept under the bumped epochs; while W's mark stands
   nothing is kept (`keep.lua`); and a fetch begun while it stood has another vector than the one after W's
   second bump. So c was fetched from the upstream after W had ended there. An answer that enters memory
   before the store is asked to keep it (`fill.py`) is one for which that script found no mark that holds it
   back. So W's mark had been taken away before the fetch began, because W had ended; or it was lost, and then
   W's writer announces once more before W is acknowledged, and B drops c on hearing that.
2. B did not answer. W's writer had its renewal refused and waited for the end of the lease that stood then
   (of one that it read after publishing, if the store was lost meanwhile: a later lease's beat was published
   after the announcement, and a subscription delivers in order, so hearing the one means having heard the
   other). B's lease at t is a later one: B heard of the refusal, dropped everything and joined again, and all
   it has since came from the store after W's bump: case 1. A lease that another writer had refused before is
   waited for like any other.
3. B held no lease when W was announced, because it was not a member, or its lease was over. Then it serves
   nothing until it has joined, and joining begins with an empty memory and a new session: case 1.
4. The register was lost with B's lease in it. For one lease from then on the writer waits until as many have
   answered as are subscribed (a flush, which breaks no subscription), or until that lease is over (a restart
   or failover, which breaks them all, but B may not have noticed yet): see `register.lua`. There is no such
   doubt where this very process started the store (`store_is_new`): a lease is granted by a store's answer,
   and before that process nobody got one from it.

Clocks are compared as durations only, and go on while the machine sleeps where the system can tell: a lease
counts here from before its beat was sent, in the store from when it arrived, and the writer counts from the
reply; all three err towards waiting. Rates may differ by `DRIFT`. All workers must have the same `lease_s`.
Pub/sub alone would prove nothing: it neither stores nor confirms. One thing is the operator's: a primary
that was deposed behind a partition must not go on granting leases. A Cluster's stops by itself; behind
Sentinel it needs `min-replicas-to-write 1` and a `min-replicas-max-lag` below the time to fail over, which
`deploy/valkey/valkey.conf` sets and which is looked for at the start (`store/failover.py`).

**Generations.** A worker that was cut off from the store may have forwarded writes that it could not announce
(`writes.py`), and may have died before it could make up for it. So a worker that is not heard for
`death_after_s` without having left properly makes the whole store one generation older: all entries before
count no more. A worker that was itself cut off for about a lease serves nothing until a heartbeat of its own
was answered which such a death cannot have escaped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
import structlog

from cbk_gateway.cache.announcement import Beat
from cbk_gateway.cache.announcer import BIRTH, DRIFT, LEASES, LIVES, Announcer
from cbk_gateway.cache.feed import Feed, channel_of, end, set_within
from cbk_gateway.cache.mention import Mention
from cbk_gateway.cache.options import Consistency
from cbk_gateway.cache.shelf import script
from cbk_gateway.cache.tiers import Tiers
from cbk_gateway.store import Store, StoreFault

_log = structlog.get_logger(__name__)

_GENERATION: Final = "cbkgw:{cache-feed}:generation"


class Membership:
    """This worker among the others.

    Args:
        store: The store.
        tiers: What to drop from.
        recover: Called after the store came back, before anything is served; raises StoreFault to be called
            again.

    Attributes:
        announcer: Tells the others of this worker's writes.
        is_recovered: Whether every write that could not be told of has been made up for.
    """

    def __init__(self, store: Store, tiers: Tiers, recover: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._tiers = tiers
        self._options = tiers.options
        self._recover = recover
        self._me = tiers.worker
        self._heartbeat = script(store, "heartbeat", prelude="register")
        self.announcer = Announcer(store, tiers, lambda: self._is_hearing)
        self._session = 0
        self._is_hearing = False
        self._is_member = False
        self._live_until = 0.0
        self._last_good: float | None = None
        self._quiet_until = 0.0
        self._is_quiet = False
        self._beat_number = 0
        self._beats: dict[int, Beat] = {}
        self._beat_now = asyncio.Event()
        self._beater: asyncio.Task[None] | None = None
        self._feed = Feed(store, self._me, self, self._options.lease_s)
        self._fault_since: float | None = None
        self.is_recovered = True
        tiers.session = self.session
        tiers.live_until = lambda: self._live_until

    async def start(self) -> None:
        """Join the others. A store that is away is joined when it comes back."""
        if self._options.store_is_new:
            await self._trust_register()
        await self._beat()
        self._feed.start()
        self._beater = asyncio.get_running_loop().create_task(self._beat_forever())

    async def _trust_register(self) -> None:
        """Say that the register is complete: nobody can hold a lease from before a store that is new.

        If the server is another by the time this is written, its run id says so, and the doubt stands.
        """
        with contextlib.suppress(StoreFault):
            told = await self._store.call(lambda client: client.info("server"))
            await self._store.call(lambda client: client.set(BIRTH, f"{told['run_id']} 0 restart"))

    async def stop(self, *, is_clean: bool) -> None:
        """Leave. Not cleanly when writes are left that nobody was told of: the others must then assume it."""
        if self._beater is not None:
            await end((self._beater,))
            self._beater = None
        await self._feed.stop()
        with contextlib.suppress(StoreFault):
            await self.announcer.leave("gone" if is_clean else "stopped", self._me)

    def session(self, now: float) -> int | None:
        """Number of the present session; None while the worker's memory must not be used."""
        if now >= self._live_until or self._is_quiet or not self.is_recovered:
            return None
        return self._session

    def is_open(self, now: float) -> bool:
        """Whether entries of the store may be served: its generation is known, nothing is to make up for."""
        if self._last_good is None or not self.is_recovered or self._is_quiet:
            return False
        return now - self._last_good < self._options.lease_s and self._store.is_available

    def hurry(self) -> None:
        """Beat as soon as possible, because this worker knows less than the store does."""
        self._beat_now.set()

    def leases_end_at(self) -> float:
        """When no worker's lease can last any more, given that the store answers nobody since it was lost.

        0 with bounded consistency, which waits for nobody.
        """
        if self._options.consistency is Consistency.BOUNDED:
            return 0.0
        lost_at = self._fault_since if self._fault_since is not None else self._tiers.now()
        return lost_at + self._options.lease_s * (1 + DRIFT)

    def note_untold(self) -> None:
        """A write could not be announced: nothing is served here until that has been made up for."""
        self.is_recovered = False
        self._tiers.breaks.note()

    def note_fault(self) -> None:
        """A call to the store got no answer."""
        if self._fault_since is None:
            self._fault_since = self._tiers.now()

    # The heartbeat.

    async def _beat_forever(self) -> None:
        while True:
            await set_within(self._beat_now, self._options.heartbeat_s)
            # Here, not after the beat: what comes to hurry it while it is under way wants another one.
            self._beat_now.clear()
            await self._beat()
            self._prolong_fills()

    async def _beat(self) -> None:
        options, now = self._options, self._tiers.now()
        self._beat_number += 1
        beat = Beat(now)
        self._beats[self._beat_number] = beat
        if len(self._beats) > 32:
            del self._beats[next(iter(self._beats))]
        wanted = "none" if not self._is_hearing else "renew" if self._is_member else "join"
        if wanted == "join":
            self._new_session()
        session = self._session
        try:
            goes_on, generation, _ = await self._heartbeat(
                keys=(LEASES, BIRTH, LIVES, _GENERATION),
                args=(
                    *(self._me, int(options.lease_s * 1000), int(options.death_after_s * 1000)),
                    *(channel_of(self._me), self._beat_number, wanted),
                ),
            )
        except StoreFault:
            self.note_fault()
            return
        self._fault_since = None
        self._heard_of_generation(generation)
        await self._after_good_beat(now)
        if session != self._session or wanted == "none":
            return
        self._is_member = bool(goes_on)
        if not goes_on:
            # A writer waited for us in vain: no lease, which would delay the next one, before we hear again.
            self._is_hearing = False
            self._new_session()
            return
        beat.is_granted = True
        self._grant(beat)

    async def _after_good_beat(self, sent_at: float) -> None:
        options = self._options
        if self._last_good is not None and sent_at - self._last_good > options.lease_s - options.heartbeat_s:
            self._new_session()
            # A worker that died meanwhile may have left a sign of life on its way to the store.
            self._quiet_until = self._tiers.now() + options.death_after_s + options.heartbeat_s
            self._is_quiet = True
            _log.warning("cache_store_gap", seconds=round(sent_at - self._last_good, 3))
        elif sent_at >= self._quiet_until:
            # Only a beat that was sent then has noticed who is dead.
            self._is_quiet = False
        self._last_good = sent_at
        if not self.is_recovered:
            try:
                await self._recover()
            except StoreFault:
                self.note_fault()
                return
            self.is_recovered = True

    def _heard_of_generation(self, generation: int) -> None:
        shelf = self._tiers.shelf
        if generation != shelf.generation:
            if shelf.generation:
                self._new_session()
                _log.warning("cache_new_generation")
            shelf.generation = generation

    def _grant(self, beat: Beat) -> None:
        if not (beat.is_granted and beat.is_heard):
            return
        was_live = self.session(self._tiers.now()) is not None
        self._live_until = max(self._live_until, beat.sent_at + self._options.lease_s * (1 - DRIFT))
        if not was_live:
            self._tiers.observer.feed_live(is_live=True)

    def _new_session(self) -> None:
        """Begin with an empty memory; nothing that is under way may enter it."""
        if self._live_until:
            self._tiers.observer.feed_live(is_live=False)
        self._session += 1
        self._live_until = 0.0
        self._beats = {number: beat for number, beat in self._beats.items() if number == self._beat_number}
        self._tiers.drop_all()

    def _prolong_fills(self) -> None:
        now = self._tiers.now()
        for fill in list(self._tiers.fills):
            if now - fill.started_at > self._options.fill_lease_s / 3:
                self._tiers.spawn(self._prolong(fill.ask.account, fill.ask.digest, fill.flight.token))

    async def _prolong(self, account: str, digest: str, token: str) -> None:
        with contextlib.suppress(StoreFault):
            await self._tiers.shelf.prolong(account, digest, token)

    # What the feed brings.

    def feed_ready(self) -> None:
        """The subscription stands: join as soon as a beat has come back by it."""
        self.hurry()

    def feed_lost(self) -> None:
        """Writes may pass unheard from now on."""
        self._is_hearing = False
        self._is_member = False
        self._new_session()

    def heard(self, kind: bytes, text: bytes) -> None:
        """Act on a message of the feed."""
        match kind:
            case b"I":
                self._heard_of_write(text)
            case b"F":
                self._tiers.woken(text.decode())
            case b"B":
                self._heard_beat(int(text))
            case b"A":
                self.announcer.answered(*orjson.loads(text))
            case _:
                raise ValueError("unknown message on the feed")

    def _heard_of_write(self, text: bytes) -> None:
        writer, number, account, types, *identifier = orjson.loads(text)
        if writer == self._me:
            return
        if identifier:
            self._tiers.drop_mentions(account, Mention(frozenset(types), identifier[0]))
        else:
            self._tiers.drop(account, types, "feed")
        self._feed.answer(writer, number)

    def _heard_beat(self, number: int) -> None:
        beat = self._beats.pop(number, None)
        if beat is not None:
            beat.is_heard = True
            self._tiers.observer.feed_lag(self._tiers.now() - beat.sent_at)
            self._grant(beat)
            if not self._is_hearing:
                self._is_hearing = True
                self.hurry()

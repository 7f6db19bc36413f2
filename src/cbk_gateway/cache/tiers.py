"""What all parts of one worker's cache share: its tiers, its flights, its clock, its background work.

The one rule that lives here is `admit`: when an answer may enter the worker's own memory. Looking things up
is `cache.py`'s, writing is `writes.py`'s, and hearing of writes `membership.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from cbk_gateway.breaks import Breaks
from cbk_gateway.cache import representation
from cbk_gateway.cache.ask import Ask
from cbk_gateway.cache.copy import Copy, Form
from cbk_gateway.cache.entry import EntryCodec
from cbk_gateway.cache.flight import Flight, Flights
from cbk_gateway.cache.inventory import Inventory
from cbk_gateway.cache.memory import Memory
from cbk_gateway.cache.mention import Mention
from cbk_gateway.cache.observer import CacheObserver
from cbk_gateway.cache.options import CacheOptions
from cbk_gateway.cache.shared import SharedTier, may_share
from cbk_gateway.cache.shelf import Shelf
from cbk_gateway.operation import ALL_TYPES
from cbk_gateway.store import Store, StoreFault

if TYPE_CHECKING:
    from cbk_gateway.cache.fill import Fill

_DECLINED_S: Final = 10.0
_MAX_DECLINED: Final = 4096
_STEADY: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


steady: Final[Callable[[], float]] = partial(time.clock_gettime, _STEADY)
"""Seconds that go on while the machine sleeps, where the system can tell: a lease must end then too."""


class Tiers:
    """The state of one worker's cache.

    Attributes:
        worker: This worker's name towards the others, new with every start.
        now: The monotonic clock, in seconds.
        session: Number of the feed's present session; None while the worker's memory must not be used.
        live_until: When that ends by itself. What ends it earlier is noted in `breaks`.
        breaks: Noted by everything that may make an answer from memory wrong or another one.
    """

    def __init__(
        self,
        store: Store,
        options: CacheOptions,
        observer: CacheObserver,
        clock: Callable[[], float],
        breaks: Breaks | None = None,
    ) -> None:
        self.breaks = breaks if breaks is not None else Breaks()
        self.worker = secrets.token_hex(8)
        self.options = options
        self.observer = observer
        self.now = clock
        codec = EntryCodec(options.encryption_key)
        self.shelf = Shelf(store, options, codec)
        self.inventory = Inventory(store, codec)
        self.shared = SharedTier(store, options, clock)
        self.memory = Memory(options.l1_max_bytes, options.account_share, self.breaks)
        self.flights: Flights[Copy, Fill] = Flights(self.new_token)
        self.fills: WeakSet[Fill] = WeakSet()
        self.session: Callable[[float], int | None] = lambda _now: None
        self.live_until: Callable[[], float] = lambda: 0.0
        self._tokens = 0
        self._declined: OrderedDict[str, float] = OrderedDict()
        self._wakers: dict[str, set[asyncio.Event]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keeping: set[asyncio.Task[None]] = set()

    def new_token(self) -> str:
        """A name that no other flight or write of any worker has."""
        self._tokens += 1
        return f"{self.worker}-{self._tokens}"

    def admit(self, flight: Flight[Copy, Fill], copy: Copy) -> bool:
        """Take an answer into memory; returns whether it is there now.

        One that the store has just held, or taken in, as good; or one that was fetched after the store was
        asked, while no write was under way. Only if the feed was live, without a break, since before the
        store was asked, and has told of no write since then that would make it old: else the write may have
        come between the two.
        """
        if flight.is_void or flight.session is None or flight.session != self.session(self.now()):
            return False
        evicted = self.memory.put(copy)
        if evicted:
            self.observer.evicted("l1", evicted)
        self.observer.memory(len(self.memory), self.memory.size_bytes)
        return self.memory.holds(copy)

    def drop(self, account: str, types: Iterable[str], cause: str) -> None:
        """Forget what these types' answers were, here. Flights under way will not enter memory."""
        changed = frozenset(types)
        self.memory.invalidate(account, changed)
        self.flights.void(account, changed)
        self.observer.invalidated(cause)
        self.observer.memory(len(self.memory), self.memory.size_bytes)

    def drop_mentions(self, account: str, mention: Mention) -> None:
        """Forget the copies that speak of one object. No flight under way will enter memory."""
        self.memory.drop_mentions(account, mention)
        self.flights.void(account, frozenset({ALL_TYPES}))
        self.observer.invalidated("purge")
        self.observer.memory(len(self.memory), self.memory.size_bytes)

    def drop_all(self) -> None:
        """Forget everything here."""
        self.memory.clear()
        self.flights.void_all()
        self.observer.memory(0, 0)

    def compress_later(self, copy: Copy, form: Form, coding: str) -> None:
        """Prepare a compressed variant of a form in a thread, once."""
        options = self.options
        if coding in form.tried or not options.compress or len(form.plain.body) < options.compress_min_bytes:
            return
        form.tried.add(coding)
        self.spawn(self._compress(copy, form, coding))

    def decline(self, digest: str) -> None:
        """Remember for a while that an answer cannot be kept: nobody should wait for a fetch of it."""
        self._declined[digest] = self.now() + _DECLINED_S
        self._declined.move_to_end(digest)
        if len(self._declined) > _MAX_DECLINED:
            self._declined.popitem(last=False)

    def is_declined(self, digest: str, now: float) -> bool:
        """Whether an answer was lately found impossible to keep."""
        until = self._declined.get(digest)
        if until is None:
            return False
        if until <= now:
            del self._declined[digest]
            return False
        return True

    async def wait_for_fill(self, digest: str, seconds: float) -> None:
        """Wait until somebody's fetch of an answer ended, or until the time is up."""
        waker = asyncio.Event()
        self._wakers.setdefault(digest, set()).add(waker)
        try:
            async with asyncio.timeout(seconds):
                await waker.wait()
        except TimeoutError:
            return
        finally:
            waiting = self._wakers[digest]
            waiting.discard(waker)
            if not waiting:
                del self._wakers[digest]

    def woken(self, digest: str) -> None:
        """Somebody's fetch of an answer ended."""
        for waker in self._wakers.get(digest, ()):
            waker.set()

    def release_later(self, fill: Fill) -> None:
        """Give a right to fetch back to the other workers, without waiting for it."""
        self.spawn(self.release(fill.ask.account, fill.ask.digest, fill.flight.token))

    async def release(self, account: str, digest: str, token: str) -> None:
        """Give a right to fetch back to the other workers. A store that is away has forgotten it soon."""
        try:
            await self.shelf.release(account, digest, token)
        except StoreFault:
            return
        finally:
            self.woken(digest)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in the background, held until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def keep_behind(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what has the store keep an answer that was given already."""
        task = self.spawn(work)
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def kept(self) -> None:
        """Wait until the store has, or has refused, what was answered up to now."""
        if self._keeping:
            await asyncio.wait(set(self._keeping))

    async def settle(self, seconds: float) -> None:
        """Let background work end; cancel what has not ended in time."""
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def vote_later(self, ask: Ask, copy: Copy, ttl_s: float) -> None:
        """Let an answer count towards one copy for all accounts."""
        if copy.entry.status == 200:
            self.shared.prove(ask)
            if self.options.shared_platform and may_share(ask):
                self.spawn(self._vote(ask, copy, ttl_s))

    async def _vote(self, ask: Ask, copy: Copy, ttl_s: float) -> None:
        with contextlib.suppress(StoreFault):
            await self.shared.vote(ask, copy.entry, ttl_s)

    async def _compress(self, copy: Copy, form: Form, coding: str) -> None:
        packed = await asyncio.to_thread(representation.compressed, form.plain.body, coding)
        if packed is not None:
            form.add(coding, packed)
            evicted = self.memory.resized(copy)
            if evicted:
                self.observer.evicted("l1", evicted)

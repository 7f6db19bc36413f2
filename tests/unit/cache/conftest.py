"""A scene of cache workers over the test's real store, and short words for what tests do with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from cbk_gateway.cache import Cache, CacheKeyParts, CacheOptions, Fill, Hit, Pass, StoredAnswer
from cbk_gateway.cache.observer import SilentObserver
from cbk_gateway.operation import Operation, understand
from cbk_gateway.store import Store

PAGE = b'{"items":[{"id":"b1"}],"cursor":"b1"}'
NEWER = b'{"items":[{"id":"b1"},{"id":"b2"}],"cursor":"b2"}'


class Counts(SilentObserver):
    """Remembers what was observed, as words."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def hit(self, tier: str) -> None:
        self.events.append(f"hit {tier}")

    def missed(self, reason: str) -> None:
        self.events.append(f"missed {reason}")

    def passed(self, reason: str) -> None:
        self.events.append(f"passed {reason}")

    def collapsed(self) -> None:
        self.events.append("collapsed")

    def unstored(self, reason: str) -> None:
        self.events.append(f"unstored {reason}")

    def invalidated(self, cause: str) -> None:
        self.events.append(f"invalidated {cause}")

    def stale_served(self, kind: str) -> None:
        self.events.append(f"stale {kind}")

    def evicted(self, tier: str, count: int) -> None:
        self.events.append(f"evicted {tier} {count}")


class Scene:
    """Workers on one store, all of one account unless told otherwise."""

    page = PAGE
    newer = NEWER

    def __init__(self, store: Store, stack: AsyncExitStack) -> None:
        self.store = store
        self._stack = stack

    def counts(self) -> Counts:
        return Counts()

    def get(self, path: str) -> Operation:
        return understand("GET", f"/v1{path}")

    def parts(self, account: str = "acme", accept: str = "", timezone: str = "") -> CacheKeyParts:
        return CacheKeyParts(account, "key", None, accept, timezone)

    async def worker(
        self, options: CacheOptions | None = None, observer: SilentObserver | None = None
    ) -> Cache:
        """One more worker, live; stopped at the end of the test."""
        cache = Cache(self.store, options or CacheOptions(), observer)
        await cache.start()
        self._stack.push_async_callback(cache.stop)
        await self.eventually(lambda: cache.is_live)
        return cache

    async def ask(
        self,
        cache: Cache,
        path: str = "/bot/list",
        *,
        account: str = "acme",
        accept: str = "",
        bypass: bool = False,
        if_none_match: str | None = None,
        accept_encoding: str | None = None,
    ) -> Hit | Fill | Pass:
        return await cache.recall(
            self.get(path),
            self.parts(account, accept),
            bypass=bypass,
            if_none_match=if_none_match,
            accept_encoding=accept_encoding,
        )

    async def right(self, cache: Cache, path: str = "/bot/list", **how: str) -> Fill:
        """Ask where a fetch is due, and get the right to it."""
        found = await self.ask(cache, path, account=how.get("account", "acme"), accept=how.get("accept", ""))
        assert isinstance(found, Fill), found
        return found

    async def answer(
        self,
        fill: Fill,
        body: bytes = PAGE,
        status: int = 200,
        headers: Sequence[tuple[str, str]] = (("Content-Type", "application/json"),),
    ) -> StoredAnswer:
        return await fill.store(status, headers, body)

    async def fill(
        self, cache: Cache, path: str = "/bot/list", body: bytes = PAGE, account: str = "acme"
    ) -> StoredAnswer:
        """Fetch an answer that is not there; returns when the store has it too."""
        given = await self.answer(await self.right(cache, path, account=account), body)
        await cache._tiers.kept()
        return given

    async def write(self, cache: Cache, *types: str, account: str = "acme") -> None:
        """A whole write."""
        mark = await cache.begin_write(account, frozenset(types))
        await mark.finish()

    async def body(self, cache: Cache, path: str = "/bot/list", account: str = "acme") -> bytes | None:
        """What a read is served from memory or store; None when it has to go upstream."""
        found = await self.ask(cache, path, account=account)
        if isinstance(found, Fill):
            found.abandon()
        return found.body if isinstance(found, Hit) else None

    async def eventually(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Poll a condition until it holds; fails when it does not in time."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    async def turn(self, times: int = 5) -> None:
        """Let everything that can run in this process run."""
        for _ in range(times):
            await asyncio.sleep(0)


@pytest.fixture
async def scene(store: Store) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield Scene(store, stack)

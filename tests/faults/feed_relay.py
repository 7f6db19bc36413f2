"""Between a cache worker and the store: a relay that can hold back what passes, and workers behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path

from cbk_gateway.cache import Cache, CacheOptions
from cbk_gateway.cache.shelf import FEED
from cbk_gateway.store import StoreOptions, open_store


class Way(StrEnum):
    """What passes, by where it goes."""

    COMMANDS = "commands"
    REPLIES = "replies"
    SUBSCRIBING = "subscribing"
    FEED = "feed"


class Relay:
    """Stands between a worker and the store, and can hold back what the feed brings."""

    def __init__(self, path: Path, upstream: str) -> None:
        self.path = path
        self._upstream = upstream
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeds: list[asyncio.StreamWriter] = []
        self._held: frozenset[Way] = frozenset()
        self._is_muffled = False

    def hold(self) -> None:
        """From now on nothing arrives on either side of any connection; all of them stay up."""
        self._hold(*Way)

    def hold_replies(self) -> None:
        """From now on no reply to a command arrives; commands, and the feed, do."""
        self._hold(Way.REPLIES)

    def hold_commands(self) -> None:
        """From now on no command arrives; what the feed brings does."""
        self._hold(Way.COMMANDS)

    def muffle(self) -> None:
        """From now on writes are not heard of; beats are."""
        self._is_muffled = True

    def silence(self) -> None:
        """From now on nothing that the feed brings arrives; its connection stays up."""
        self._hold(Way.FEED)

    def cut(self) -> None:
        """Break the feed's connection."""
        for writer in self._feeds:
            writer.close()

    def resume(self) -> None:
        """Let everything pass that was held back, and what comes now."""
        self._open.set()

    def _hold(self, *ways: Way) -> None:
        self._held = frozenset(ways)
        self._open.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a worker, to its end."""
        back, forth = await asyncio.open_unix_connection(self._upstream)
        is_feed = asyncio.Event()

        async def upward() -> None:
            while octets := await reader.read(65536):
                if (Way.SUBSCRIBING if is_feed.is_set() else Way.COMMANDS) in self._held:
                    await self._open.wait()
                if b"SUBSCRIBE" in octets and not is_feed.is_set():
                    is_feed.set()
                    self._feeds.append(writer)
                forth.write(octets)

        async def downward() -> None:
            while octets := await back.read(65536):
                if (Way.FEED if is_feed.is_set() else Way.REPLIES) in self._held:
                    await self._open.wait()
                if is_feed.is_set() and self._is_muffled and FEED.encode() in octets:
                    continue
                writer.write(octets)

        try:
            async with asyncio.TaskGroup() as group:
                ways = [group.create_task(upward()), group.create_task(downward())]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        except* (ConnectionError, OSError):
            pass
        finally:
            writer.close()
            forth.close()


@asynccontextmanager
async def relay(tmp_path: Path, store_url: str) -> AsyncIterator[Relay]:
    """A relay before a store on a Unix socket."""
    one = Relay(tmp_path / "relay.sock", store_url.removeprefix("unix://"))
    served: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.get_running_loop().create_task(one.serve(reader, writer)))

    server = await asyncio.start_unix_server(accept, str(one.path))
    try:
        yield one
    finally:
        one.resume()
        server.close()
        for task in served:
            task.cancel()
        if served:
            await asyncio.wait(served)


@asynccontextmanager
async def worker(url: str, options: CacheOptions, call_timeout_s: float = 1.0) -> AsyncIterator[Cache]:
    """A live worker on the store there."""
    async with await open_store(StoreOptions(url=url, call_timeout_s=call_timeout_s)) as store:
        cache = Cache(store, options)
        await cache.start()
        await eventually(lambda: cache.is_live)
        try:
            yield cache
        finally:
            await cache.stop()


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll a condition until it holds; fails when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)

"""Caches over the test's real store, and operations to ask them about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from cbk_gateway.cache import Cache, CacheKeyParts, CacheOptions
from cbk_gateway.cache.observer import SilentObserver
from cbk_gateway.operation import Operation, understand
from cbk_gateway.store import Store

ALICE = CacheKeyParts("acme", "key", None, "", "")
JSON_HEADERS = (("Content-Type", "application/json"),)


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


def get(path: str) -> Operation:
    return understand("GET", f"/api/v1{path}")


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll a condition until it holds; fails when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


NewCache = Callable[..., Awaitable[Cache]]


@pytest.fixture
async def new_cache(store: Store) -> AsyncIterator[NewCache]:
    """Start further workers' caches on the test's store; they are live when this returns."""
    async with AsyncExitStack() as stack:

        async def start(
            options: CacheOptions | None = None, observer: SilentObserver | None = None, on: Store | None = None
        ) -> Cache:
            cache = Cache(on or store, options or CacheOptions(), observer)
            await cache.start()
            stack.push_async_callback(cache.stop)
            await eventually(lambda: cache.is_live)
            return cache

        yield start


@pytest.fixture
async def cache(new_cache: NewCache) -> Cache:
    return await new_cache()

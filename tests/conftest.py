"""Fixtures that every suite shares: a real Valkey per test process, and a clean store per test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.store import EmbeddedServer, Store, StoreOptions, open_store
from harness import Stage, running


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[EmbeddedServer]:
    """One server per test process. Tests that kill, pause or restart a server start their own."""
    with EmbeddedServer() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_url(valkey_server: EmbeddedServer) -> str:
    """URL of this process's server. It may hold leavings of other tests: use `store` for a clean one."""
    return valkey_server.url


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[Store]:
    """A store emptied for this test, patient enough for a busy machine."""
    async with await open_store(
        StoreOptions(url=valkey_url, call_timeout_s=2.0, connect_timeout_s=2.0)
    ) as one:
        await one.client.flushall()
        yield one


@pytest.fixture
async def stage(tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[Stage]:
    """A whole gateway in front of a whole sandbox, with the usual tenants."""
    async with running(tmp_path, valkey_url) as one:
        yield one


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A plain HTTP client that changes nothing on the way: no cookies, no decoding, no redirects followed."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
        yield session

"""Fixtures of the suites that need a whole gateway; the root conftest names this file as a plugin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.store import Store
from harness import Stage, running


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

"""Fixtures that every suite shares: a real Valkey per test process, a clean store per test, tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from cbk_gateway.parties import Tenant, TenantLimits
from cbk_gateway.secret import Secret
from cbk_gateway.store import EmbeddedServer, Store, StoreOptions, open_store


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
def limited() -> Callable[..., Tenant]:
    """Make a tenant from its limits: `limited(rates=(...), quotas=(...))`, with any name and time zone."""

    def make(name: str = "acme", account: str = "acct-1", timezone: str = "UTC", **limits: Any) -> Tenant:
        return Tenant(name, account, Secret("sk-test"), limits=TenantLimits(**limits), timezone=timezone)

    return make

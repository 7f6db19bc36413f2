"""The books of a worker whose store is never asked: it is closed before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cbk_gateway.limits import LimiterOptions, SilentObserver
from cbk_gateway.limits.bookkeeping import Bookkeeping
from cbk_gateway.store import Store, StoreOptions, parse
from cbk_gateway.store.clients import build

Books = Callable[..., Bookkeeping]
URL = "redis://127.0.0.1:1/0"


@pytest.fixture
async def closed_store() -> Store:
    """A store that answers every call with the fault that it is closed."""
    options = StoreOptions(url=URL)
    store = Store(build(parse(URL), options), parse(URL), options, None)
    await store.close()
    return store


@pytest.fixture
async def books(closed_store: Store) -> Books:
    """Makes books, at an instant of the test's choice: `books(expected_workers=4)`."""

    def make(now: Callable[[], float] = lambda: 100.0, **options: Any) -> Bookkeeping:
        return Bookkeeping(closed_store, LimiterOptions(**options), SilentObserver(), now)

    return make

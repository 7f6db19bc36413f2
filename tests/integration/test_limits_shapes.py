"""The suites of rates, quotas, open requests and leases once more, behind Sentinel and on a Cluster.

The tests are those of the other files; only the store is another one here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from cbk_gateway.store import Store, StoreOptions, open_store
from integration import test_limits_counters, test_limits_leases, test_limits_rates
from integration.limits_stage import make
from integration.store_servers import cluster, sentinel

__all__ = ["make"]

SUITES = (test_limits_rates, test_limits_counters, test_limits_leases)
# How many calls a load costs does not depend on the shape.
globals().update(
    {
        f"{name}_on_every_shape": test
        for suite in SUITES
        for name, test in vars(suite).items()
        if name.startswith("test_") and "twentieth" not in name
    }
)

# One process starts the servers, for all of these tests.
pytestmark = pytest.mark.xdist_group("store-shapes")


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where each shape is."""
    with contextlib.ExitStack() as stack:
        behind_sentinel, _, _ = stack.enter_context(sentinel(tmp_path_factory.mktemp("sentinel")))
        yield {"sentinel": behind_sentinel, "cluster": stack.enter_context(cluster())}


@pytest.fixture(params=["sentinel", "cluster"])
async def store(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncIterator[Store]:
    """A store of each shape, emptied for this test."""
    options = StoreOptions(url=urls[request.param], call_timeout_s=5, connect_timeout_s=5, open_timeout_s=15)
    async with await open_store(options) as one:
        await one.client.flushall()
        yield one

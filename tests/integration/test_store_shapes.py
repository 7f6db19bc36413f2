"""One suite on every shape of store: a single server, a primary behind Sentinel, a Cluster of three nodes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cbk_gateway.errors import TooManyRequests
from cbk_gateway.limits import Limiter, LimiterOptions, Mode, Usage
from cbk_gateway.operation import understand
from cbk_gateway.parties import Measure, Period, Quota, Rate, Tenant
from cbk_gateway.store import Store, StoreOptions, open_store
from cbk_gateway.store.observer import SilentObserver
from integration.store_servers import clients, cluster, command, raw_info, sentinel

LIST = understand("GET", "/api/v1/bot/list")
MakeTenant = Callable[..., Tenant]


@pytest.fixture(params=["single", "sentinel", "cluster"])
async def shaped(request: pytest.FixtureRequest, tmp_path: Path, valkey_url: str) -> AsyncIterator[Store]:
    """A store of each shape in turn."""
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "cluster":
            url = stack.enter_context(cluster())
        elif request.param == "sentinel":
            url, _, _ = stack.enter_context(sentinel(tmp_path))
        else:
            url = valkey_url
        options = StoreOptions(url=url, call_timeout_s=3, connect_timeout_s=3, open_timeout_s=15)
        store = await stack.enter_async_context(await open_store(options))
        if request.param == "single":
            await store.client.flushall()
        yield store


async def admitted(limiter: Limiter, tenant: Tenant, times: int) -> int:
    """How many of so many requests are admitted."""
    count = 0
    for _ in range(times):
        with contextlib.suppress(TooManyRequests):
            await limiter.admit(tenant, "s", LIST)
            count += 1
    return count


async def test_limits_hold_on_every_shape(shaped: Store, limited: MakeTenant) -> None:
    """One pass over everything, because starting a Cluster takes longer than any of it."""
    limiter = Limiter(
        shaped,
        LimiterOptions(
            account_rates={"acct-1": Rate("account", 0.001, 6)}, global_rate=Rate("global", 0.001, 9)
        ),
    )
    await limiter.start()

    # Limits of different slots are taken in order, and given back when a later one refuses.
    one, two = (
        limited("one", rates=(Rate("tenant", 0.001, 5),)),
        limited("two", rates=(Rate("tenant", 0.001, 5),)),
    )
    other = limited("other", "acct-2", rates=(Rate("tenant", 0.001, 5),))
    assert [await admitted(limiter, tenant, 8) for tenant in (one, two, other)] == [5, 1, 3]
    await limiter.stop()
    assert [round((await limiter.show(tenant)).rates[0].tokens) for tenant in (one, two, other)] == [0, 4, 2]

    counters = Limiter(shaped)
    await counters.start()
    counted = limited("counted", quotas=(Quota("daily", Period.DAY, Measure.REQUESTS, 3),), max_concurrent=1)
    for _ in range(3):
        await (await counters.admit(counted, "s", LIST)).settle(Usage(None, 0))
    assert await admitted(counters, counted, 3) == 0
    assert (await counters.quota_reset(counted, "daily")).used == 0
    assert await admitted(counters, counted, 3) == 1

    hot = limited("hot", rates=(Rate("tenant", 1000, 2000),))
    assert await admitted(counters, hot, 500) == 500
    await counters.stop()

    subscription = shaped.pubsub()
    await subscription.subscribe("channel")
    assert await subscription.get_message(timeout=5) is not None
    await shaped.call(lambda client: client.publish("channel", "x"))
    assert await subscription.get_message(ignore_subscribe_messages=True, timeout=5) is not None
    await subscription.aclose()  # type: ignore[no-untyped-call]  # theirs


async def test_a_fail_over_in_mid_run_fails_nobody(tmp_path: Path, limited: MakeTenant) -> None:
    with sentinel(tmp_path) as (url, primary, replica):
        options = StoreOptions(url=url, open_timeout_s=15, breaker_pause_s=0.1)
        async with await open_store(options) as store:
            limiter = Limiter(store, LimiterOptions(roll_call_s=0.2))
            await limiter.start()
            quota = Quota("daily", Period.DAY, Measure.REQUESTS, 100_000)
            tenant = limited(rates=(Rate("tenant", 100, 50),), quotas=(quota,), max_concurrent=10_000)
            assert await admitted(limiter, tenant, 200) >= 50
            os.kill(primary.pid, signal.SIGKILL)
            await serve_until(limiter, tenant, Mode.LOCAL)
            await serve_until(limiter, tenant, Mode.STORE)
            assert raw_info(replica).startswith(b"role:master")
            assert (await limiter.show(tenant)).rates[0].burst == 50
            await limiter.stop()


async def test_a_slot_that_moves_is_followed_without_a_failure() -> None:
    with cluster() as url:
        ports = [int(one.rpartition(":")[2]) for one in url.removeprefix("redis+cluster://").split(",")]
        sent: list[int] = []
        options = StoreOptions(url=url, call_timeout_s=3, connect_timeout_s=3, open_timeout_s=15)
        async with await open_store(options, Pipelines(sent)) as store:
            count = store.script("return redis.call('INCR', KEYS[1])")
            # Until the library has loaded the map it is asked; from then on calls leave together.
            assert await count(["{a}n"]) == 1
            sent.clear()
            assert await asyncio.gather(*(count(["{a}n"]) for _ in range(20))) == list(range(2, 22))
            assert sent == [20]
            with clients(ports) as nodes:
                slot = int(nodes[0].cluster("KEYSLOT", "{a}n"))
                owner = next(i for i, node in enumerate(nodes) if node.cluster("COUNTKEYSINSLOT", slot))
                heir = (owner + 1) % 3
                names = [str(node.cluster("MYID"), "ascii") for node in nodes]
                command(nodes[heir], "CLUSTER", "SETSLOT", slot, "IMPORTING", names[owner])
                command(nodes[owner], "CLUSTER", "SETSLOT", slot, "MIGRATING", names[heir])
                command(nodes[owner], "MIGRATE", "127.0.0.1", ports[heir], "{a}n", 0, 5000)
                # Half way: who has no such key points at the heir, for this once.
                assert await count(["{a}n"]) == 22
                for node in (nodes[heir], nodes[owner], nodes[3 - owner - heir]):
                    command(node, "CLUSTER", "SETSLOT", slot, "NODE", names[heir])
            # Over the library they take several connections, and any order.
            assert sorted(await asyncio.gather(*(count(["{a}n"]) for _ in range(20)))) == list(range(23, 43))
            sent.clear()
            assert await asyncio.gather(*(count(["{a}n"]) for _ in range(20))) == list(range(43, 63))
            assert sent == [20]


class Pipelines(SilentObserver):
    """Notes the sizes of pipelines."""

    def __init__(self, sent: list[int]) -> None:
        self._sizes = sent

    def sent(self, commands: int) -> None:
        """One left."""
        self._sizes.append(commands)


async def serve_until(limiter: Limiter, tenant: Tenant, mode: Mode) -> None:
    """Send requests until a mode rules; any answer but leave or 429 is an error."""
    async with asyncio.timeout(30):
        while limiter.mode is not mode:
            await admitted(limiter, tenant, 5)
            await asyncio.sleep(0.01)

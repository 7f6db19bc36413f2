"""One suite on every shape of store: a single server, a primary behind Sentinel, a Cluster of three nodes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from redis import Redis
from redis.exceptions import RedisError

from cbk_gateway.errors import TooManyRequests
from cbk_gateway.limits import Limiter, LimiterOptions, Mode, Usage
from cbk_gateway.operation import understand
from cbk_gateway.parties import Measure, Period, Quota, Rate, Tenant
from cbk_gateway.store import EmbeddedServer, Store, StoreOptions, open_store
from cbk_gateway.store.embedded import _program

LIST = understand("GET", "/api/v1/bot/list")
MakeTenant = Callable[..., Tenant]


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextlib.contextmanager
def server(port: int, *arguments: str) -> Iterator[EmbeddedServer]:
    """One server with a TCP port."""
    with EmbeddedServer(arguments=["--port", str(port), "--bind", "127.0.0.1", *arguments]) as one:
        yield one


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[None]:
    """The server's program in another role."""
    process = subprocess.Popen([str(_program()), *arguments], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def clients(ports: list[int]) -> Iterator[list[Redis]]:
    """Plain clients to set servers up with."""
    made = [Redis(host="127.0.0.1", port=port, socket_timeout=5) for port in ports]
    try:
        yield made
    finally:
        for one in made:
            one.close()


def command(node: Redis, *words: str | int) -> None:
    """Send what the client library has no method for."""
    node.execute_command(*words)  # type: ignore[no-untyped-call]  # theirs


async def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition of another process's making."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def cluster() -> AsyncIterator[str]:
    """Three nodes with a third of the slots each; gives the store's URL."""
    ports = free_ports(6)
    data, buses = ports[:3], ports[3:]
    with contextlib.ExitStack() as stack:
        for port, bus in zip(data, buses, strict=True):
            stack.enter_context(
                server(
                    port,
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    str(bus),
                    "--cluster-announce-ip",
                    "127.0.0.1",
                )
            )
        nodes = stack.enter_context(clients(data))
        edges = [0, 5461, 10923, 16384]
        for i, node in enumerate(nodes):
            command(node, "CLUSTER", "ADDSLOTSRANGE", edges[i], edges[i + 1] - 1)
            command(node, "CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for port, bus in zip(data[1:], buses[1:], strict=True):
            command(nodes[0], "CLUSTER", "MEET", "127.0.0.1", port, bus)
        await until(lambda: all(is_whole(node) for node in nodes))
        yield "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in data)


def is_whole(node: Redis) -> bool:
    """Whether a node knows all others and every slot's owner."""
    state = cast("dict[str, str]", node.cluster("INFO"))
    return (state["cluster_state"], state["cluster_known_nodes"]) == ("ok", "3")


@contextlib.asynccontextmanager
async def sentinel(directory: Path) -> AsyncIterator[tuple[str, EmbeddedServer, Redis]]:
    """A primary, its replica and a Sentinel; gives the URL, the primary, and a client of the replica."""
    primary_port, replica_port, port = free_ports(3)
    settings = directory / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
        f"sentinel monitor main 127.0.0.1 {primary_port} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
    )
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(server(primary_port))
        stack.enter_context(server(replica_port, "--replicaof", f"127.0.0.1 {primary_port}"))
        (replica, watcher) = stack.enter_context(clients([replica_port, port]))
        await until(lambda: b"master_link_status:up" in raw_info(replica))
        stack.enter_context(program(str(settings), "--sentinel"))
        await until(lambda: knows_replica(watcher))
        yield f"redis+sentinel://127.0.0.1:{port}/main", primary, replica


def raw_info(node: Redis) -> bytes:
    """The replication section as text."""
    parsed = cast("dict[str, object]", node.info("replication"))
    return "\n".join(f"{name}:{value}" for name, value in parsed.items()).encode()


def knows_replica(watcher: Redis) -> bool:
    """Whether a Sentinel is up and has found the replica it will promote."""
    with contextlib.suppress(RedisError):
        state = cast("dict[str, object]", watcher.sentinel_master("main"))
        return state["num-slaves"] == 1 and state["is_master"] is True
    return False


@pytest.fixture(params=["single", "sentinel", "cluster"])
async def shaped(request: pytest.FixtureRequest, tmp_path: Path, valkey_url: str) -> AsyncIterator[Store]:
    """A store of each shape in turn."""
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "cluster":
            url = await stack.enter_async_context(cluster())
        elif request.param == "sentinel":
            url, _, _ = await stack.enter_async_context(sentinel(tmp_path))
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
    async with sentinel(tmp_path) as (url, primary, replica):
        options = StoreOptions(url=url, open_timeout_s=15, breaker_pause_s=0.1)
        async with await open_store(options) as store:
            limiter = Limiter(store, LimiterOptions(roll_call_s=0.2))
            await limiter.start()
            tenant = limited(rates=(Rate("tenant", 100, 50),))
            assert await admitted(limiter, tenant, 200) >= 50
            os.kill(primary.pid, signal.SIGKILL)
            await serve_until(limiter, tenant, Mode.LOCAL)
            await serve_until(limiter, tenant, Mode.STORE)
            assert raw_info(replica).startswith(b"role:master")
            assert (await limiter.show(tenant)).rates[0].burst == 50
            await limiter.stop()


async def serve_until(limiter: Limiter, tenant: Tenant, mode: Mode) -> None:
    """Send requests until a mode rules; any answer but leave or 429 is an error."""
    async with asyncio.timeout(30):
        while limiter.mode is not mode:
            await admitted(limiter, tenant, 5)
            await asyncio.sleep(0.01)

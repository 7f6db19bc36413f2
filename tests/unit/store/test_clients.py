"""The clients of every shape have the bounds of this house, not the library's."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis, RedisCluster, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import SentinelConnectionPool

from cbk_gateway.secret import Secret
from cbk_gateway.store.address import parse
from cbk_gateway.store.clients import CLIENT_NAME, StoreClients, StoreOptions, build

PASSWORD = "hunter2-hunter2"
URLS = {
    "single": "redis://h:1/0",
    "tls": "rediss://h:1/0",
    "unix": "unix:///run/v.sock",
    "sentinel": "redis+sentinel://h:1,i:2/main",
    "cluster": "redis+cluster://h:1,i:2",
}


def clients(shape: str, **options: object) -> StoreClients:
    return build(parse(URLS[shape]), StoreOptions(url=URLS[shape], **options))  # type: ignore[arg-type]  # per test


def settings(one: StoreClients) -> dict[str, object]:
    if isinstance(one.commands, RedisCluster):
        return dict(one.commands.connection_kwargs)
    return dict(one.commands.connection_pool.connection_kwargs)


@pytest.mark.parametrize("shape", URLS)
async def test_no_default_of_the_library_holds_a_request(shape: str) -> None:
    one = clients(shape, connect_timeout_s=0.125)
    said = settings(one)
    assert (said["socket_timeout"], said["socket_connect_timeout"]) == (0.125, 0.125)
    assert (said["client_name"], said["driver_info"], said["decode_responses"]) == (CLIENT_NAME, None, False)
    await one.aclose()


@pytest.mark.parametrize("shape", ["single", "tls", "unix", "sentinel"])
async def test_nothing_is_sent_twice(shape: str) -> None:
    one = clients(shape)
    assert isinstance(one.commands, Redis)
    assert settings(one)["retry"].get_retries() == 0  # type: ignore[attr-defined]  # theirs is untyped
    assert one.subscriptions is not one.commands
    await one.aclose()


async def test_a_cluster_asks_a_second_time_only_where_a_slot_has_moved() -> None:
    one = clients("cluster")
    assert one.subscriptions is one.commands
    assert isinstance(one.commands, RedisCluster)
    assert one.commands.retry.get_retries() == 1
    await one.aclose()


async def test_each_shape_has_its_own_way_to_connect() -> None:
    for shape, kind in (("tls", SSLConnection), ("unix", UnixDomainSocketConnection)):
        one = clients(shape)
        assert isinstance(one.commands, Redis)
        assert one.commands.connection_pool.connection_class is kind
        await one.aclose()
    behind = clients("sentinel")
    assert isinstance(behind.commands, Redis)
    assert isinstance(behind.commands.connection_pool, SentinelConnectionPool)
    assert len(behind.sentinels) == 2
    await behind.aclose()


@pytest.mark.parametrize("shape", URLS)
async def test_a_password_kept_apart_wins_and_is_never_shown(shape: str) -> None:
    options = StoreOptions(url=URLS[shape], password=Secret(PASSWORD))
    one = build(parse(URLS[shape]), options)
    assert settings(one)["password"] == PASSWORD
    assert PASSWORD not in repr(options)
    await one.aclose()

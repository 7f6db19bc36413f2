"""A primary behind Sentinel that would take writes after it was deposed is noticed, and told of once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from cbk_gateway.store import EmbeddedServer, Store, StoreOptions, look_at_primary, open_store
from harness import running
from integration.e2e_calls import get, made, post
from integration.store_servers import clients, free_ports, sentinel, server, wait_until

SETTINGS = ("--include", str(Path(__file__).parents[2] / "deploy" / "valkey" / "valkey.conf"))
WARNING = "store_primary_outlives_failover"


def told(logs: list[MutableMapping[str, Any]]) -> list[object]:
    return [one["remedy"] for one in logs if one["event"] == WARNING]


def good_replicas(primary: Redis) -> int:
    section = cast("dict[str, int]", primary.info("replication"))
    return section["min_slaves_good_slaves"]


def replica_of(port: int) -> AbstractContextManager[EmbeddedServer]:
    return server(free_ports(1)[0], *SETTINGS, "--replicaof", f"127.0.0.1 {port}")


async def test_a_start_warns_of_a_primary_that_would_outlive_its_failover(tmp_path: Path) -> None:
    with sentinel(tmp_path) as (url, _, _), capture_logs() as logs:
        async with running(tmp_path, url):
            pass
    (remedy,) = told(logs)
    assert "min-replicas-to-write 1" in str(remedy)


async def test_nothing_is_said_where_the_primary_stops_by_itself(tmp_path: Path) -> None:
    with sentinel(tmp_path, *SETTINGS) as (url, _, _), capture_logs() as logs:
        async with running(tmp_path, url):
            pass
    assert told(logs) == []


async def test_nothing_is_said_of_a_single_server(store: Store) -> None:
    with capture_logs() as logs:
        assert await look_at_primary(store)
    assert logs == []


async def test_who_may_not_ask_is_not_told_and_starts_all_the_same(tmp_path: Path) -> None:
    with sentinel(tmp_path) as (url, primary, _), Redis.from_url(primary.url) as there:
        there.acl_setuser("default", enabled=True, nopass=True, keys="*", commands=["+@all", "-info"])
        options = StoreOptions(url=url, open_timeout_s=15)
        async with await open_store(options) as one:
            with capture_logs() as logs:
                assert await look_at_primary(one)
        there.acl_setuser("default", commands=["+info"])
    assert [one["event"] for one in logs] == ["store_primary_unseen"]


async def test_a_gateway_goes_on_beside_a_primary_that_refuses_writes_without_its_replica(
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    with (
        server(port, "--repl-diskless-sync-delay", "0", *SETTINGS) as primary,
        clients([port]) as (there,),
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(replica_of(port))
        wait_until(lambda: good_replicas(there) == 1)
        async with running(tmp_path, primary.url) as stage:
            bot = await made(stage, "bot", "Ada")
            await asyncio.to_thread(stack.close)
            await asyncio.to_thread(wait_until, lambda: good_replicas(there) == 0)
            with pytest.raises(ResponseError, match="NOREPLICAS"):
                there.set("a", "b")
            assert (await get(stage, f"/api/v1/bot/{bot}/fetch")).json["name"] == "Ada"
            assert (await post(stage, f"/api/v1/bot/{bot}/update", {"name": "Bea"})).status == 200
            assert (await get(stage, f"/api/v1/bot/{bot}/fetch")).json["name"] == "Bea"
        # A worker that takes a dead one's place starts beside it, and serves once it knows who was revoked.
        (tmp_path / "second").mkdir()
        async with running(tmp_path / "second", primary.url) as stage:
            assert (await get(stage, "/api/v1/bot/list")).code == "SERVICE_UNAVAILABLE"
            await asyncio.to_thread(stack.enter_context, replica_of(port))
            async with asyncio.timeout(30):
                while (await get(stage, "/api/v1/bot/list")).status != 200:
                    await asyncio.sleep(0.05)

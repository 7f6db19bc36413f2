"""What the hot path counts by itself comes out in the metrics, in the lease and in the demand: all of it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cbk_gateway.hotpath import HotPath
from cbk_gateway.limits import Limiter
from cbk_gateway.listener import GatewayProtocol
from cbk_gateway.parties import Rate, TenantLimits
from cbk_gateway.store import Store
from harness import Stage, running, tenant
from integration.test_hotpath import head_of, hot, warm
from integration.wires import Wire, wire


@pytest.fixture
async def stage(tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[Stage]:
    del store
    async with running(tmp_path, valkey_url, listen={"hot_path": "on"}) as one:
        yield one


def counted(stage: Stage, family: str, *labels: str) -> float:
    """The sum of all series of a family that have these labels, as a scrape would see it."""
    series = stage.gateway.parts.metrics.families()[f"cbk_gateway_{family}"]
    return sum(
        one for (_, has), one in series.items() if {*labels} <= {*has} and isinstance(one, float | int)
    )


async def statuses(one: Wire, head: bytes, times: int) -> list[int]:
    return [int((await one.ask(head)).split(b" ", 2)[1]) for _ in range(times)]


async def test_every_hit_is_counted_once_and_drawn_from_the_lease(stage: Stage) -> None:
    head, kinds = head_of(stage.token()), (("limit_decisions_total", "admitted"), ("requests_total", "200"))
    async with wire(stage) as one, asyncio.timeout(20):
        await warm(stage, one, head)
        before = [counted(stage, *kind) for kind in kinds]
        times, quick = 0, 0
        while quick < 200:
            assert set(await statuses(one, head, 100)) == {200}
            times += 100
            entry = hot(stage)._entries.find(head)
            quick += entry.quick if entry is not None else 0
            assert [counted(stage, *kind) for kind in kinds] == [old + times for old in before]
            assert entry is None or entry.quick == 0


async def test_tenants_who_may_wait_in_line_are_served_as_quickly_while_nobody_does(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    del store
    patient = TenantLimits(rates=(Rate("tenant", 100_000, 100_000),), max_wait_s=0.25)
    async with running(
        tmp_path, valkey_url, tenants=(tenant("acme", limits=patient),), listen={"hot_path": "on"}
    ) as stage:
        head = head_of(stage.token())
        async with wire(stage) as one, asyncio.timeout(20):
            await warm(stage, one, head)
            while (entry := hot(stage)._entries.find(head)) is None or not entry.quick:
                assert b" 200 " in await one.ask(head)


async def test_leases_and_answers_add_up_to_what_the_store_gave(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    """A bucket that hardly refills admits what it holds: not one request more, however quickly they come."""
    del store
    small = TenantLimits(rates=(Rate("tenant", 0.01, 300),))
    async with running(
        tmp_path, valkey_url, tenants=(tenant("acme", limits=small),), listen={"hot_path": "on"}
    ) as stage:
        head = head_of(stage.token())
        async with wire(stage) as one, wire(stage) as other:
            found = await asyncio.gather(statuses(one, head, 300), statuses(other, head, 300))
        answers = [status for each in found for status in each]
        assert set(answers) == {200, 429}
        assert answers.count(200) <= 301
        assert counted(stage, "limit_decisions_total", "admitted") == answers.count(200)
        assert counted(stage, "limit_decisions_total", "rate") == answers.count(429)


async def test_every_refusal_of_a_rate_is_counted_once_and_in_the_demand(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    del store
    slow = TenantLimits(rates=(Rate("tenant", 2, 4),))
    async with running(
        tmp_path, valkey_url, tenants=(tenant("acme", limits=slow),), listen={"hot_path": "on"}
    ) as stage:
        head, quick, demand = head_of(stage.token()), 0, 0.0
        async with wire(stage) as one, asyncio.timeout(20):
            answers = []
            # Many are asked for in a second, nearly all were refused; the demand hears of them in lots.
            while quick < 50 or demand <= 20:
                answers += await statuses(one, head, 100)
                entry = hot(stage)._entries.find(head)
                quick += entry.refused_quick if entry is not None else 0
                answered = answers.count(429)
                assert counted(stage, "limit_decisions_total", "rate") == answered
                assert counted(stage, "refusals_total", "429") == answered
                assert counted(stage, "requests_total", "429") == answered
                (view,) = stage.gateway.parts.limiter._books.desk.buckets()
                demand = view.asked.per_second
        assert counted(stage, "limit_decisions_total", "admitted") == answers.count(200)


async def test_a_refusal_ends_with_what_the_bucket_remembers(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    del store
    slow = TenantLimits(rates=(Rate("tenant", 0.5, 4),))
    async with running(
        tmp_path, valkey_url, tenants=(tenant("acme", limits=slow),), listen={"hot_path": "on"}
    ) as stage:
        head = head_of(stage.token())
        async with wire(stage) as one, asyncio.timeout(20):
            while (entry := hot(stage)._entries.find(head)) is None or not entry.refused_quick:
                await one.ask(head)
            await stage.gateway.parts.limiter.reset(tenant("acme", limits=slow))
            assert b" 200 " in await one.ask(head)


def connection_of(stage: Stage) -> GatewayProtocol:
    server = stage.gateway._ports[1]._runner.server
    assert server is not None
    (found,) = server.connections
    assert isinstance(found, GatewayProtocol)
    return found


async def test_a_client_that_does_not_keep_up_takes_the_full_path_until_it_does(stage: Stage) -> None:
    head = head_of(stage.token())
    async with wire(stage) as one, asyncio.timeout(10):
        await warm(stage, one, head)
        connection, served = connection_of(stage), hot(stage).served
        parsed = connection._request_count
        connection.pause_writing()
        one.writer.write(head)
        while connection._request_count == parsed:
            await asyncio.sleep(0.001)
        assert hot(stage).served == served
        connection.resume_writing()
        assert b" 200 " in await one.read()
        await warm(stage, one, head)


async def test_a_connection_is_idle_from_its_last_answer_on_whoever_gave_it(stage: Stage) -> None:
    head = head_of(stage.token())
    async with wire(stage) as one, asyncio.timeout(10):
        await warm(stage, one, head)
        await one.ask(head)
        connection = connection_of(stage)
        # As it is when a keep-alive time has passed since the last answer of the full path.
        connection._next_keepalive_close_time = 0.0
        connection._process_keepalive()
        assert b" 200 " in await one.ask(head)
        connection._next_keepalive_close_time, connection.given_at = 0.0, hot(stage).now() - 76
        connection._process_keepalive()
        assert await one.reader.read() == b""


async def test_cache_and_limiter_must_go_by_one_clock(stage: Stage, store: Store) -> None:
    parts = dataclasses.replace(stage.gateway.parts, limiter=Limiter(store))
    with pytest.raises(ValueError, match="one clock"):
        HotPath(parts)

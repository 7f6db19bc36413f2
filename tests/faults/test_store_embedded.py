"""The embedded server crashes under a running gateway: it is back by itself, and so are caches and limits."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.limits import Mode
from cbk_gateway.parties import Measure, Period, Quota, Rate, TenantLimits
from cbk_gateway.store import EmbeddedServer
from harness import Stage, running, tenant

LIST = "/api/v1/bot/list"


async def has_ended(pid: int) -> bool:
    """Whether a process is gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def crash(server: EmbeddedServer) -> int:
    """Kill the server process; returns the id of the one that takes its place."""
    before = server.pid
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(20):
        while (after := server.pid) == before:
            await asyncio.sleep(0.02)
    return after


@pytest.mark.parametrize("crashes", [1, 3])
async def test_a_server_that_crashes_is_started_again(crashes: int) -> None:
    with EmbeddedServer(restarts=True) as server:
        pids = {server.pid, *[await crash(server) for _ in range(crashes)]}
        assert len(pids) == crashes + 1
    for pid in pids:
        assert await has_ended(pid)


async def listed(stage: Stage, client: aiohttp.ClientSession, name: str) -> tuple[int, str]:
    """One read: its status, and what the cache says of itself."""
    async with client.get(stage.url + LIST, headers=stage.bearer(name)) as answer:
        await answer.read()
        return answer.status, answer.headers.get("Cache-Status", "")


async def test_caches_and_limits_go_on_when_the_embedded_store_crashed(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    quota = Quota("daily", Period.DAY, Measure.REQUESTS, 4)
    tenants = (
        tenant("acme"),
        tenant("globex", limits=TenantLimits(rates=(Rate("tenant", 0.001, 3),))),
        tenant("partner", limits=TenantLimits(quotas=(quota,))),
    )
    async with running(tmp_path, "embedded", tenants=tenants) as stage:
        assert [(await listed(stage, client, "acme"))[0] for _ in range(2)] == [200, 200]
        for name, count in (("globex", 2), ("partner", 3)):
            assert {(await listed(stage, client, name))[0] for _ in range(count)} == {200}
        server = stage.gateway.store._server
        assert server is not None
        await crash(server)
        async with asyncio.timeout(20):
            while "; hit" not in (said := await listed(stage, client, "acme"))[1]:
                assert said[0] == 200
                await asyncio.sleep(0.02)
            while stage.gateway.parts.limiter.mode is not Mode.STORE:
                await asyncio.sleep(0.02)
        # The server forgot everything, but not this worker: neither rate nor quota begins anew.
        assert [(await listed(stage, client, "globex"))[0] for _ in range(2)] == [200, 429]
        assert [(await listed(stage, client, "partner"))[0] for _ in range(2)] == [200, 429]

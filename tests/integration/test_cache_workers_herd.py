"""Many clients of two workers of `serve` that miss one answer make one request, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
from yarl import URL

from fleet_stage import FleetStage, serving, until
from integration.cache_gateway_fleet import Clients

ESTABLISHED = "01"


async def live(stage: FleetStage, session: aiohttp.ClientSession) -> Clients:
    """Clients of a stage whose account has one bot, once both workers may keep answers."""
    stage.sandbox.world.store.add("acme-account", "bot", {"name": "Wanted"}, parent=None)

    async def is_live() -> bool:
        return await stage.metric("cbk_gateway_cache_feed_live") == 1.0

    await until(is_live)
    return Clients([stage.url], stage.sandbox, session, stage.bearer())


def asks(pid: int, port: int) -> bool:
    """Whether a process has a connection to a port of this machine, as the kernel tells it."""
    sockets = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == ESTABLISHED and int(fields[2].rpartition(":")[2], 16) == port:
            sockets.add(f"socket:[{fields[9]}]")
    return any(str(one.readlink()) in sockets for one in Path(f"/proc/{pid}/fd").iterdir())


async def test_a_herd_over_two_workers_makes_one_request_and_a_dead_leader_one_more(tmp_path: Path) -> None:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        serving(tmp_path, cache={"collapse_wait_s": 60.0}, upstream={"idle_s": 0.1}) as stage,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        those = await live(stage, session)
        stage.sandbox.add_fault("/v1/bot/list", "latency", value=4000)
        herd = await asyncio.gather(*(those.get(0, "bot/list") for _ in range(500)))
        assert those.asked("bot/list") == 1
        assert {(one.status, one.body) for one in herd} == {(200, herd[0].body)}
        assert herd[0].json["items"][0]["name"] == "Wanted"
        assert await stage.metric("cbk_gateway_cache_misses_total") == 1
        assert await stage.metric("cbk_gateway_cache_hits_total", tier="l2") > 0, "both workers had a share"

        port = URL(stage.sandbox.url).port
        assert port is not None

        async def asking() -> list[int]:
            return [pid for pid in (await stage.workers()).values() if asks(pid, port)]

        async def nobody_asks() -> bool:
            return await asking() == []

        await until(nobody_asks)
        # The first request is never answered; the next one is, at once.
        stage.sandbox.add_fault("/v1/dataset/list", "latency", value=60_000, times=1)
        waiting = [asyncio.ensure_future(those.get(0, "dataset/list")) for _ in range(100)]

        async def all_wait() -> bool:
            return await stage.metric("cbk_gateway_requests_in_flight") >= 100

        await until(all_wait)
        assert those.asked("dataset/list") == 1
        (leader,) = await asking()
        os.kill(leader, signal.SIGKILL)
        # Clients of the dead worker ask again by themselves, and wait for the same fetch as all the others.
        answered = await asyncio.gather(*waiting)
        assert {(one.status, one.body) for one in answered} == {(200, answered[0].body)}
        assert those.asked("dataset/list") == 2

"""A steady load while settings are reloaded and workers are rolled: every request is answered."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from fleet_stage import FleetStage, serving, until

CLIENTS = 10
PER_CLIENT_S = 20.0
RELOADS = 4
RESTARTS = 2


@dataclass(slots=True)
class Load:
    """Clients that keep their connections, a third of their requests being writes."""

    stage: FleetStage
    answered: int = 0
    created: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self, number: int) -> None:
        bearer = self.stage.bearer()
        loop = asyncio.get_running_loop()
        due = loop.time()
        # The library repeats a GET by itself when its connection was closed; a POST shows what was lost.
        async with aiohttp.ClientSession(headers=bearer) as session:
            turn = 0
            while not self.is_over.is_set():
                turn += 1
                await self.request(session, f"{number}-{turn}", is_write=turn % 3 == 0)
                due += 1 / PER_CLIENT_S
                await asyncio.sleep(max(0.0, due - loop.time()))

    async def request(self, session: aiohttp.ClientSession, name: str, *, is_write: bool) -> None:
        try:
            if is_write:
                made = session.post(self.stage.url + "/api/v1/bot/create", json={"name": name})
            else:
                made = session.get(self.stage.url + "/api/v1/bot/list")
            async with made as answer:
                await answer.read()
                if answer.status != 200:
                    self.lost.append(f"{name}: {answer.status}")
                elif is_write:
                    self.created.add(name)
        except aiohttp.ClientError as fault:
            self.lost.append(f"{name}: {fault!r}")
        self.answered += 1


async def test_reloads_and_rolling_restarts_lose_no_request(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=2, listen={"drain_s": 4}) as stage:
        load = Load(stage)
        clients = [asyncio.ensure_future(load.client(number)) for number in range(CLIENTS)]
        first = await stage.workers()
        for turn in range(RELOADS):
            # Every other reload changes a setting, which rolls the workers; the rest concern tenants alone.
            stage.change(telemetry={"tenant_cap": 200 + turn // 2})
            assert await stage.reload() in {"applied", "unchanged"}, stage.events[-5:]
        for _ in range(RESTARTS):
            before = await stage.workers()
            stage.process.send_signal(signal.SIGUSR2)
            await stage.workers_other_than(before, 2)
        load.is_over.set()
        await asyncio.gather(*clients)
        assert load.lost == []
        assert not set(first.values()) & set((await stage.workers()).values())

        async def is_counted() -> bool:
            return await stage.metric("cbk_gateway_requests_total") == load.answered

        # The counts of a worker that has just closed its doors arrive with its last words.
        await until(is_counted)
        assert len(load.created) > CLIENTS
        assert await stage.stop() == 0

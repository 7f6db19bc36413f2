"""The store dies, hangs and restarts under a gateway that serves: what clients see, and what metrics tell."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.limits import Mode
from cbk_gateway.parties import Measure, Period, Quota, Rate, TenantLimits
from cbk_gateway.store import EmbeddedServer
from harness import Stage, running, tenant

LIST = "/api/v1/bot/list"
CREATE = "/api/v1/bot/create"
CLIENTS = 4
RATE, BURST = 100.0, 50.0
LIMITS = TenantLimits(
    rates=(Rate("tenant", RATE, BURST),),
    quotas=(Quota("daily", Period.DAY, Measure.REQUESTS, 1_000_000),),
    max_concurrent=50,
)


@dataclass
class Load:
    """What clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    served: list[float] = field(default_factory=list)
    stop: bool = False

    async def client(self, stage: Stage, number: int) -> None:
        """One client that reads, and now and then writes, without end."""
        headers = stage.bearer("acme")
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            count = 0
            while not self.stop:
                count += 1
                is_write = count % 10 == 0
                body = {"name": f"bot {number}/{count}"} if is_write else None
                method, path = ("POST", CREATE) if is_write else ("GET", LIST)
                async with session.request(method, stage.url + path, headers=headers, json=body) as answer:
                    await answer.read()
                self.statuses[answer.status] += 1
                if answer.status == 200:
                    self.served.append(time.monotonic())
                await asyncio.sleep(0.01)


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


async def scraped(stage: Stage, name: str) -> float:
    """One series as the operators' port gives it."""
    async with aiohttp.ClientSession() as session, session.get(f"{stage.admin_url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return float(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])


def excess(served: list[float]) -> float:
    """Requests served beyond burst + rate * window, in the worst window."""
    worst, lowest = 0.0, float("inf")
    for i, at in enumerate(sorted(served)):
        lowest = min(lowest, i - RATE * at)
        worst = max(worst, i + 1 - RATE * at - lowest - BURST)
    return worst


def kill(server: EmbeddedServer) -> None:
    server.kill()


def restart(server: EmbeddedServer) -> None:
    server.start_again()


def pause(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGSTOP)


def go_on(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("disturb", "restore", "away_s"),
    [
        pytest.param(kill, restart, 0, id="kill"),
        pytest.param(pause, go_on, 0, id="pause"),
        pytest.param(pause, go_on, 30, id="pause-30s", marks=pytest.mark.long),
    ],
)
async def test_no_client_gets_an_error_for_a_store_that_is_away(
    tmp_path: Path,
    disturb: Callable[[EmbeddedServer], None],
    restore: Callable[[EmbeddedServer], None],
    away_s: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with EmbeddedServer() as server:
        store = {"timeout_ms": 50}
        async with running(
            tmp_path, server.url, tenants=(tenant("acme", limits=LIMITS),), store=store
        ) as stage:
            load, limiter = Load(), stage.gateway.parts.limiter
            clients = [asyncio.create_task(load.client(stage, number)) for number in range(CLIENTS)]
            await until(lambda: load.statuses[429] > 20)
            await asyncio.to_thread(disturb, server)
            began = time.monotonic()
            await until(lambda: limiter.mode is Mode.LOCAL)
            assert await scraped(stage, 'cbk_gateway_limiter_mode{mode="local"}') == 1
            count = len(load.served)
            await until(
                lambda: len(load.served) > count + 20 and time.monotonic() >= began + away_s, away_s + 20
            )
            await asyncio.to_thread(restore, server)
            await until(lambda: limiter.mode is Mode.STORE)
            assert await scraped(stage, 'cbk_gateway_limiter_mode{mode="store"}') == 1
            assert await scraped(stage, "cbk_gateway_store_available") == 1
            count = len(load.served)
            await until(lambda: len(load.served) > count + 20)
            load.stop = True
            await asyncio.gather(*clients)
            in_vain = (
                await scraped(stage, 'cbk_gateway_store_errors_total{trouble="timeout"}') if away_s else 0
            )
        assert set(load.statuses) == {200, 429}
        # One request of each client may be answered later than it was admitted, and one be decided by each
        # of the two rules when modes change.
        assert excess(load.served) <= 2 * CLIENTS
        if away_s:
            with capsys.disabled():
                sys.stdout.write(f"\n{away_s:g} s away: {dict(load.statuses)}, calls in vain {in_vain:g}\n")

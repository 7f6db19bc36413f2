"""Several workers behind one port: what callers and operators see of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest

from fleet_stage import FleetStage, gone, is_alive, serving, tenants_document, until

REQUESTS = "cbk_gateway_requests_total"


async def read(stage: FleetStage, times: int = 1, path: str = "/api/v1/bot/list") -> list[int]:
    """Ask on a new connection each time, so that the kernel chooses a worker each time."""
    bearer = stage.bearer()
    statuses = []
    for _ in range(times):
        async with (
            aiohttp.ClientSession() as session,
            session.get(stage.url + path, headers=bearer) as answer,
        ):
            await answer.read()
            statuses.append(answer.status)
    return statuses


async def test_metrics_are_the_sum_over_all_workers(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        assert await read(stage, 40) == [200] * 40
        assert await stage.metric(REQUESTS) == 40
        assert await stage.metric("cbk_gateway_worker_up") == 2
        status, ready = await stage.admin("GET", "/readyz")
        assert (status, ready["status"], len(ready["workers"])) == (200, "ready", 2)
        names = {path.name for path in (tmp_path / "audit").iterdir() if path.is_dir()}
        assert {"w0", "w1"} <= names


async def test_counters_never_go_back_and_the_dead_are_replaced(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        await read(stage, 30)
        before = await stage.metric(REQUESTS)
        for _ in range(2):
            workers = await stage.workers()
            victim = min(workers.values())
            os.kill(victim, signal.SIGKILL)
            await gone(victim)
            assert await stage.metric(REQUESTS) >= before
            await until(lambda: _complete(stage))
            assert victim not in (await stage.workers()).values()
            await read(stage, 10)
            now = await stage.metric(REQUESTS)
            assert now == before + 10
            before = now
        assert await stage.metric("cbk_gateway_worker_restarts_total", reason="crashed") == 2


async def _complete(stage: FleetStage) -> bool:
    return len(await stage.workers()) == 2


async def test_sigterm_finishes_open_requests_flushes_the_journal_and_exits_0(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        workers = await stage.workers()
        bearer = stage.bearer()

        async def create(name: str) -> int:
            async with stage.session.post(
                stage.url + "/api/v1/bot/create", json={"name": name}, headers=bearer
            ) as answer:
                await answer.read()
                return answer.status

        writes = [asyncio.ensure_future(create(f"bot {turn}")) for turn in range(10)]
        assert await asyncio.gather(*writes) == [200] * 10
        assert await stage.stop() == 0
        await gone(*workers.values())
        records = b"".join(path.read_bytes() for path in (tmp_path / "audit").rglob("*.jsonl"))
        assert records.count(b'"kind":"intent"') == records.count(b'"kind":"outcome"') == 10
        assert not [path for path in tmp_path.iterdir() if path.name.startswith("cbkgw-")]


async def test_a_killed_supervisor_leaves_no_orphans(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        workers = await stage.workers()
        stage.process.kill()
        await stage.process.wait()
        await gone(*workers.values())

        async def refused() -> bool:
            try:
                async with stage.session.get(stage.url):
                    return False
            except aiohttp.ClientConnectorError:
                return True

        assert await until(refused)


async def test_a_stopped_worker_cannot_outlive_its_supervisor_either(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        stuck = min((await stage.workers()).values())
        os.kill(stuck, signal.SIGSTOP)
        try:
            assert is_alive(stuck)
            stage.process.kill()
            # Its log stays open as long as the stopped worker holds it, so the process table is asked.
            await gone(stage.process.pid)
        finally:
            os.kill(stuck, signal.SIGCONT)
        await gone(stuck)


async def test_unusable_settings_change_nothing_and_are_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        workers = await stage.workers()
        good = (tmp_path / "gateway.yaml").read_text()
        for broken in ("listen: {prot: 1}\n", "a: [", good.replace("env:TEST_SIGNING", "env:NOT_SET")):
            stage.write("gateway.yaml", broken)
            assert await stage.reload() == "refused"
        stage.write("gateway.yaml", good)
        stage.change(admin={"port": 1})
        assert await stage.reload() == "refused"
        stage.write("gateway.yaml", good)
        tenants = (tmp_path / "tenants.yaml").read_text()
        stage.write("tenants.yaml", "tenants: 5\n")
        assert await stage.reload() == "refused"
        stage.write("tenants.yaml", tenants)
        assert await stage.reload() == "unchanged"
        assert await stage.workers() == workers
        assert await read(stage, 4) == [200] * 4
        assert await stage.metric("cbk_gateway_config_reloads_total", result="refused") == 5


async def test_new_settings_that_start_no_worker_leave_the_old_workers(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        workers = await stage.workers()
        # Valid as text; only a worker that opens it finds that the folder cannot be made.
        (tmp_path / "blocked").write_text("a file, no folder")
        stage.change(audit={"directory": "blocked/audit"})
        assert await stage.reload() == "refused"
        assert await stage.workers() == workers
        assert await read(stage, 4) == [200] * 4


async def test_changed_settings_roll_and_changed_tenants_do_not(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        workers = await stage.workers()
        stage.write("tenants.yaml", orjson.dumps(tenants_document("acme")).decode())
        assert await stage.reload() == "applied"
        assert await stage.workers() == workers
        async with stage.session.get(
            stage.url + "/api/v1/bot/list", headers=stage.bearer("globex")
        ) as answer:
            assert answer.status in {401, 403}
        stage.change(telemetry={"server_timing": False})
        assert await stage.reload() == "applied"
        rolled = await stage.workers()
        assert len(rolled) == 2
        assert not set(rolled.values()) & set(workers.values())
        async with stage.session.get(stage.url + "/api/v1/bot/list", headers=stage.bearer()) as answer:
            assert "Server-Timing" not in answer.headers
        assert await stage.metric("cbk_gateway_worker_restarts_total", reason="rolled") == 2


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/admin/workers", 200),
        ("GET", "/admin/tenants", 200),
        ("GET", "/admin/settings", 200),
        ("GET", "/admin/nowhere", 404),
        ("GET", "/worker/snapshot", 404),
        ("POST", "/admin/reload", 200),
        ("GET", "/.well-known/jwks.json", 200),
        ("GET", "/healthz", 200),
    ],
)
async def test_one_operators_port_answers_for_all(
    fleet: FleetStage, method: str, path: str, status: int
) -> None:
    assert (await fleet.admin(method, path))[0] == status
    if path.startswith("/admin"):
        async with fleet.session.request(method, fleet.admin_url + path) as answer:
            assert answer.status == 401


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetStage]:
    async with serving(tmp_path, workers=1) as stage:
        yield stage

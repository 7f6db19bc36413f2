"""The store dies and comes back under a running gateway: reads go on, limits follow their policy."""

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cbk_gateway.app import Gateway
from cbk_gateway.settings.load import load
from cbk_gateway.store import EmbeddedServer, StoreFault
from harness import Stage, running


async def listed(stage: Stage, client: aiohttp.ClientSession, headers: dict[str, str]) -> tuple[int, str]:
    async with client.get(f"{stage.url}/api/v1/bot/list", headers=headers) as answer:
        await answer.read()
        return answer.status, answer.headers.get("Cache-Status", "")


async def test_reads_and_writes_survive_a_dead_store_and_recover_with_it(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    folder = tmp_path / "valkey"
    folder.mkdir(mode=0o700)
    server = EmbeddedServer(folder)
    server.start()
    try:
        async with running(tmp_path, server.url, store={"timeout_ms": 100}) as stage:
            headers = stage.bearer()
            assert (await listed(stage, client, headers))[0] == 200
            assert "; hit" in (await listed(stage, client, headers))[1]

            server.stop()
            name = f"made without a store {time.time_ns()}"
            async with client.post(
                f"{stage.url}/api/v1/bot/create", json={"name": name}, headers=headers
            ) as answer:
                assert answer.status == 200
            status, said = await listed(stage, client, headers)
            assert status == 200
            assert "; hit" not in said
            async with client.get(f"{stage.admin_url}/readyz") as answer:
                assert answer.status == 503
                assert (await answer.json())["checks"]["store"] == "failing"

            server.start()
            async with asyncio.timeout(15):
                while "; hit" not in (await listed(stage, client, headers))[1]:
                    await asyncio.sleep(0.02)
            async with client.get(f"{stage.url}/api/v1/bot/list", headers=headers) as answer:
                names = [item["name"] for item in (await answer.json())["items"]]
            assert name in names
    finally:
        server.stop()


async def test_a_store_that_is_away_at_start_is_a_clear_error_without_its_password(tmp_path: Path) -> None:
    document = tmp_path / "gateway.yaml"
    document.write_text(
        "store: {url: 'redis://user:hunter2@127.0.0.1:1/0'}\n"
        "identity: {mint: {keys: [{kid: k, alg: HS256, key: env:K}]}}\n"
    )
    loaded = load(document, environ={"K": "k" * 40})
    gateway: Any = Gateway(loaded, tenants=())
    with pytest.raises(StoreFault) as fault:
        await gateway.start()
    assert "127.0.0.1:1" in str(fault.value)
    assert "hunter2" not in str(fault.value)

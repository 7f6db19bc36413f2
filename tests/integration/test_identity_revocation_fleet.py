"""Revocation and disabling between gateways that share nothing but the store, as clients there see it."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.assembly import minter
from cbk_gateway.identity import MintedToken
from cbk_gateway.settings.load import load
from cbk_gateway.store import Store
from fleet_stage import ENVIRONMENT, FleetStage, serving

ROUNDS = 15
LIST = "/api/v1/bot/list"


@pytest.fixture
async def two(tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[tuple[FleetStage, FleetStage]]:
    """Two gateways as on two machines: processes, ports and journals of their own."""
    async with AsyncExitStack() as stack:
        stages = []
        for name in ("here", "there"):
            (tmp_path / name).mkdir()
            stages.append(await stack.enter_async_context(serving(tmp_path / name, valkey_url, workers=1)))
        yield stages[0], stages[1]


def issued(stage: FleetStage, subject: str) -> MintedToken:
    made = minter(load(stage.folder / "gateway.yaml", environ=ENVIRONMENT))
    assert made is not None
    return made.issue("acme", subject, ("*",), 3600)


class Client:
    """Somebody with a token at one gateway: a kept connection whose reads are cached, and an open stream."""

    def __init__(self, stage: FleetStage, token: MintedToken) -> None:
        self._stage = stage
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token.token.reveal()}"},
            connector=aiohttp.TCPConnector(limit=2),
        )
        self._ended: asyncio.Task[float] | None = None

    async def open(self) -> None:
        """Until the reads come from the cache and the stream flows."""
        async with asyncio.timeout(30):
            while "; hit" not in (await self._read())[1]:
                await asyncio.sleep(0.02)
        for _ in range(3):
            assert "; hit" in (await self._read())[1]
        stream = await self._session.post(
            self._stage.url + "/api/v1/channel/room/subscribe",
            json={},
            headers={"Accept": "application/jsonl"},
        )
        assert b"nop" in await stream.content.readline()
        self._ended = asyncio.get_running_loop().create_task(self._end_of(stream))

    async def refused(self) -> tuple[float, float]:
        """When a cached read was first refused, and when the stream ended; in monotonic seconds."""
        async with asyncio.timeout(30):
            while (status := (await self._read())[0]) == 200:
                await asyncio.sleep(0)
            moment = time.monotonic()
            assert status in {401, 403}
            assert self._ended is not None
            return moment, await self._ended

    async def close(self) -> None:
        await self._session.close()

    async def _read(self) -> tuple[int, str]:
        async with self._session.get(self._stage.url + LIST) as answer:
            await answer.read()
            return answer.status, answer.headers.get("Cache-Status", "")

    @staticmethod
    async def _end_of(stream: aiohttp.ClientResponse) -> float:
        with contextlib.closing(stream), contextlib.suppress(aiohttp.ClientPayloadError):
            while await stream.content.readany():
                pass
        return time.monotonic()


@pytest.mark.long
@pytest.mark.parametrize("how", ["revoked", "disabled"])
async def test_how_long_the_other_gateway_goes_on(two: tuple[FleetStage, FleetStage], how: str) -> None:
    here, there = two
    reads, streams = list[float](), list[float]()
    for number in range(ROUNDS):
        token = issued(there, f"leaver-{number}")
        client = Client(there, token)
        await client.open()
        path, body = {
            "revoked": ("/admin/tokens/revoke", {"token_id": token.token_id}),
            "disabled": ("/admin/tenants/acme/disable", {}),
        }[how]
        begun = time.monotonic()
        assert (await here.admin("POST", path, body))[0] == 200
        read, stream = await client.refused()
        reads.append((read - begun) * 1000)
        streams.append((stream - begun) * 1000)
        await client.close()
        if how == "disabled":
            assert (await here.admin("POST", "/admin/tenants/acme/enable", {}))[0] == 200
    for what, taken in (("cached reads refused", reads), ("stream ended", streams)):
        median, worst = statistics.median(taken), max(taken)
        sys.stdout.write(f"{how} here, {what} there, {ROUNDS} times: {median:.1f} ms, worst {worst:.1f} ms\n")

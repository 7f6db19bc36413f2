"""Writes that the official SDK repeats, when each try meets another worker: still carried out once."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.store import EmbeddedServer, Store
from dropin import scripts
from harness import serving
from integration.cache_gateway_fleet import Fleet, fleet
from integration.store_servers import cluster

pytestmark = [pytest.mark.dropin, pytest.mark.node, pytest.mark.usefixtures("sdk")]

PATIENT = {"retries": 3, "retryDelay": 250}
MAKE = {"call": "bot.create", "args": [{"name": "Ada", "backstory": "Counts."}], "options": PATIENT}
LOST_ANSWERS = [
    pytest.param("status", {"status": 502, "after_effect": True}, id="creates-then-502"),
    pytest.param("drop_after_effect", None, id="creates-then-drops"),
]


class InTurn:
    """A front that hands each connection to the next worker and lets it serve one request only."""

    def __init__(self, those: Fleet) -> None:
        self._targets = [stage.url.removeprefix("http://").split(":") for stage in those.stages]
        self._turn = 0
        self.used: list[int] = []

    def running(self) -> AbstractAsyncContextManager[str]:
        return serving(self._serve)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.used.append(self._turn)
            host, port = self._targets[self._turn]
            self._turn = (self._turn + 1) % len(self._targets)
            inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
            kept = [line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith(b"connection:")]
            inner_writer.write(b"\r\n".join((*kept, b"Connection: close", b"", b"")))
            forth = asyncio.ensure_future(_copy(reader, inner_writer))
            await _copy(inner_reader, writer)
            forth.cancel()
            await asyncio.wait((forth,))
            inner_writer.close()
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()


def bots(those: Fleet) -> list[str]:
    return [row.id for row in those.sandbox.world.store.all_rows() if row.kind == "bot"]


async def create(those: Fleet) -> tuple[dict[str, Any], list[int]]:
    """A create of the SDK's, and the workers its tries met."""
    front = InTurn(those)
    async with front.running() as url:
        secret = those.headers["Authorization"].removeprefix("Bearer ")
        (outcome,) = await scripts.calls(url, secret, MAKE)
    return outcome, front.used


@pytest.mark.parametrize(("fault", "value"), LOST_ANSWERS)
async def test_each_try_meets_another_worker_and_one_object_is_made(
    tmp_path: Path, valkey_url: str, store: Store, fault: str, value: dict[str, Any] | None
) -> None:
    async with fleet(tmp_path, valkey_url, 2) as those:
        those.sandbox.add_fault("/v1/bot/create", fault, value=value)
        outcome, used = await create(those)
        assert [outcome["value"]["id"]] == bots(those)
        assert set(used) == {0, 1}
        assert those.asked("bot/create") == 1


async def test_it_is_the_same_on_a_cluster(tmp_path: Path) -> None:
    with cluster() as url:
        async with fleet(tmp_path, url, 2) as those:
            those.sandbox.add_fault("/v1/bot/create", "drop_after_effect")
            outcome, used = await create(those)
            assert [outcome["value"]["id"]] == bots(those)
            assert set(used) == {0, 1}


async def test_without_the_store_there_is_no_shield_and_writes_still_pass(tmp_path: Path) -> None:
    """Stated: nobody remembers an earlier try then, so each is carried out, and answers as it would alone."""
    place = tmp_path / "valkey"
    place.mkdir(mode=0o700)
    server = EmbeddedServer(place)
    await asyncio.to_thread(server.start)
    try:
        async with fleet(tmp_path, server.url, 2, store={"timeout_ms": 100}) as those:
            await asyncio.to_thread(server.stop)
            those.sandbox.add_fault(
                "/v1/bot/create", "status", value={"status": 502, "after_effect": True}, times=2
            )
            outcome, _ = await create(those)
            assert outcome["value"]["id"] in bots(those)
            assert len(bots(those)) == those.asked("bot/create") == 3
    finally:
        await asyncio.to_thread(server.stop)

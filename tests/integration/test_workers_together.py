"""What one worker learns, every worker knows: writes, revocations and tenants across processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cbk_gateway.assembly import minter
from cbk_gateway.settings.load import load
from fleet_stage import ENVIRONMENT, FleetStage, serving, until

CONNECTIONS = 8


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetStage]:
    async with serving(tmp_path, workers=2) as stage:
        yield stage


class Line:
    """One kept connection, which belongs to one worker for its whole life."""

    def __init__(self, stage: FleetStage, session: aiohttp.ClientSession) -> None:
        self._stage = stage
        self._session = session

    async def ask(
        self, method: str, path: str, bearer: Mapping[str, str], body: object = None
    ) -> tuple[int, Any]:
        async with self._session.request(method, self._stage.url + path, json=body, headers=bearer) as answer:
            return answer.status, orjson.loads(await answer.read())


async def lines_to_both_workers(stage: FleetStage, stack: AsyncExitStack) -> list[Line]:
    """Connections enough to be sure that both workers hold some: the process table says so."""
    lines: list[Line] = []

    async def both_count() -> bool:
        for _ in range(CONNECTIONS):
            session = await stack.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
            )
            line = Line(stage, session)
            assert (await line.ask("GET", "/api/v1/bot/list", stage.bearer()))[0] == 200
            lines.append(line)
        return await busy_workers(stage) == 2

    await until(both_count)
    return lines


async def busy_workers(stage: FleetStage) -> int:
    """How many workers hold a connection from outside."""
    names = (await stage.workers()).items()
    return sum(1 for _, pid in names if has_clients(pid, stage.url))


def has_clients(pid: int, url: str) -> bool:
    """Whether a worker holds a TCP connection that the test made to it."""
    port = f":{int(url.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    accepted = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == "01"}
    return bool(accepted & {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()})


async def test_a_write_is_seen_at_once_over_every_connection(fleet: FleetStage) -> None:
    async with AsyncExitStack() as stack:
        lines = await lines_to_both_workers(fleet, stack)
        bearer = fleet.bearer()
        _, made = await lines[0].ask("POST", "/api/v1/bot/create", bearer, {"name": "v0"})
        path = f"/api/v1/bot/{made['id']}"
        for version in range(1, 25):
            writer = lines[version % len(lines)]
            for line in lines:
                await line.ask("GET", f"{path}/fetch", bearer)
            status, _ = await writer.ask("POST", f"{path}/update", bearer, {"name": f"v{version}"})
            assert status == 200
            seen = [(await line.ask("GET", f"{path}/fetch", bearer))[1]["name"] for line in lines]
            assert seen == [f"v{version}"] * len(lines)


async def test_a_revoked_token_is_refused_by_every_worker(fleet: FleetStage) -> None:
    made = minter(load(fleet.folder / "gateway.yaml", environ=ENVIRONMENT))
    assert made is not None
    issued = made.issue("acme", "leaver", ("*",), 3600)
    bearer = {"Authorization": f"Bearer {issued.token.reveal()}"}
    async with AsyncExitStack() as stack:
        lines = await lines_to_both_workers(fleet, stack)
        assert await statuses(lines, bearer) == {200}
        status, _ = await fleet.admin("POST", "/admin/tokens/revoke", {"token_id": issued.token_id})
        assert status == 200
        await until(answering(lines, bearer, {401}))
        assert await statuses(lines, fleet.bearer()) == {200}


async def test_a_disabled_tenant_is_refused_by_every_worker(fleet: FleetStage) -> None:
    async with AsyncExitStack() as stack:
        lines = await lines_to_both_workers(fleet, stack)
        bearer = fleet.bearer()
        assert (await fleet.admin("POST", "/admin/tenants/acme/disable", {}))[0] == 200
        await until(answering(lines, bearer, {403}))
        assert (await fleet.admin("POST", "/admin/tenants/acme/enable", {}))[0] == 200
        await until(answering(lines, bearer, {200}))


async def statuses(lines: list[Line], bearer: Mapping[str, str]) -> set[int]:
    return {(await line.ask("GET", "/api/v1/bot/list", bearer))[0] for line in lines}


def answering(
    lines: list[Line], bearer: Mapping[str, str], wanted: set[int]
) -> Callable[[], Awaitable[bool]]:
    """Whether every connection answers so; refusals reach other workers within a second or so."""

    async def all_answer() -> bool:
        return await statuses(lines, bearer) == wanted

    return all_answer

"""Bad disks under a serving gateway: writes are refused in time, reads go on, and all is well again after."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cbk_gateway.audit.verify import keys_at, verify
from fleet_stage import FleetStage, serving, until

MOODS = {
    "w": "full",
    "e": "a sync that fails",
    "h": "a sync that hangs",
    "f": "reserve of space",
    "i": "inodes",
}


async def ask(stage: FleetStage, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """One request on a connection of its own."""
    async with (
        aiohttp.ClientSession(headers=stage.bearer()) as session,
        session.request(method, f"{stage.url}/api/v1/{path}", json=body) as answer,
    ):
        return answer.status, orjson.loads(await answer.read())


async def test_writes_are_refused_and_reads_go_on_whatever_the_disk_does(
    tmp_path: Path, preload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mood = tmp_path / "mood"
    mood.write_text("o")
    monkeypatch.setenv("LD_PRELOAD", str(preload))
    monkeypatch.setenv("CBK_DISK_ROOT", str(tmp_path / "audit"))
    monkeypatch.setenv("CBK_DISK_MODE", str(mood))
    audit = {"deadline_ms": 400, "reserve_bytes": 1 << 20, "reserve_inodes": 10}
    async with serving(tmp_path, workers=1, audit=audit) as stage:
        monkeypatch.delenv("LD_PRELOAD")
        for letter, trouble in MOODS.items():

            async def is_refused(name: str = letter) -> bool:
                status, document = await ask(stage, "POST", "bot/create", {"name": f"during-{name}"})
                assert status in {200, 503}, document
                return bool(status == 503 and document["code"] == "AUDIT_UNAVAILABLE")

            async def is_well(name: str = letter) -> bool:
                status, _ = await ask(stage, "POST", "bot/create", {"name": f"after-{name}"})
                return status == 200

            mood.write_text(letter)
            # The guards of space look now and then, so the first writes may still pass.
            await until(is_refused)
            stage.sandbox.log.clear()
            answers = await asyncio.gather(
                *(ask(stage, "POST", "bot/create", {"name": f"{letter}-{number}"}) for number in range(8))
            )
            assert {status for status, _ in answers} == {503}, trouble
            assert (await ask(stage, "GET", "bot/list"))[0] == 200
            purge = {"account": "acme-account"}
            assert (await stage.admin("POST", "/admin/cache/purge", purge))[0] == 503
            status, ready = await stage.admin("GET", "/readyz")
            assert status == 503, ready
            assert [one.path for one in stage.sandbox.requests if one.method == "POST"] == []
            mood.write_text("o")
            await until(is_well)
        assert await stage.stop() == 0
    report = verify(tmp_path / "audit", keys_at(tmp_path / "audit.signing.pem"))
    assert report.is_good, report.findings
    lines = (
        line for path in (tmp_path / "audit").rglob("*.jsonl") for line in path.read_bytes().splitlines()
    )
    changes = [one for one in map(orjson.loads, lines) if one.get("change") == "cache.purge"]
    # Refused changes leave nothing, but where the disk hung: there the second record takes the first back.
    assert len(changes) % 2 == 0
    assert [one.get("result") for one in changes[1::2]] == ["not_made"] * (len(changes) // 2)

"""What a running gateway does for its journal without being asked, seen from outside.

Doubts are looked into after a death, old segments go and leave the chain whole, and sinks are fed: all of it
beside the writes, which a dead receiver does not touch.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from cbk_gateway.audit.verify import keys_at, verify
from cbk_gateway.sandbox.request_log import RequestRecord
from cbk_gateway.store import Store
from fleet_stage import FleetStage, gone, serving, until
from harness import Stage, free_port, running
from integration.e2e_calls import made, post

SETTLE = {"tag_creates": True, "resolve_after_s": 0.2}
SMALL = {"segment_max_bytes": 2000}


async def create(stage: FleetStage, kind: str) -> str:
    """The id of an object made through the fleet."""
    url, body = f"{stage.url}/api/v1/{kind}/create", {"name": "before"}
    async with stage.session.post(url, json=body, headers=stage.bearer()) as answer:
        return str(orjson.loads(await answer.read())["id"])


def arrived(stage: FleetStage, path: str) -> RequestRecord | None:
    """The request of this path that reached the API, if one has."""
    return next((one for one in stage.sandbox.requests if one.path.endswith(path)), None)


async def all_reached(stage: FleetStage, outcomes: dict[str, str]) -> None:
    """Wait until the API has each of these requests, and is as far with it as said."""

    async def are_there() -> bool:
        found = {path: arrived(stage, path) for path in outcomes}
        return all(one is not None and one.outcome == outcomes[path] for path, one in found.items())

    await until(are_there)


async def verdict_on(stage: FleetStage, path: str) -> tuple[str, str]:
    """What the journal came to say of the write to this path, asked at the operators' port."""
    record = arrived(stage, path)
    assert record is not None
    name = record.headers["x-request-id"]

    async def told() -> dict[str, Any] | None:
        status, document = await stage.admin("GET", f"/admin/audit/{name}")
        stories = document["items"] if status == 200 else []
        return next((one["verdict"] for one in stories if one["verdict"] is not None), None)

    verdict = await until(told)
    return verdict["result"], verdict["reason"]


async def test_what_a_killed_worker_left_open_is_found_out_after_its_restart(tmp_path: Path) -> None:
    """Three writes are done and three are not when their worker dies, and none of them was answered."""
    async with serving(tmp_path, workers=1, audit=SETTLE) as stage:
        gone_bot, kept_bot = await create(stage, "bot"), await create(stage, "bot")
        contact = await create(stage, "contact")
        writes = {
            f"/bot/{gone_bot}/delete": ("answered", ("happened", "gone")),
            "/secret/create": ("answered", ("happened", "found")),
            f"/bot/{kept_bot}/delete": ("pending", ("did_not_happen", "still_there")),
            f"/contact/{contact}/update": ("pending", ("did_not_happen", "older")),
            "/dataset/create": ("pending", ("did_not_happen", "not_there")),
            "/unheard/of": ("answered", ("undecidable", "no_question")),
        }
        for path, (outcome, _) in writes.items():
            wait_ms = 60_000 if outcome == "pending" else 500
            stage.sandbox.add_fault(f"/v1{path}", "latency", value=wait_ms)
        bearer = stage.bearer()
        asking = [
            asyncio.ensure_future(
                stage.session.post(f"{stage.url}/api/v1{path}", json={"name": "x"}, headers=bearer)
            )
            for path in writes
        ]
        await all_reached(stage, dict.fromkeys(writes, "pending"))
        (worker,) = (await stage.workers()).values()
        os.kill(worker, signal.SIGSTOP)
        await all_reached(stage, {path: outcome for path, (outcome, _) in writes.items()})
        os.kill(worker, signal.SIGKILL)
        await gone(worker)
        await asyncio.gather(*asking, return_exceptions=True)
        await stage.workers_other_than({"w": worker}, 1)
        assert {path: await verdict_on(stage, path) for path in writes} == {
            path: verdict for path, (_, verdict) in writes.items()
        }
        assert await stage.stop() == 0
    report = verify(tmp_path / "audit", keys_at(tmp_path / "audit.signing.pem"))
    assert report.is_good, report.findings


async def test_old_segments_go_while_the_gateway_runs_and_the_rest_verifies(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    retention = {"max_bytes": 6000, "sweep_interval_s": 0.1}
    async with running(tmp_path, valkey_url, audit={**SMALL, "retention": retention}) as stage:
        headers = stage.bearer()
        stones = stage.audit_directory / "w0" / "tombstones"

        async def is_bounded() -> bool:
            await made(stage, "bot", os.urandom(4).hex(), headers)
            return stones.exists() and size_of(stage.audit_directory) < 15_000 and written(stage) > 60

        await until(is_bounded)
    report = verify(stage.audit_directory, keys_at(tmp_path / "audit.signing.pem"))
    assert report.is_good, report.findings


def size_of(directory: Path) -> int:
    """Bytes of all segments."""
    return sum(path.stat().st_size for path in directory.rglob("*.jsonl"))


def written(stage: Stage) -> int:
    """Number of the last durable record."""
    journal = stage.gateway.parts.journal
    return journal.position[1] if journal is not None else 0


class Receiver:
    """An HTTP receiver of batches that can be away."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.records: list[dict[str, Any]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.records += map(orjson.loads, (await request.read()).splitlines())
        return web.Response()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/take", self.take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            yield
        finally:
            await runner.cleanup()


async def test_receivers_that_are_away_touch_no_write_and_get_everything_when_they_are_back(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    away = free_port()
    receiver = Receiver(free_port())
    sinks = {
        "http": {"url": f"http://127.0.0.1:{receiver.port}/take"},
        "otlp": {"url": f"http://127.0.0.1:{away}/v1/logs"},
        "syslog": {"host": "127.0.0.1", "port": away, "tls": False},
        "redis_stream": {"stream": "cbkgw:{audit}:test"},
    }
    retention = {"max_bytes": 1000, "sweep_interval_s": 0.05}
    audit = {**SMALL, "sinks": sinks, "retention": retention}
    async with running(tmp_path, valkey_url, audit=audit) as stage:
        headers = stage.bearer()
        bots = [await made(stage, "bot", f"b{number}", headers) for number in range(20)]
        assert (await post(stage, f"/api/v1/bot/{bots[0]}/delete", {}, headers)).status == 200
        async with receiver.listening():
            await until(answered(receiver, 21))
        in_stream = await stream(store, "cbkgw:{audit}:test", 21)
        on_disk = stage.journal()
    # Nobody's records go before the receivers have them, and two never came.
    assert {one["answer_ids"][0] for one in on_disk if one["kind"] == "outcome"} == set(bots)
    for got in (receiver.records, in_stream):
        numbers = [one["seq"] for one in got]
        assert sorted(set(numbers)) == list(range(1, max(numbers) + 1))
        firsts = [number for place, number in enumerate(numbers) if number not in numbers[:place]]
        assert firsts == sorted(firsts), "a repetition may come, but nothing out of its order"


def answered(receiver: Receiver, count: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many outcomes have arrived."""

    async def has_come() -> bool:
        return len([one for one in receiver.records if one["kind"] == "outcome"]) >= count

    return has_come


async def stream(store: Store, name: str, count: int) -> list[dict[str, Any]]:
    """The records in a stream of the store, once there are so many outcomes."""

    async def look() -> list[dict[str, Any]] | None:
        entries: Any = await store.call(lambda client: client.xrange(name))
        records = [orjson.loads(fields[b"record"]) for _, fields in entries]
        return records if sum(one["kind"] == "outcome" for one in records) >= count else None

    found: list[dict[str, Any]] = await until(look)
    return found


@pytest.mark.long
async def test_one_process_keeps_house_and_another_takes_over_when_it_ends(tmp_path: Path) -> None:
    receiver = Receiver(free_port())
    sinks = {"http": {"url": f"http://127.0.0.1:{receiver.port}/take"}}
    async with receiver.listening(), serving(tmp_path, workers=2, audit={"sinks": sinks}) as stage:
        await create(stage, "bot")
        await until(answered(receiver, 1))
        for victim in (await stage.workers()).values():
            os.kill(victim, signal.SIGKILL)
            await gone(victim)
            await stage.workers_other_than({"victim": victim}, 2)
        count = sum(one["kind"] == "outcome" for one in receiver.records)
        async with aiohttp.ClientSession() as session:
            body, headers = {"name": "after"}, stage.bearer()
            async with session.post(f"{stage.url}/api/v1/bot/create", json=body, headers=headers) as answer:
                assert answer.status == 200
        await until(answered(receiver, count + 1))


@pytest.mark.parametrize("age_s", [0.001, 3600.0])
async def test_segments_are_removed_by_age_and_those_of_a_held_tenant_stay(
    tmp_path: Path, valkey_url: str, store: Store, age_s: float
) -> None:
    retention = {"max_age_s": age_s, "sweep_interval_s": 0.1, "held_tenants": ["partner"]}
    async with running(tmp_path, valkey_url, audit={**SMALL, "retention": retention}) as stage:
        held = await made(stage, "bot", "held", "partner")
        headers = stage.bearer()
        for number in range(12):
            await made(stage, "bot", f"b{number}", headers)

        async def has_swept() -> bool:
            # The tombstone stands before the first of them goes.
            numbers = [int(one.stem) for one in (stage.audit_directory / "w0").glob("*.jsonl")]
            return len(numbers) < max(numbers)

        if age_s < 1:
            await until(has_swept)
    records = stage.journal()
    first = {one["segment"] for one in records if one["kind"] == "segment"}
    assert (len(first) < max(first)) == (age_s < 1)
    assert held in {one for record in records for one in record.get("answer_ids", ())}

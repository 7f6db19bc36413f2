"""What is known before a write is sent and what before its answer leaves, whatever goes side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import orjson
import pytest

from cbk_gateway.cache import Cache, CacheOptions
from cbk_gateway.store import Store, StoreOptions, StoreTrouble, open_store
from harness import Stage, running, tenant
from told_api import JSONL, Asked, told

ACCOUNT = "acme-account"
CREATE, LIST = "/api/v1/bot/create", "/api/v1/bot/list"


@dataclass(frozen=True)
class Known:
    """What store and disk hold at one moment."""

    marks: list[str]
    attempts: int
    shielded: list[str]
    records: list[str]

    @classmethod
    async def now(cls, store: Store, stage: Stage) -> Known:
        client = store.client
        marks = cast("list[bytes]", await client.zrange(f"cbkgw:{{{ACCOUNT}}}:cache:marks", 0, -1))
        shields = [key for key in await client.keys("*:shield:*") if await client.type(key) == b"hash"]
        states = [cast("bytes", await cast("Any", client.hget(key, "state"))) for key in shields]
        return cls(
            marks=[" ".join(mark.decode().split(" ")[::2]) for mark in marks],
            attempts=len(await client.keys("*:attempt:*")),
            shielded=[state.decode() for state in states],
            records=[record["kind"] for record in stage.journal() if record["kind"] in {"intent", "outcome"}],
        )


async def test_all_is_known_before_a_create_is_sent_and_nothing_is_left_when_its_answer_comes(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    seen: list[Known] = []
    stages: list[Stage] = []

    async def answer(one: Asked) -> None:
        seen.append(await Known.now(store, stages[0]))
        await one.say(b'{"id":"b1"}')

    async with told(answer) as api, running(tmp_path, valkey_url, sandbox_url=api.url) as stage:
        stages.append(stage)
        for number in (1, 2):
            async with client.post(stage.url + CREATE, json={"name": "Ada"}, headers=stage.bearer()) as given:
                assert (given.status, await given.read()) == (200, b'{"id":"b1"}')
            after = await Known.now(store, stage)
            # A second one of the same content is another write, not a repetition.
            assert len(seen) == number
            assert (seen[-1].marks, seen[-1].attempts, seen[-1].shielded) == (["s bot"], 1, ["running"])
            assert seen[-1].records.count("intent") == number
            assert (after.marks, after.attempts, after.shielded) == ([], 0, [])


async def test_a_stream_begins_before_its_marks_end(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    stages: list[Stage] = []
    seen: list[Known] = []
    goes_on = asyncio.Event()

    async def answer(one: Asked) -> None:
        seen.append(await Known.now(store, stages[0]))
        await one.begin(JSONL)
        await one.chunk(b'{"type":"token","data":{"token":"a"}}\n')
        await goes_on.wait()
        await one.chunk(b'{"type":"result","data":{"text":"a"}}\n')
        await one.end()

    async with told(answer) as api, running(tmp_path, valkey_url, sandbox_url=api.url) as stage:
        stages.append(stage)
        fields = {**stage.bearer(), "Accept": "application/jsonl"}
        url = f"{stage.url}/api/v1/conversation/complete"
        async with client.post(url, json={"messages": []}, headers=fields) as given:
            first = await given.content.readline()
            assert orjson.loads(first)["type"] == "token"
            assert (seen[0].marks, seen[0].records) == (["o *"], ["intent"])
            assert (await Known.now(store, stage)).marks == ["o *"]
            goes_on.set()
            await given.read()
        async with asyncio.timeout(10):
            while (await Known.now(store, stage)).marks:
                await asyncio.sleep(0.005)


@pytest.mark.parametrize(("body", "status"), [({"name": "Ada"}, 200), ({"name": "Bea"}, 409)])
async def test_a_write_that_is_not_carried_out_takes_back_what_the_caches_were_told(
    stage: Stage, store: Store, client: aiohttp.ClientSession, body: dict[str, str], status: int
) -> None:
    """A replay, and a key that was used for something else."""
    fields = {**stage.bearer(), "Idempotency-Key": "one"}
    async with client.post(stage.url + CREATE, json={"name": "Ada"}, headers=fields) as given:
        assert given.status == 200
    async with client.post(stage.url + CREATE, json=body, headers=fields) as given:
        assert given.status == status
    async with asyncio.timeout(10):
        while (await Known.now(store, stage)).marks:
            await asyncio.sleep(0.005)
        is_hit = False
        while not is_hit:
            async with client.get(stage.url + LIST, headers=stage.bearer()) as given:
                is_hit = "; hit" in given.headers["Cache-Status"]


async def test_a_write_that_cannot_be_recorded_takes_back_what_the_others_were_told(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    strict = tenant("acme", audit_on_failure="refuse")
    async with running(tmp_path, valkey_url, tenants=(strict,)) as stage:
        journal = stage.gateway.parts.journal
        assert journal is not None
        await journal.stop()
        async with client.post(stage.url + CREATE, json={"name": "Ada"}, headers=stage.bearer()) as given:
            assert given.status == 503
        async with asyncio.timeout(10):
            while True:
                known = await Known.now(store, stage)
                if not (known.marks or known.attempts or known.shielded):
                    break
                await asyncio.sleep(0.005)
        assert not [one for one in stage.sandbox.log.records() if one.method == "POST"]


class Calls:
    """Counts calls of a store."""

    def __init__(self) -> None:
        self.count = 0

    def answered(self, seconds: float) -> None:
        del seconds
        self.count += 1

    def failed(self, trouble: StoreTrouble) -> None:
        raise AssertionError(trouble)

    def sent(self, commands: int) -> None:
        del commands

    def available(self, *, is_available: bool) -> None:
        del is_available


@dataclass
class Counted:
    """A cache whose calls are counted, none of which come by themselves."""

    cache: Cache
    calls: Calls = field(default_factory=Calls)


@pytest.fixture
async def counted(valkey_url: str, store: Store) -> AsyncIterator[Counted]:
    calls = Calls()
    async with await open_store(StoreOptions(url=valkey_url, call_timeout_s=2.0), calls) as own:
        cache = Cache(
            own, CacheOptions(lease_s=80.0, heartbeat_s=20.0, death_after_s=120.0, store_is_new=True)
        )
        await cache.start()
        try:
            async with asyncio.timeout(10):
                while not cache.is_live:
                    await asyncio.sleep(0.005)
            yield Counted(cache, calls)
        finally:
            await cache.stop()


@pytest.mark.parametrize("is_open_ended", [False, True])
async def test_a_write_asks_the_store_once_before_it_is_sent_and_once_after_it(
    counted: Counted, is_open_ended: bool
) -> None:
    before = counted.calls.count
    mark = await counted.cache.begin_write(ACCOUNT, frozenset({"bot"}), is_open_ended=is_open_ended)
    begun = counted.calls.count
    await mark.finish()
    assert (begun - before, counted.calls.count - begun) == (1, 1)

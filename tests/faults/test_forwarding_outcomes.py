"""Faults of the upstream through the whole gateway: what the journal says of them is what happened."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cbk_gateway.parties import Rate, TenantLimits
from cbk_gateway.store import Store
from harness import Stage, running, tenant

BODY = b'{"name": "Ada"}'
FAULTS: list[tuple[str, Any, bool, str]] = [
    # fault, value, whether the write was done, the journal's word
    ("status", 400, False, "answered"),
    ("status", 429, False, "answered"),
    ("status", 500, False, "answered"),
    ("status", {"status": 502, "after_effect": True}, True, "answered"),
    ("drop_before", None, False, "unknown"),
    ("drop_before", "reset", False, "unknown"),
    ("drop_after_effect", None, True, "unknown"),
    ("truncate_stream", 4, True, "unknown"),
    ("latency", 20, True, "answered"),
]


async def post(client: aiohttp.ClientSession, stage: Stage, token: str) -> tuple[int, dict[str, str]]:
    fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    async with client.post(f"{stage.url}/api/v1/bot/create", data=BODY, headers=fields) as answer:
        await answer.read()
        return answer.status, dict(answer.headers)


def sent(stage: Stage, word: str) -> int:
    return sum(record.path.endswith(word) for record in stage.sandbox.requests)


def bots(stage: Stage) -> int:
    return sum(row.kind == "bot" for row in stage.sandbox.world.store.all_rows())


async def outcomes(stage: Stage) -> list[dict[str, Any]]:
    await stage.gateway.stop()
    return [record for record in stage.journal() if record["kind"] == "outcome"]


@pytest.mark.parametrize(("fault", "value", "is_done", "word"), FAULTS)
async def test_the_journal_says_of_a_write_what_is_known(
    stage: Stage, client: aiohttp.ClientSession, fault: str, value: Any, is_done: bool, word: str
) -> None:
    stage.sandbox.add_fault("/v1/bot/create", fault, value=value)
    status, fields = await post(client, stage, stage.token())
    assert sent(stage, "/create") == 1, "a write that was sent is never sent again by itself"
    assert bots(stage) == is_done
    if word == "unknown":
        assert (status, fields["x-should-retry"]) == (502, "false")
    (outcome,) = await outcomes(stage)
    assert outcome["result"] == word
    assert outcome["status"] == status


async def test_writes_that_shared_a_refusal_all_hear_it(stage: Stage, client: aiohttp.ClientSession) -> None:
    """Whoever attached to a write that the API refused gets that refusal, not one of the gateway's own."""
    stage.sandbox.add_fault("/v1/bot/create", "latency", value=300)
    stage.sandbox.add_fault("/v1/bot/create", "status", value=400)
    token = stage.token()
    answers = await asyncio.gather(*(post(client, stage, token) for _ in range(4)))
    assert [status for status, _ in answers] == [400] * 4
    assert sent(stage, "/create") == 1


@pytest.mark.parametrize("fault", ["drop_before", "drop_after_effect"])
async def test_a_read_is_repeated_where_a_write_is_not(
    stage: Stage, client: aiohttp.ClientSession, fault: str
) -> None:
    stage.sandbox.add_fault("/v1/bot/list", fault, times=1)
    async with client.get(f"{stage.url}/api/v1/bot/list", headers=stage.bearer()) as answer:
        assert answer.status == 200
    assert sent(stage, "/list") == 2
    assert await outcomes(stage) == []


async def test_a_client_that_leaves_while_the_upstream_works_leaves_an_unknown_outcome(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    stage.sandbox.add_fault("/v1/bot/create", "latency", value=60_000)
    asking = asyncio.create_task(post(client, stage, stage.token()))
    async with asyncio.timeout(20):
        while not sent(stage, "/create"):
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        # The upstream call is given up, so that nobody works for a client that is gone.
        (record,) = [one for one in stage.sandbox.requests if one.path.endswith("/create")]
        while record.outcome != "disconnected":
            await asyncio.sleep(0.01)
    (outcome,) = await outcomes(stage)
    assert outcome["result"] == "unknown"


async def test_a_replay_costs_nothing(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    """A burst of two lasts for two writes and any number of replays."""
    tight = tenant("acme", limits=TenantLimits(rates=(Rate("tenant", 0.0001, 2),)))
    async with running(tmp_path, valkey_url, tenants=(tight,)) as stage:
        fields = {**stage.bearer(), "Idempotency-Key": "one"}
        url = f"{stage.url}/api/v1/bot/create"
        replayed = []
        for _ in range(5):
            async with client.post(url, json={"name": "Ada"}, headers=fields) as answer:
                assert answer.status == 200
                replayed.append("Idempotent-Replayed" in answer.headers)
            await stage.gateway.parts.background.drain(5)
        assert replayed == [False, True, True, True, True]
        assert bots(stage) == 1
        statuses = []
        for key in ("two", "three"):
            async with client.post(
                url, json={"name": key}, headers={**fields, "Idempotency-Key": key}
            ) as answer:
                statuses.append(answer.status)
        assert statuses == [200, 429]


@pytest.mark.parametrize("keeps", [True, False])
async def test_bodies_are_journalled_only_for_tenants_that_asked_for_it(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession, keeps: bool
) -> None:
    async with running(tmp_path, valkey_url, tenants=(tenant("acme", audit_bodies=keeps),)) as stage:
        assert (await post(client, stage, stage.token()))[0] == 200
        await stage.gateway.stop()
        (intent,) = [record for record in stage.journal() if record["kind"] == "intent"]
        assert bool(intent.get("body")) == keeps
        assert intent["request_sha256"]


async def test_what_a_client_reads_as_a_child_is_never_remembered(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    fields = {**stage.bearer("partner"), "X-RunAs-User-ID": "user_child1"}
    for _ in range(2):
        async with client.get(f"{stage.url}/api/v1/bot/list", headers=fields) as answer:
            assert answer.status == 200
            assert "run-as" in answer.headers["Cache-Status"]
    assert sent(stage, "/list") == 2


async def test_a_write_as_a_child_is_seen_at_once_by_the_tenant_of_that_child(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    look = f"{stage.url}/api/v1/bot/list"
    child = stage.bearer("partner-one")
    async with client.get(look, headers=child) as answer:
        assert (await answer.json())["items"] == []
    fields = {**stage.bearer("partner"), "X-RunAs-User-ID": "user_child1"}
    async with client.post(f"{stage.url}/api/v1/bot/create", json={"name": "A"}, headers=fields) as answer:
        made = (await answer.json())["id"]
    async with client.get(look, headers=child) as answer:
        assert [item["id"] for item in (await answer.json())["items"]] == [made]


async def test_an_open_breaker_refuses_writes_before_they_are_sent(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    look = f"{stage.url}/api/v1/bot/list"
    async with client.get(look, headers=stage.bearer()) as answer:
        assert answer.status == 200
    stage.sandbox.add_fault("*", "status", value=503)
    upstream = stage.gateway.parts.upstream
    token = stage.bearer()
    for number in range(200):
        if upstream.is_open("acme-account"):
            break
        async with client.get(f"{stage.url}/api/v1/bot/b{number}/fetch", headers=token) as answer:
            await answer.read()
    assert upstream.is_open("acme-account")
    status, fields = await post(client, stage, stage.token())
    assert (status, "x-should-retry" in fields) == (503, False)
    assert sent(stage, "/create") == 0
    async with client.get(look, headers=stage.bearer()) as answer:
        assert answer.status == 200

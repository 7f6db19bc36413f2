"""What stands in the journal of a running gateway: every documented field, and no other."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import aiohttp
import orjson
import pytest

from cbk_gateway.audit.record import FIELDS, STRUCTURE_FIELDS
from cbk_gateway.secret import Secret
from cbk_gateway.store import Store
from harness import KEYS, Stage, running, tenant
from integration.e2e_calls import all_closed, change, made, post, running_with
from integration.test_admin_changes import CHANGES, LIMITED, MASTER

NEEDS_A_BAD_DISK = {"lost"}
NEEDS_A_DEATH = {"torn_bytes", "torn_sha256"}
NEEDS_AN_EDGE = {"upstream_request_id"}
NEEDS_A_HUGE_RECORD = {"omitted"}
ONLY_SOMETIMES = NEEDS_A_BAD_DISK | NEEDS_A_DEATH | NEEDS_AN_EDGE | NEEDS_A_HUGE_RECORD


async def everything(stage: Stage) -> None:
    """A bit of all that is recorded."""
    headers = {**stage.bearer(), "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "User-Agent": "tests/1"}
    bot = await made(stage, "bot", "Ada", headers)
    await post(stage, f"/api/v1/bot/{bot}/update?note=1", {"name": "Eve", "meta": {"a": "b"}}, headers)
    await post(stage, "/api/v1/conversation/complete", {"messages": []}, headers)
    talk = (await post(stage, "/api/v1/conversation/create", {}, headers)).json["id"]
    several = {"messages": [{"type": "user", "text": f"word {number}"} for number in range(17)]}
    said = await post(stage, f"/api/v1/conversation/{talk}/message/batch/create", several, headers)
    assert said.status == 200, said.body
    await post(stage, "/api/v1/unheard/of/thing", {}, headers)
    await post(stage, "/api/v1/bot/create", {"name": "x"}, "globex")
    await post(stage, "/api/v1/bot/create", {"name": "x"}, "partner", X_RunAs_User_ID="user_child1")
    for _ in range(2):
        await post(stage, "/api/v1/bot/create", {"name": "x"}, headers, Idempotency_Key="k")
    stage.sandbox.add_fault("/v1/bot/*/delete", "drop_after_effect", times=1)
    await post(stage, f"/api/v1/bot/{bot}/delete", {}, headers)
    stage.sandbox.add_fault("/v1/bot/create", "slow_json_error", value=1, times=1)
    await post(stage, "/api/v1/bot/create", {"name": "late"}, headers)
    stage.sandbox.add_fault("/v1/bot/create", "truncate_stream", value=4, times=1)
    await post(stage, "/api/v1/bot/create", {"name": "broken off"}, headers)
    for path, body, _, _ in CHANGES:
        said = await change(stage, f"/admin/{path}", body)
        assert said.status == 200, (path, said.body)
        if path == "tokens/revoke":
            await change(stage, "/admin/tokens/lift", {"id": said.json["id"]})
    await change(stage, "/admin/tokens/revoke", {"tenant": "globex", "issued_before": 5})
    await change(stage, "/admin/cache/purge", {"account": "a", "id": "bot_1"})


async def test_every_field_is_documented_and_every_documented_field_is_written(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    keeping = replace(LIMITED, audit_bodies=True)
    tenants = (keeping, tenant("globex", scopes=("*:read",)), tenant("partner", may_run_as=True))
    audit = {"tag_creates": True, "resolve_after_s": 0.1, "checkpoint_interval_s": 0.1}
    async with running_with(tmp_path, valkey_url, MASTER, tenants=tenants, audit=audit) as stage:
        await everything(stage)
        await all_closed(stage)
        async with asyncio.timeout(30):
            while not {"verdict", "checkpoint"} <= {one["kind"] for one in stage.journal()}:
                await asyncio.sleep(0.05)
    async with running_with(tmp_path, valkey_url, MASTER, tenants=tenants, audit=audit):
        pass
    records = stage.journal()
    written = {name for record in records for name in record}
    documented = FIELDS.keys() | STRUCTURE_FIELDS.keys()
    assert written - documented == set()
    assert documented - written - ONLY_SOMETIMES == set()
    kinds = {one["kind"] for one in records}
    assert all(kind in FIELDS["kind"] for kind in kinds), kinds


@pytest.mark.parametrize("size", [20, 3_000_000], ids=["whole", "streamed"])
async def test_digests_are_of_the_raw_bytes_either_way(stage: Stage, size: int) -> None:
    """A large answer is passed on piece by piece, and its digest is that of all of them."""
    sent = orjson.dumps({"name": "Ada", "description": "x" * 20}, option=orjson.OPT_INDENT_2)
    fields = {**stage.bearer(), "Content-Type": "application/json"}
    stage.sandbox.add_fault("/v1/bot/create", "status", value={"status": 400, "message": "x" * size})
    async with (
        aiohttp.ClientSession(headers=fields) as session,
        session.post(f"{stage.url}/api/v1/bot/create", data=sent) as answer,
    ):
        given = await answer.read()
    await all_closed(stage)
    outcome = next(one for one in stage.journal() if one["kind"] == "outcome")
    assert outcome["request_sha256"] == hashlib.sha256(sent).hexdigest()
    assert (outcome["answer_bytes"], outcome["answer_sha256"]) == (
        len(given),
        hashlib.sha256(given).hexdigest(),
    )


async def test_a_start_and_a_change_of_the_tenants_are_recorded_as_configuration(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    tenants = (tenant("acme"), tenant("globex"))
    async with running(tmp_path, valkey_url, tenants=tenants) as stage:
        await change(stage, "/admin/tenants/globex/disable")
        await stage.gateway.stop()
        (started, changed) = [one for one in stage.journal() if one["kind"] == "config"]
    assert (started["what"], started["tenants"], len(started["settings_sha256"])) == ("started", 2, 64)
    assert (changed["what"], changed["changed"]) == ("tenants", ["globex"])
    async with running(tmp_path, valkey_url, tenants=tenants, telemetry={"tenant_cap": 7}) as stage:
        pass
    (_, _, again) = [one for one in stage.journal() if one["kind"] == "config"]
    assert again["settings_sha256"] != started["settings_sha256"]


async def test_the_redacted_answer_is_kept_where_bodies_are(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with running(tmp_path, valkey_url, tenants=(tenant("acme", audit_bodies=True),)) as stage:
        bot = await made(stage, "bot", "Ada")
        await stage.gateway.stop()
        (outcome,) = [one for one in stage.journal() if one["kind"] == "outcome"]
    assert outcome["body"] == {"id": bot}


async def test_a_record_says_who_what_and_how(tmp_path: Path, valkey_url: str, store: Store) -> None:
    async with running(tmp_path, valkey_url) as stage:
        given = {"status": 429, "headers": {"CF-Ray": "ray-1"}}
        stage.sandbox.add_fault("/v1/dataset/*", "status", value=given)
        headers = {**stage.bearer("partner", "dataset/record:*"), "X-RunAs-User-ID": "user_child1"}
        path = "/api/v1/dataset/d1/record/r1/update?a=1&b=2"
        said = await post(stage, path, {"text": "x"}, headers, User_Agent="tests/1")
        assert said.status == 429, said.body
        await all_closed(stage)
        fingerprint = Secret(KEYS["partner"]).stable_fingerprint(stage.gateway.parts.fingerprint_key)
        records = stage.journal()
    intent, outcome = (next(one for one in records if one["kind"] == kind) for kind in ("intent", "outcome"))
    wanted = {
        "request_id": said.headers["X-Request-Id"],
        "tenant": "partner",
        "subject": "tester",
        "issuer": "minted",
        "scopes": ["dataset/record:*"],
        "client": "127.0.0.1",
        "user_agent": "tests/1",
        "run_as": "user_child1",
        "operation": "dataset.record.update",
        "resource": "dataset/record",
        "action": "update",
        "effect": "write",
        "ids": {"datasetId": "d1", "recordId": "r1"},
        "method": "POST",
        "path": "/dataset/d1/record/r1/update",
        "query": ["a", "b"],
        "key_fingerprint": fingerprint,
        "key_version": "current",
        "content_type": "application/json",
    }
    assert {name: intent.get(name) for name in wanted} == wanted
    assert len(intent["token_id"]) > 8
    told: dict[str, object] = {
        "intent": intent["intent"],
        "result": "answered",
        "status": 429,
        "upstream_attempts": 1,
        "upstream_request_id": "ray-1",
        "request_bytes": intent["request_bytes"],
    }
    assert {name: outcome.get(name) for name in told} == told
    assert "dataset/record" in outcome["invalidated"]
    assert outcome["duration_s"] > 0
    assert intent["seq"] < outcome["seq"]


async def test_the_intent_is_on_disk_while_the_api_has_the_request(stage: Stage) -> None:
    stage.sandbox.add_fault("/v1/bot/create", "latency", value=60_000)
    asking = asyncio.ensure_future(post(stage, "/api/v1/bot/create", {"name": "Ada"}))
    async with asyncio.timeout(20):
        while not (held := [one for one in stage.sandbox.requests if one.method == "POST"]):
            await asyncio.sleep(0.01)
    names = {one["request_id"] for one in stage.journal() if one["kind"] == "intent"}
    assert names == {held[0].headers["x-request-id"]}
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

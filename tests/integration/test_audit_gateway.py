"""The journal in a whole gateway: nothing is sent that is not recorded, and the record holds no secret."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cbk_gateway.audit.verify import keys_at, verify
from cbk_gateway.store import Store
from harness import ADMIN_TOKEN, KEYS, SIGNING_KEY, Stage, running, tenant

FAR_TOO_MUCH = 1 << 60


async def post(
    stage: Stage, path: str, body: dict[str, Any], name: str = "acme"
) -> tuple[int, dict[str, Any]]:
    """One POST; its status and JSON."""
    async with (
        aiohttp.ClientSession(headers=stage.bearer(name)) as session,
        session.post(stage.url + path, json=body) as answer,
    ):
        return answer.status, orjson.loads(await answer.read())


async def get(stage: Stage, path: str) -> int:
    """The status of one GET."""
    async with (
        aiohttp.ClientSession(headers=stage.bearer()) as session,
        session.get(stage.url + path) as answer,
    ):
        await answer.read()
        return answer.status


async def until_short(stage: Stage) -> None:
    """Wait until the journal has looked at the free space."""
    journal = stage.gateway.parts.journal
    assert journal is not None
    async with asyncio.timeout(20):
        for _ in iter(lambda: journal.trouble, "space"):
            await asyncio.sleep(0.01)


async def test_without_a_durable_intent_nothing_is_sent_and_reads_go_on(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with running(tmp_path, valkey_url, audit={"reserve_bytes": FAR_TOO_MUCH}) as stage:
        await until_short(stage)
        status, body = await post(stage, "/api/v1/bot/create", {"name": "Ada"})
        assert (status, body["code"]) == (503, "AUDIT_UNAVAILABLE")
        assert await get(stage, "/api/v1/bot/list") == 200
        assert [one.method for one in stage.sandbox.requests] == ["GET"]


async def test_a_tenant_that_may_writes_without_a_record(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    tenants = (tenant("acme", audit_on_failure="allow"), tenant("globex"))
    short = {"reserve_bytes": FAR_TOO_MUCH}
    async with running(tmp_path, valkey_url, tenants=tenants, audit=short) as stage:
        await until_short(stage)
        assert (await post(stage, "/api/v1/bot/create", {"name": "Ada"}))[0] == 200
        assert (await post(stage, "/api/v1/bot/create", {"name": "Ada"}, "globex"))[0] == 503


async def test_many_writes_at_once_are_all_recorded_and_the_journal_verifies(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with running(tmp_path, valkey_url, audit={"segment_max_bytes": 1 << 20}) as stage:
        answers = await asyncio.gather(
            *(post(stage, "/api/v1/bot/create", {"name": f"b{number}"}) for number in range(60))
        )
        sent = [one for one in stage.sandbox.requests if one.method == "POST"]
    made = {body["id"] for status, body in answers if status == 200}
    assert len(made) == len(sent) == 60
    records = stage.journal()
    intents = {one["intent"] for one in records if one["kind"] == "intent"}
    outcomes = {one["intent"]: one for one in records if one["kind"] == "outcome"}
    assert len(intents) == 60
    assert intents == set(outcomes)
    assert {one["answer_ids"][0] for one in outcomes.values()} == made
    report = verify(stage.audit_directory, keys_at(tmp_path / "audit.signing.pem"))
    assert report.is_good, report.findings


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/api/v1/secret/create",
            {"name": "s", "kind": "shared", "type": "plain", "value": "hidden-value-1"},
        ),
        ("/api/v1/integration/slack/create", {"name": "s", "botToken": "hidden-value-1"}),
        ("/api/v1/contact/create", {"name": "hidden-value-1", "email": "hidden-value-1@example.org"}),
    ],
)
async def test_no_secret_and_no_key_is_in_the_journal(
    tmp_path: Path, valkey_url: str, store: Store, path: str, body: dict[str, Any]
) -> None:
    tenants = (tenant("acme", audit_bodies=True),)
    async with running(tmp_path, valkey_url, tenants=tenants) as stage:
        await post(stage, path, body)
        tokens = list(stage.tokens.values())
    content = b"".join(one.read_bytes() for one in stage.audit_directory.rglob("*.jsonl"))
    assert b'"kind":"intent"' in content
    for secret in ("hidden-value-1", *KEYS.values(), *tokens, SIGNING_KEY, ADMIN_TOKEN):
        assert secret.encode() not in content

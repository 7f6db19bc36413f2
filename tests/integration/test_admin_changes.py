"""What operators change: journalled first, with their name, or not made; and no secret comes back."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.parties import Measure, Period, Quota, Rate, TenantLimits
from cbk_gateway.store import EmbeddedServer, Store
from harness import ADMIN_TOKEN, KEYS, SIGNING_KEY, Stage, tenant
from integration.e2e_calls import (
    TOKENS,
    admin_records,
    change,
    get,
    look,
    roles,
    running_with,
    without_journal,
)

MASTER = {"CBK_GATEWAY_MASTER_KEY": "m1:" + base64.b64encode(bytes(range(32))).decode()}
NEW_KEY = "sk-new-" + "fedcba9876543210" * 3
LIMITED = tenant(
    "acme",
    limits=TenantLimits(
        rates=(Rate("tenant", 1000, 1000),), quotas=(Quota("calls", Period.DAY, Measure.REQUESTS, 1000),)
    ),
)
DEFINITION = {"id": "fresh", "account": "fresh", "scopes": ["*:read"]}

# In this order each can be done: what, its body, and what the journal says of it beside who and what.
CHANGES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("tokens/mint", {"tenant": "acme", "subject": "web"}, "token.mint", {"tenant": "acme", "subject": "web"}),
    (
        "tokens/revoke",
        {"tenant": "globex", "note": "why"},
        "token.revoke",
        {"tenant": "globex", "note": "why"},
    ),
    ("tenants", {"definition": DEFINITION, "key": NEW_KEY}, "tenant.create", {"tenant": "fresh"}),
    ("tenants/fresh/disable", {}, "tenant.disable", {"tenant": "fresh"}),
    ("tenants/fresh/enable", {}, "tenant.enable", {"tenant": "fresh"}),
    ("tenants/acme/key/rotate", {"key": NEW_KEY + "2"}, "key.rotate", {"tenant": "acme"}),
    ("tenants/acme/key/drop", {}, "key.drop", {"tenant": "acme"}),
    ("tenants/acme/key/rotate", {"key": NEW_KEY + "3"}, "key.rotate", {"tenant": "acme"}),
    ("tenants/acme/key/promote", {}, "key.promote", {"tenant": "acme"}),
    ("keys/reseal", {}, "keys.reseal", {}),
    ("tenants/fresh/delete", {}, "tenant.delete", {"tenant": "fresh"}),
    ("limits/acme/reset", {"policy": "tenant"}, "limit.reset", {"tenant": "acme", "policy": "tenant"}),
    ("quotas/acme/grant", {"quota": "calls", "amount": 5}, "quota.grant", {"quota": "calls", "amount": 5}),
    ("quotas/acme/reset", {"quota": "calls"}, "quota.reset", {"tenant": "acme", "quota": "calls"}),
    ("cache/purge", {"account": "a", "types": ["bot"]}, "cache.purge", {"account": "a", "types": ["bot"]}),
    ("log-level", {"level": "info"}, "log.level", {"level": "info"}),
    ("reload", {}, "tenants.reload", {}),
]


@pytest.fixture
async def stage(tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[Stage]:
    """A stage that can seal keys, with an operator of each role."""
    tenants = (LIMITED, tenant("globex"))
    async with running_with(tmp_path, valkey_url, MASTER, tenants=tenants, admin=roles(tmp_path)) as one:
        yield one


async def test_every_change_is_in_the_journal_with_who_made_it_and_without_secrets(stage: Stage) -> None:
    secrets = [*KEYS.values(), NEW_KEY, SIGNING_KEY, ADMIN_TOKEN, *MASTER.values(), *TOKENS.values()]
    answers: list[bytes] = []
    for place, (path, body, what, fields) in enumerate(CHANGES):
        said = await change(stage, f"/admin/{path}", body, TOKENS["admin"])
        assert said.status == 200, (path, said.body)
        records = admin_records(stage)
        assert len(records) == place + 1
        told = records[-1]
        assert (told["operator"], told["change"]) == ("the-admin", what)
        assert fields.items() <= told.items()
        answers.append(said.body)
        if path == "tokens/mint":
            secrets.append(said.json["token"])
    shown = ("tenants", "tenants/acme", "settings", "tokens/revocations", "audit?limit=1000", "openapi.json")
    answers += [(await look(stage, f"/admin/{path}", TOKENS["viewer"])).body for path in shown]
    minted, *others = answers
    assert secrets[-1].encode() in minted
    journal = b"".join(file.read_bytes() for file in stage.audit_directory.rglob("*.jsonl"))
    for secret in secrets:
        assert all(secret.encode() not in answer for answer in others)
        assert secret.encode() not in journal


async def test_the_api_description_names_every_change_the_journal_knows(stage: Stage) -> None:
    said = await look(stage, "/admin/openapi.json", TOKENS["viewer"])
    served = {path for path, operations in said.json["paths"].items() if "post" in operations}
    tried = {f"/admin/{path}" for path, *_ in CHANGES} | {"/admin/tokens/lift"}
    for name in ("acme", "fresh"):
        tried = {path.replace(f"/{name}/", "/{id}/") for path in tried}
    assert tried == served


async def test_a_change_that_cannot_be_journalled_is_not_made(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    sections = {"admin": roles(tmp_path), "audit": {"deadline_ms": 300}}
    tenants = (LIMITED, tenant("globex"))
    async with running_with(tmp_path, valkey_url, MASTER, tenants=tenants, **sections) as stage:
        with without_journal(stage):
            for path, body, _, _ in CHANGES:
                said = await change(stage, f"/admin/{path}", body, TOKENS["admin"])
                assert said.status == 503, (path, said.body)
                assert said.code == "AUDIT_UNAVAILABLE"
                assert "token" not in said.json
            shown = await look(stage, "/admin/tenants", TOKENS["viewer"])
            assert [(one["id"], one["disabled"]) for one in shown.json["items"]] == [
                ("acme", False),
                ("globex", False),
            ]
            assert (await look(stage, "/admin/tokens/revocations", TOKENS["viewer"])).json == {"items": []}
            assert (await get(stage, "/api/v1/bot/list", "globex")).status == 200
            assert (await look(stage, "/admin/audit", TOKENS["viewer"])).status == 503


async def test_a_failed_change_was_journalled_before_it_was_tried(
    tmp_path: Path,
) -> None:
    """With the store away a change fails, and stands in the journal nevertheless: as what somebody tried."""
    folder = tmp_path / "valkey"
    folder.mkdir(mode=0o700)
    server = EmbeddedServer(folder)
    server.start()
    try:
        tenants = (LIMITED, tenant("globex"))
        environ = {"store": {"timeout_ms": 200}, "admin": roles(tmp_path)}
        async with running_with(tmp_path, server.url, MASTER, tenants=tenants, **environ) as stage:
            server.stop()
            away = [
                *("tokens/revoke", "tenants", "tenants/acme/disable", "tenants/acme/key/rotate"),
                *("limits/acme/reset", "quotas/acme/grant", "quotas/acme/reset", "cache/purge"),
            ]
            bodies = {path: body for path, body, _, _ in CHANGES}
            for place, path in enumerate(away):
                said = await change(stage, f"/admin/{path}", bodies.get(path, {}), TOKENS["admin"])
                assert (said.status, said.code) == (503, "SERVICE_UNAVAILABLE"), (path, said.body)
                assert len(admin_records(stage)) == place + 1
            for path in ("limits/acme", "tokens/revocations", "cache?account=acme-account"):
                said = await look(stage, f"/admin/{path}", TOKENS["viewer"])
                assert (said.status, said.code) == (503, "SERVICE_UNAVAILABLE"), (path, said.body)
            for path in ("tenants", "settings", "audit", "explain?path=/api/v1/bot/list"):
                assert (await look(stage, f"/admin/{path}", TOKENS["viewer"])).status == 200
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("tenants/nobody/disable", {}, 404, "nobody"),
        ("tenants/acme/delete", {}, 409, "file"),
        ("tenants/acme/key/promote", {}, 409, "next key"),
        (
            "tenants",
            {"definition": {"id": "acme", "account": "x", "scopes": ["*"]}, "key": NEW_KEY},
            409,
            "already",
        ),
        (
            "tenants",
            {"definition": {"id": "x", "account": "x", "colour": 1}, "key": NEW_KEY},
            400,
            "definition",
        ),
        ("tenants", {"definition": {"id": "x", "account": "x", "key": "sk-in-clear"}}, 400, "definition"),
        (
            "tenants",
            {"definition": {"id": "x", "account": "x", "scopes": ["*"]}, "key": KEYS["acme"]},
            400,
            "definition",
        ),
        ("tenants", {"definition": {"id": "x", "account": "x"}, "key": "short"}, 400, "key"),
        ("limits/acme/reset", {"policy": "nothing"}, 404, "nothing"),
        ("quotas/acme/grant", {"quota": "nothing", "amount": 5}, 404, "nothing"),
        ("quotas/acme/grant", {"quota": "calls", "amount": -5}, 400, "amount"),
        ("cache/purge", {"account": "a", "types": ["robot"]}, 400, "type"),
        ("log-level", {"level": "loud"}, 400, "level"),
        ("tokens/mint", {"tenant": "nobody"}, 404, "tenant"),
        ("tokens/mint", {"tenant": "acme", "ttl_s": 10**9}, 400, ""),
        ("tokens/mint", {"tenant": "acme", "scopes": ["not a scope"]}, 400, "scope"),
        ("tokens/lift", {"id": "tenant-0123"}, 404, "revocation"),
        ("tokens/revoke", {}, 400, "revoke"),
        ("tokens/revoke", {"subject": "web"}, 400, "tenant"),
        ("tokens/revoke", {"token_id": "x", "tenant": "acme"}, 400, "alone"),
    ],
)
async def test_what_cannot_be_done_says_why(
    stage: Stage, path: str, body: dict[str, Any], status: int, says: str
) -> None:
    said = await change(stage, f"/admin/{path}", body, TOKENS["admin"])
    codes = {400: "BAD_REQUEST", 404: "NOT_FOUND", 409: "CONFLICT"}
    assert (said.status, said.code) == (status, codes[status])
    assert says in said.json["message"], said.json
    for secret in ("sk-in-clear", NEW_KEY, KEYS["acme"]):
        assert secret.encode() not in said.body


async def test_the_settings_are_shown_with_references_and_no_secret(stage: Stage) -> None:
    shown = (await look(stage, "/admin/settings", TOKENS["viewer"])).json
    assert shown["identity"]["mint"]["keys"][0]["key"] == "env:TEST_SIGNING"
    assert shown["admin"]["tokens"][0] == {
        "name": "the-viewer",
        "token": "file:viewer.token",
        "role": "viewer",
    }

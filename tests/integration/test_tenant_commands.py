"""`tenant ...` and `explain` against a running gateway: each command does what it says, and shows no key."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.store import Store
from harness import KEYS, Stage, tenant
from integration.commands_here import Command, commands
from integration.e2e_calls import admin_records, look, running_with

OLD = "m1:" + base64.b64encode(bytes(range(32))).decode()
NEW = "m2:" + base64.b64encode(bytes(range(1, 33))).decode()
SECOND = "sk-second-" + "0123456789abcdef" * 3
TENANTS = """\
tenants:
  - {id: acme, account: acme, key: env:NOT_HERE, scopes: ["*", "!secret:*"]}
  - {id: globex, account: globex, key: env:NOT_HERE_TOO, scopes: ["bot:read"]}
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    return commands(monkeypatch)


async def test_every_command_about_one_tenant_acts_on_that_one(
    tmp_path: Path, valkey_url: str, store: Store, command: Command
) -> None:
    tenants = (tenant("acme"), tenant("globex"))
    async with running_with(
        tmp_path, valkey_url, {"CBK_GATEWAY_MASTER_KEY": OLD}, tenants=tenants, keys={SECOND: "acme"}
    ) as stage:
        ran = await command(stage, "tenant", "rotate", "acme", "--expires-at", "2000000000", stdin=SECOND)
        assert ran.json["nextKeyExpires"] == 2_000_000_000, ran.err
        shown = []
        for name in ("show", "drop", "disable", "enable", "delete", "promote"):
            ran = await command(stage, "tenant", name, "acme")
            shown.append((name, ran.code, ran.json["disabled"] if ran.code == 0 else ran.err.strip()))
            assert KEYS["acme"] not in ran.out + ran.err
            assert SECOND not in ran.out + ran.err
        assert [row[:2] for row in shown] == [
            ("show", 0),
            ("drop", 0),
            ("disable", 0),
            ("enable", 0),
            ("delete", 4),
            ("promote", 4),
        ]
        assert [row[2] for row in shown[:4]] == [False, False, True, False]
        assert "defined in the file" in str(shown[4][2])
        assert "no next key" in str(shown[5][2])
        changes = [(one["change"], one.get("tenant")) for one in admin_records(stage)]
        assert [what for what, _ in changes] == [
            "key.rotate",
            "key.drop",
            "tenant.disable",
            "tenant.enable",
            "tenant.delete",
            "key.promote",
        ]
        assert {whom for _, whom in changes} == {"acme"}
        # A name is a name, not a path.
        ran = await command(stage, "tenant", "disable", "acme/key/promote?x=")
        assert ran.code == 4
        assert (await look(stage, "/admin/tenants/globex")).json["disabled"] is False


async def test_stored_keys_are_sealed_anew_and_the_old_master_key_can_go(
    tmp_path: Path, valkey_url: str, store: Store, command: Command
) -> None:
    tenants, keys = (tenant("acme"),), {SECOND: "acme"}
    async with running_with(
        tmp_path, valkey_url, {"CBK_GATEWAY_MASTER_KEY": OLD}, tenants=tenants, keys=keys
    ) as stage:
        assert (await command(stage, "tenant", "rotate", "acme", stdin=SECOND)).code == 0
    both = {"CBK_GATEWAY_MASTER_KEY": f"{NEW},{OLD}"}
    async with running_with(tmp_path, valkey_url, both, tenants=tenants, keys=keys) as stage:
        assert [(await command(stage, "tenant", "reseal")).json for _ in range(2)] == [
            {"resealed": 1},
            {"resealed": 0},
        ]
    alone = {"CBK_GATEWAY_MASTER_KEY": NEW}
    async with running_with(tmp_path, valkey_url, alone, tenants=tenants, keys=keys) as stage:
        assert (await look(stage, "/admin/tenants/acme")).json["nextKey"] is not None


async def test_both_explanations_say_who_may_do_what_and_why(stage: Stage, command: Command) -> None:
    (stage.folder / "tenants.yaml").write_text(TENANTS)

    async def explained(*arguments: str) -> Any:
        ran = await command(
            stage, "explain", "POST", "/api/v1/bot/b1/delete", *arguments, "-c", "gateway.yaml"
        )
        assert ran.code == 0, ran.err
        return ran.json

    everybody = {row["id"]: row["allowed"] for row in (await explained("--tenant", "*"))["tenants"]}
    assert everybody == {"acme": True, "globex": False}
    narrow = (await explained("--tenant", "acme", "--scope", "bot[b2]:*", "--scope", "*:read"))["tenant"]
    assert (narrow["allowed"], narrow["tenant_rule"], narrow["token_rule"]) == (False, "*", None)
    assert narrow["needed_scope"] == "bot:delete"
    assert "token lacks" in narrow["because"]

    asked = "/admin/explain?method=GET&path=/api/v1/bot/b1/fetch"
    said = (await look(stage, f"{asked}&tenant=globex&scope=bot[b1]:fetch !bot:list")).json["tenant"]
    assert (said["allowed"], said["token_rule"]) == (True, "bot[b1]:fetch")
    said = (await look(stage, f"{asked}&tenant=acme&scope=*:read !bot[b*]:fetch")).json["tenant"]
    assert (said["allowed"], said["token_rule"]) == (False, "!bot[b*]:fetch")
    said = (await look(stage, f"{asked}&tenant=acme&scope=")).json["tenant"]
    assert said["allowed"] is False
    everybody = (await look(stage, f"{asked}&tenant=*&scope=bot:write")).json["tenants"]
    assert {row["allowed"] for row in everybody} == {False}
    assert all("lacks the scope" in row["because"] for row in everybody)

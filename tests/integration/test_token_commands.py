"""`token mint`, here and by a running gateway: who learns of it, and what it needs."""

from __future__ import annotations

import base64
from pathlib import Path

import jwt
import pytest

from cbk_gateway.store import Store
from harness import SIGNING_KEY, Stage
from integration.commands_here import Command, commands
from integration.e2e_calls import admin_records, bearer, change, get, running_with

MASTER = {"CBK_GATEWAY_MASTER_KEY": "m1:" + base64.b64encode(bytes(range(32))).decode()}
FIRST = "sk-first-" + "0123456789abcdef" * 3
LIST = "/api/v1/bot/list"
# References that lead nowhere on this machine: whoever mints needs no upstream keys.
TENANTS = """\
tenants:
  - {id: acme, account: acme, key: env:NOT_HERE, scopes: ["*"]}
  - {id: globex, account: globex, key: vault:secret/cbk/globex#key, scopes: ["*:read"]}
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    return commands(monkeypatch)


def id_of(token: str) -> str:
    claims = jwt.decode(token, SIGNING_KEY, ["HS256"], audience="cbk-gateway")
    return str(claims["jti"])


async def test_a_token_signed_here_says_that_no_journal_knows_it(stage: Stage, command: Command) -> None:
    (stage.folder / "tenants.yaml").write_text(TENANTS)
    for tenant in ("acme", "globex"):
        ran = await command(stage, "token", "mint", "--tenant", tenant, "-c", "gateway.yaml")
        assert ran.code == 0, ran.err
        # What stands on stdout is the token alone, for scripts.
        token = ran.out.strip()
        assert f"Token {id_of(token)}, signed here: it is in no journal." in ran.err
        assert token not in ran.err
        assert (await get(stage, LIST, bearer(token))).status == 200
    assert admin_records(stage) == []
    ran = await command(stage, "token", "mint", "--tenant", "fresh", "-c", "gateway.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert "--admin-url" in ran.err


async def test_a_token_signed_by_a_gateway_is_journalled_there(
    tmp_path: Path, valkey_url: str, store: Store, command: Command
) -> None:
    async with running_with(tmp_path, valkey_url, MASTER, keys={FIRST: "fresh"}) as stage:
        definition = {"id": "fresh", "account": "fresh", "scopes": ["*"]}
        await change(stage, "/admin/tenants", {"definition": definition, "key": FIRST})
        # It needs no settings file, and knows tenants that stand in none.
        asked = ("--tenant", "fresh", "--subject", "web", "--scope", "bot:list", "--ttl", "60")
        ran = await command(stage, "token", "mint", *asked, "--admin-url", stage.admin_url)
        assert ran.code == 0, ran.err
        token = ran.out.strip()
        record = admin_records(stage)[-1]
        assert (record["change"], record["operator"]) == ("token.mint", "tester")
        assert (record["tenant"], record["subject"], record["scopes"]) == ("fresh", "web", ["bot:list"])
        assert record["token_id"] == id_of(token)
        assert record["token_id"] in ran.err
        assert token not in ran.err
        assert (await get(stage, LIST, bearer(token))).status == 200
        assert (await get(stage, "/api/v1/dataset/list", bearer(token))).status == 403
        ran = await command(stage, "token", "mint", "--tenant", "nobody", "--admin-url", stage.admin_url)
        assert (ran.code, ran.out) == (4, "")
        assert "404" in ran.err

"""The commands that talk to a running gateway, and those that read its journal, as real processes."""

from __future__ import annotations

import asyncio
import base64
import shutil
import signal
from pathlib import Path

import orjson
import pytest

from cbk_gateway.audit.redaction import digest_for
from cbk_gateway.parties import Measure, Period, Quota, Rate, TenantLimits
from cbk_gateway.store import Store
from harness import ADMIN_TOKEN, KEYS, Stage, running, tenant
from integration.e2e_calls import (
    admin_records,
    all_closed,
    arrived,
    ask,
    bearer,
    command,
    get,
    look,
    made,
    post,
    running_with,
    started,
)

MASTER = {"CBK_GATEWAY_MASTER_KEY": "m1:" + base64.b64encode(bytes(range(32))).decode()}
FIRST = "sk-first-" + "0123456789abcdef" * 3
SECOND = "sk-second-" + "0123456789abcdef" * 3
LIST = "/api/v1/bot/list"
TENANTS = """\
tenants:
  - {id: acme, account: acme-account, key: env:ACME_KEY, scopes: ["*"]}
  - {id: globex, account: globex-account, key: env:GLOBEX_KEY, scopes: ["*:read"]}
"""


async def test_a_token_is_minted_revoked_and_let_in_again(stage: Stage) -> None:
    (stage.folder / "tenants.yaml").write_text(TENANTS)
    keys = {f"{name.upper()}_KEY": KEYS[name] for name in ("acme", "globex")}
    ran = await command(
        stage, "token", "mint", "--tenant", "acme", "--subject", "web", "--config", "gateway.yaml", **keys
    )
    assert ran.code == 0, ran.err
    headers = bearer(ran.out.strip())
    await get(stage, LIST, headers)
    assert (await get(stage, LIST, headers)).is_hit
    ran = await command(stage, "token", "revoke", "--tenant", "acme", "--subject", "web", "--note", "lost")
    assert ran.code == 0, ran.err
    assert (await get(stage, LIST, headers)).status == 401
    listed = await command(stage, "token", "revocations")
    assert [(one["id"], one["note"]) for one in listed.json["items"]] == [(ran.json["id"], "lost")]
    assert (await command(stage, "token", "lift", ran.json["id"])).code == 0
    assert (await get(stage, LIST, headers)).status == 200
    assert [one["change"] for one in admin_records(stage)] == ["token.revoke", "token.lift"]
    assert {one["operator"] for one in admin_records(stage)} == {"tester"}


async def test_a_tenant_is_made_rekeyed_stopped_and_removed(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    file = tmp_path / "fresh.yaml"
    file.write_text("{id: fresh, account: fresh, scopes: ['*']}\n")
    async with running_with(tmp_path, valkey_url, MASTER, keys={FIRST: "fresh", SECOND: "fresh"}) as stage:
        ran = await command(stage, "tenant", "create", str(file), "--key-from-stdin", stdin=FIRST + "\n")
        assert ran.code == 0, ran.err
        assert FIRST not in ran.out + ran.err
        await made(stage, "bot", "Ada", "fresh")
        ran = await command(stage, "tenant", "rotate", "fresh", stdin=SECOND + "\n")
        assert (ran.code, SECOND in ran.out) == (0, False)
        assert (await command(stage, "tenant", "promote", "fresh")).json["nextKey"] is None
        await made(stage, "bot", "Bea", "fresh")
        sent = [one.headers["authorization"] for one in arrived(stage) if one.method == "POST"]
        assert sent == [f"Bearer {FIRST}", f"Bearer {SECOND}"]
        listed = await command(stage, "tenant", "list")
        assert "fresh" in listed.out
        assert "acme" in listed.out
        assert (await command(stage, "tenant", "disable", "fresh")).json["disabled"] is True
        assert (await get(stage, LIST, "fresh")).status == 403
        assert (await command(stage, "tenant", "delete", "fresh")).code == 0
        ran = await command(stage, "tenant", "show", "fresh")
        assert (ran.code, "404" in ran.err, "Traceback" in ran.err) == (4, True, False)


async def test_limits_and_quotas_are_shown_given_and_reset(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    limits = TenantLimits(
        rates=(Rate("tenant", 0.001, 2),), quotas=(Quota("calls", Period.DAY, Measure.REQUESTS, 100),)
    )
    async with running(tmp_path, valkey_url, tenants=(tenant("acme", limits=limits),)) as stage:
        headers = stage.bearer()
        assert [(await get(stage, LIST, headers)).status for _ in range(3)] == [200, 200, 429]
        assert (await command(stage, "limit", "reset", "acme")).json == {"filled": ["tenant"]}
        assert (await get(stage, LIST, headers)).status == 200
        shown = (await command(stage, "limit", "show", "acme")).json
        seen = (await look(stage, "/admin/limits/acme")).json
        # Tokens flow in while one looks.
        assert seen["rates"][0].pop("tokens") >= shown["rates"][0].pop("tokens")
        assert shown == seen
        granted = await command(stage, "quota", "grant", "acme", "calls", "50")
        assert granted.json["used"] == shown["quotas"][0]["used"] - 50
        assert "calls" in (await command(stage, "quota", "show", "acme")).out
        assert (await command(stage, "quota", "reset", "acme", "calls")).json["used"] == 0
        ran = await command(stage, "quota", "reset", "acme", "nothing")
        assert (ran.code, "nothing" in ran.err) == (4, True)


async def test_the_cache_is_shown_and_purged(stage: Stage) -> None:
    headers = stage.bearer()
    await get(stage, LIST, headers)
    assert (await get(stage, LIST, headers)).is_hit
    shown = (await command(stage, "cache", "show", "acme-account", "--type", "bot")).json
    assert len(shown["items"]) == 1
    assert (await command(stage, "cache", "purge", "acme-account", "--type", "bot")).code == 0
    assert not (await get(stage, LIST, headers)).is_hit


async def test_both_explanations_agree(stage: Stage) -> None:
    (stage.folder / "tenants.yaml").write_text(TENANTS)
    asked = ("POST", "/api/v1/bot/b1/delete")
    ran = await command(stage, "explain", *asked, "--config", "gateway.yaml")
    said = await ask(
        "GET",
        f"{stage.admin_url}/admin/explain?method={asked[0]}&path={asked[1]}",
        bearer(ADMIN_TOKEN),
    )
    assert ran.json == said.json
    keys = {f"{name.upper()}_KEY": KEYS[name] for name in ("acme", "globex")}
    ran = await command(stage, "explain", *asked, "--tenant", "globex", "--config", "gateway.yaml", **keys)
    said = await look(stage, f"/admin/explain?method={asked[0]}&path={asked[1]}&tenant=globex")
    assert ran.json["tenant"]["allowed"] is said.json["tenant"]["allowed"] is False
    assert ran.json["tenant"]["id"] == said.json["tenant"]["id"] == "globex"


async def test_a_journal_is_verified_searched_shown_and_exported(stage: Stage) -> None:
    headers = stage.bearer()
    bot = await made(stage, "bot", "Ada", headers)
    await post(stage, f"/api/v1/bot/{bot}/delete", {}, headers)
    refusal = await post(stage, "/api/v1/bot/create", {"name": "x"}, "globex")
    await all_closed(stage)
    ran = await command(stage, "audit", "verify", "audit", "--json")
    assert (ran.code, ran.json["good"]) == (0, True), ran.out

    ran = await command(stage, "audit", "search", "audit", "--id", bot, "--form", "json")
    found = [orjson.loads(line) for line in ran.out.splitlines()]
    assert [(one["kind"], one["operation"]) for one in found] == [
        ("outcome", "bot.create"),
        ("intent", "bot.delete"),
        ("outcome", "bot.delete"),
    ]
    ran = await command(stage, "audit", "show", "audit", found[1]["request_id"])
    assert ran.json["outcome"]["result"] == "answered"
    ran = await command(stage, "audit", "show", "audit", refusal.headers["X-Request-Id"])
    assert ran.json["others"][0]["status"] == 403
    ran = await command(stage, "audit", "export", "audit", "--tenant", "acme")
    exported = [orjson.loads(line) for line in ran.out.splitlines()]
    assert {one["class_uid"] for one in exported} == {6003}
    ran = await command(stage, "audit", "search", "audit", "--tenant", "acme", "--form", "csv")
    assert (ran.code, "bot.delete" in ran.out) == (0, True)


async def test_a_tampered_journal_is_found_out(stage: Stage) -> None:
    for number in range(3):
        await made(stage, "bot", f"b{number}")
    copy = stage.folder / "copy"
    shutil.copytree(stage.audit_directory, copy)
    file = next(copy.rglob("*.jsonl"))
    file.write_bytes(file.read_bytes().replace(b'"acme"', b'"evil"', 1))
    ran = await command(stage, "audit", "verify", "copy", "--key", "audit.signing.pem")
    assert ran.code == 1
    assert file.name in ran.out


async def test_a_followed_journal_shows_writes_as_they_happen(stage: Stage) -> None:
    await made(stage, "bot", "before")
    await all_closed(stage)
    process = await started(stage, "audit", "tail", "audit", "-f", "--tenant", "acme")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert b"bot.create" in await process.stdout.readline()
            assert b"bot.create" in await process.stdout.readline()
            # What is written before it looks for the first time is among the old ones: write until it tells.
            while True:
                await made(stage, "dataset", "new")
                try:
                    line = await asyncio.wait_for(process.stdout.readline(), 1)
                except TimeoutError:
                    continue
                break
        assert b"dataset.create" in line
    finally:
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, b"Traceback" in err) == (0, False)


async def test_a_known_value_is_found_by_its_digest(tmp_path: Path, valkey_url: str, store: Store) -> None:
    value = "the-secret-of-a-client"
    async with running(tmp_path, valkey_url, tenants=(tenant("acme", audit_bodies=True),)) as stage:
        body = {"name": "s", "kind": "shared", "type": "plain", "value": value}
        assert (await post(stage, "/api/v1/secret/create", body)).status == 200
        ran = await command(stage, "audit", "digest", "--tenant", "acme", "-c", "gateway.yaml", stdin=value)
        digest = ran.out.strip()
        key = stage.gateway.parts.fingerprint_key
        assert digest == digest_for(key, "acme", value)
        assert digest != digest_for(key, "globex", value)
        await all_closed(stage)
        found = (await look(stage, f"/admin/audit?text={digest}")).json["items"]
    assert [one["operation"] for one in found] == ["secret.create"]


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "says"),
    [
        (("tenant", "list"), {"CBK_GATEWAY_ADMIN_TOKEN": ""}, 2, "CBK_GATEWAY_ADMIN_TOKEN"),
        (("tenant", "list"), {"CBK_GATEWAY_ADMIN_TOKEN": "nobodys"}, 4, "401"),
        (("tenant", "list"), {"CBK_GATEWAY_ADMIN_URL": "http://127.0.0.1:1"}, 4, "127.0.0.1:1"),
        (("token", "revoke"), {}, 4, "revoke"),
        (("audit", "search", "nowhere"), {}, 4, "nowhere"),
    ],
)
async def test_a_command_that_cannot_go_on_says_why_in_a_sentence(
    stage: Stage, arguments: tuple[str, ...], variables: dict[str, str], code: int, says: str
) -> None:
    ran = await command(stage, *arguments, **variables)
    assert (ran.code, says in ran.err) == (code, True), ran.err
    assert "Traceback" not in ran.err
    assert "nobodys" not in ran.err

"""Tenants of a file, and the keys it names, changed under a running gateway."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer
from prometheus_client.parser import text_string_to_metric_families

from cbk_gateway.app import Gateway
from cbk_gateway.sandbox import Sandbox
from cbk_gateway.settings.load import load
from cbk_gateway.store import Store
from cbk_gateway.telemetry import configure_logging, flush_logs
from harness import ADMIN_TOKEN, KEYS, SIGNING_KEY, Stage, assert_alike, settings_document
from integration.e2e_calls import arrived, change, get, look, post

FIRST = "sk-first-" + "0123456789abcdef" * 3
SECOND = "sk-second-" + "0123456789abcdef" * 3
ACME = {"id": "acme", "account": "acme", "key": "file:acme.key", "scopes": ["*"]}
GLOBEX = {"id": "globex", "account": "globex", "key": "env:GLOBEX_KEY", "scopes": ["*"]}
LIST = "/api/v1/bot/list"


@asynccontextmanager
async def filed(
    folder: Path, store_url: str, *tenants: dict[str, Any], **sections: Any
) -> AsyncIterator[Stage]:
    """A gateway whose tenants stand in a file, as in production."""
    write(folder, *tenants)
    (folder / "acme.key").write_text(FIRST + "\n")
    async with Sandbox({FIRST: "acme", SECOND: "acme", KEYS["globex"]: "globex"}) as sandbox:
        settings = settings_document(sandbox.url, store_url, **sections)
        (folder / "gateway.yaml").write_text(yaml.safe_dump(settings))
        environ = {"TEST_SIGNING": SIGNING_KEY, "TEST_ADMIN": ADMIN_TOKEN, "GLOBEX_KEY": KEYS["globex"]}
        async with Gateway(load(folder / "gateway.yaml", environ=environ)) as gateway:
            yield Stage(gateway, sandbox, folder)
            assert_alike(gateway)


def write(folder: Path, *tenants: dict[str, Any]) -> None:
    part = folder / "tenants.part"
    part.write_text(yaml.safe_dump({"tenants": list(tenants)}))
    part.replace(folder / "tenants.yaml")


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():
            await asyncio.sleep(0.02)


def metric(stage: Stage, name: str, /, **labels: str) -> float | None:
    body, _ = stage.gateway.parts.metrics.exposition("")
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


async def problems(stage: Stage) -> list[str]:
    ready = await look(stage, "/readyz")
    assert ready.status == 200, ready.body
    found: list[str] = ready.json["problems"]
    return found


async def test_a_broken_file_keeps_everybody_and_says_so_everywhere(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    log = io.StringIO()
    configure_logging("info", "json", log)
    try:
        async with filed(tmp_path, valkey_url, ACME) as stage:
            assert await problems(stage) == []
            (tmp_path / "tenants.yaml").write_text("tenants: [{id: acme, key: env:NONE, scops: []}]\n")

            async def is_told() -> bool:
                return bool(await problems(stage))

            await until(is_told)
            told = " ".join(await problems(stage))
            assert "tenants.yaml" in told
            assert "scops" in told
            assert metric(stage, "cbk_gateway_tenant_source_healthy", source="file") == 0
            assert (await get(stage, LIST)).status == 200
            # A whole new file is taken at once and as a whole, and nothing more is wrong.
            write(tmp_path, GLOBEX)

            async def is_taken() -> bool:
                return (await get(stage, LIST, "globex")).status == 200

            await until(is_taken)
            assert (await get(stage, LIST)).status == 401
            assert await problems(stage) == []
            assert metric(stage, "cbk_gateway_tenant_source_healthy", source="file") == 1
        flush_logs()
    finally:
        configure_logging("warning", "json", io.StringIO())
    events = log.getvalue()
    assert '"tenants_file_broken"' in events
    assert '"tenants_file_usable"' in events


async def test_a_secret_file_that_changes_is_what_arrives_next(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with filed(tmp_path, valkey_url, ACME) as stage:
        await post(stage, "/api/v1/bot/create", {"name": "a"})
        (tmp_path / "acme.key").write_text(SECOND + "\n")

        async def has_changed() -> bool:
            await post(stage, "/api/v1/bot/create", {"name": "b"})
            return arrived(stage)[-1].headers["authorization"] == f"Bearer {SECOND}"

        await until(has_changed)
        seen = [one.headers["authorization"] for one in arrived(stage)]
        assert seen[0] == f"Bearer {FIRST}"
        # Never back again, and never neither.
        assert seen == sorted(seen, key=lambda one: one == f"Bearer {SECOND}")


async def test_open_streams_of_tokens_that_became_too_old_end(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    async with filed(tmp_path, valkey_url, ACME) as stage:
        headers = {**stage.bearer("acme"), "Accept": "application/jsonl"}
        url = f"{stage.url}/api/v1/channel/room/subscribe"
        async with client.post(url, json={}, headers=headers) as stream:
            assert b"nop" in await stream.content.readline()
            write(tmp_path, ACME | {"token_not_before": int(time.time()) + 60})
            await change(stage, "/admin/reload")
            async with asyncio.timeout(30):
                with contextlib.suppress(aiohttp.ClientPayloadError):
                    while await stream.content.readany():
                        pass
        assert (await get(stage, LIST, headers)).status == 401


async def test_the_end_of_a_tenants_key_is_told_for_alerts(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    in_a_week, in_a_year = int(time.time()) + 7 * 86400, int(time.time()) + 365 * 86400
    acme = ACME | {"key_expires": in_a_week, "next_key": "env:GLOBEX_KEY", "next_key_expires": in_a_year}
    name = "cbk_gateway_key_expiry_timestamp_seconds"
    async with filed(tmp_path, valkey_url, acme) as stage:
        assert metric(stage, name, kind="tenant", name="acme") == in_a_week
        assert metric(stage, name, kind="tenant-next", name="acme") == in_a_year
        shown = (await look(stage, "/admin/tenants/acme")).json
        assert (shown["keyExpires"], shown["nextKeyExpires"]) == (in_a_week, in_a_year)
        # With the key its end is promoted, and nothing is left that would warn of the old one.
        assert (await change(stage, "/admin/tenants/acme/key/promote")).status == 200
        assert metric(stage, name, kind="tenant", name="acme") == in_a_year
        assert metric(stage, name, kind="tenant-next", name="acme") is None


async def test_a_date_says_when_a_key_ends_and_a_rotation_may_say_it_too(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    acme = ACME | {"key_expires": "2031-01-31T12:00:00Z"}
    tenancy = {"master_key": "file:master"}
    (tmp_path / "master").write_text("m1:" + "A" * 43 + "=")
    async with filed(tmp_path, valkey_url, acme, tenancy=tenancy) as stage:
        assert (await look(stage, "/admin/tenants/acme")).json["keyExpires"] == 1927627200
        command = {"key": SECOND, "expires_at": 2_000_000_000}
        shown = (await change(stage, "/admin/tenants/acme/key/rotate", command)).json
        assert (shown["keyExpires"], shown["nextKeyExpires"]) == (1927627200, 2_000_000_000)
        shown = (await change(stage, "/admin/tenants/acme/key/promote")).json
        assert (shown["keyExpires"], shown["nextKeyExpires"]) == (2_000_000_000, None)
        # A further rotation seals the key in force, and knows its end.
        third = {"key": "sk-third-" + "0123456789abcdef" * 3}
        shown = (await change(stage, "/admin/tenants/acme/key/rotate", third)).json
        assert (shown["keyExpires"], shown["nextKeyExpires"]) == (2_000_000_000, None)


@pytest.fixture
async def vault() -> AsyncIterator[BaseTestServer]:
    """A Vault with one secret, whose token lives for a second and cannot be renewed."""

    async def lookup(_: web.Request) -> web.Response:
        return web.json_response({"data": {"ttl": 1, "renewable": False}})

    async def read(_: web.Request) -> web.Response:
        return web.json_response({"data": {"data": {"key": SECOND}}})

    application = web.Application()
    application.router.add_get("/v1/auth/token/lookup-self", lookup)
    application.router.add_get("/v1/team/kv/data/acme", read)
    async with TestServer(application) as server:
        yield server


async def test_a_vault_login_that_ends_is_told_and_its_keys_stay(
    tmp_path: Path, valkey_url: str, store: Store, vault: BaseTestServer
) -> None:
    (tmp_path / "vault.token").write_text("hvs.private")
    tenancy = {
        "vault": {"address": str(vault.make_url("/")), "token": "file:vault.token", "mounts": ["team/kv"]}
    }
    acme = ACME | {"key": "vault:team/kv/acme"}
    async with filed(tmp_path, valkey_url, acme, tenancy=tenancy) as stage:

        async def is_told() -> bool:
            return bool(await problems(stage))

        await until(is_told)
        told = " ".join(await problems(stage))
        assert "cannot be renewed" in told
        assert "hvs.private" not in told
        assert metric(stage, "cbk_gateway_tenant_source_healthy", source="vault") == 0
        ends_at = metric(stage, "cbk_gateway_key_expiry_timestamp_seconds", kind="vault", name="login")
        assert ends_at == pytest.approx(time.time(), abs=30)
        assert (await post(stage, "/api/v1/bot/create", {"name": "a"})).status == 200
        assert arrived(stage)[-1].headers["authorization"] == f"Bearer {SECOND}"

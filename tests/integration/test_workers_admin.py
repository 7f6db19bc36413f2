"""The operators' port of several workers: what it adds to a worker's, who may use it, and over TLS."""

from __future__ import annotations

import os
import signal
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from certificates import Authority
from described import assert_described
from fleet_stage import FleetStage, serving, until
from integration.e2e_calls import TOKENS, roles

OWN = {
    ("GET", "/admin/workers"): "viewer",
    ("GET", "/admin/settings"): "viewer",
    ("POST", "/admin/restart"): "admin",
    ("POST", "/admin/reload"): "operator",
}
RANKS = ("viewer", "operator", "admin")


async def asked(
    stage: FleetStage, method: str, path: str, rank: str | None, **sent: Any
) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {TOKENS[rank]}"} if rank is not None else {}
    if method == "POST" and not sent:
        sent = {"json": {}}
    headers |= sent.pop("headers", {})
    async with stage.session.request(method, stage.admin_url + path, headers=headers, **sent) as answer:
        document: dict[str, Any] = orjson.loads(await answer.read())
        return answer.status, document


async def test_the_fleets_own_operations_are_described_guarded_and_answered_as_described(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, admin=roles(tmp_path)) as stage:
        _, document = await asked(stage, "GET", "/admin/openapi.json", "viewer")
        assert {"/admin/tenants", "/admin/log-level", "/admin/explain"} <= set(document["paths"])
        for (method, path), role in OWN.items():
            operation = document["paths"][path][method.lower()]
            assert operation["x-role"] == role
            assert operation["summary"].endswith(".")
            assert (await asked(stage, method, path, None))[0] == 401
            for rank in RANKS[: RANKS.index(role)]:
                assert (await asked(stage, method, path, rank))[0] == 403
            if method == "POST":
                # What a page of another origin can send without asking first.
                form = {"data": b"{}", "headers": {"Content-Type": "text/plain"}}
                assert (await asked(stage, method, path, "admin", **form))[0] == 400
                assert (await asked(stage, method, path, "admin", json={"surprise": 1}))[0] == 400
        before = await workers(stage)
        for method, path, rank in (
            *((method, path, role) for (method, path), role in OWN.items()),
            ("GET", "/admin/tenants", "viewer"),
            ("GET", "/admin/nothing", "viewer"),
            ("POST", "/admin/log-level", "operator"),
        ):
            status, answer = await asked(stage, method, path, rank)
            assert_described(document, method, path, status, answer)
            if (method, path) in OWN:
                assert status == 200
        assert not before & await workers(stage)
        stage.write("gateway.yaml", "a: [")
        status, answer = await asked(stage, "POST", "/admin/reload", "operator")
        assert_described(document, "POST", "/admin/reload", status, answer)
        assert status == 409


async def workers(stage: FleetStage) -> set[int]:
    _, document = await asked(stage, "GET", "/admin/workers", "viewer")
    return {one["pid"] for one in document["items"]}


async def test_a_killed_worker_loses_no_count_that_has_been_read(tmp_path: Path) -> None:
    """Nobody scrapes before the death: the supervisor reads by itself, again and again."""
    async with serving(tmp_path) as stage:
        bearer = stage.bearer()
        for _ in range(30):
            # A connection each, so that both workers count.
            async with (
                aiohttp.ClientSession(headers=bearer) as session,
                session.get(stage.url + "/api/v1/bot/list") as answer,
            ):
                assert answer.status == 200
        victim = max((await stage.workers()).values())

        async def is_read() -> bool:
            # A stopped worker does not answer the scrape, which shows what was read of it before.
            os.kill(victim, signal.SIGSTOP)
            if await stage.metric("cbk_gateway_requests_total") == 30:
                return True
            os.kill(victim, signal.SIGCONT)
            return False

        await until(is_read)
        os.kill(victim, signal.SIGKILL)
        await stage.event("worker_died")
        assert await stage.metric("cbk_gateway_requests_total") == 30


async def test_the_operators_port_speaks_tls_when_told_to(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("operators")
    trusting = ssl.create_default_context(cafile=authority.ca_file)
    tls = {"certificate": str(certificate), "key": str(key)}
    async with serving(tmp_path, workers=1, admin={**roles(tmp_path), "tls": tls}) as stage:
        assert stage.admin_url.startswith("https://")
        url = stage.admin_url + "/admin/workers"
        headers = {"Authorization": f"Bearer {TOKENS['viewer']}"}
        async with stage.session.get(url, headers=headers, ssl=trusting) as answer:
            assert answer.status == 200
        for address, context in ((url, ssl.create_default_context()), (url.replace("https", "http"), True)):
            with pytest.raises(aiohttp.ClientError):
                async with stage.session.get(address, headers=headers, ssl=context):
                    pass

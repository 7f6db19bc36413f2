"""The main job over real sockets: what a request meets, step by step, and what reaches the upstream."""

import aiohttp
import pytest
from yarl import URL

from harness import KEYS, Stage


async def test_the_upstream_sees_the_tenants_key_and_never_the_clients_token(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    token = stage.token()
    async with client.get(
        f"{stage.url}/api/v1/bot/list", headers={"Authorization": f"bEaReR {token}"}
    ) as answer:
        assert answer.status == 200
        assert answer.headers["X-Request-Id"]
    (seen,) = stage.sandbox.requests
    assert seen.path == "/api/v1/bot/list"
    assert seen.headers["authorization"] == f"Bearer {KEYS['acme']}"
    assert token not in str(seen.raw_headers)


async def test_a_write_is_journalled_before_and_after(stage: Stage, client: aiohttp.ClientSession) -> None:
    async with client.post(
        f"{stage.url}/api/v1/bot/create", json={"name": "Ada"}, headers=stage.bearer()
    ) as answer:
        made = (await answer.json())["id"]
        request_id = answer.headers["X-Request-Id"]
    await stage.gateway.stop()
    records = [one for one in stage.journal() if one.get("request_id") == request_id]
    assert [one["kind"] for one in records] == ["intent", "outcome"]
    assert records[0]["operation"] == "bot.create"
    assert records[1]["result"] == "answered"
    assert made in str(records[1])


@pytest.mark.parametrize("path", ["/api/v1/bot/list", "/v1/bot/list", "/api//v1/./bot/list/"])
async def test_every_spelling_reaches_the_upstream_in_one(
    stage: Stage, client: aiohttp.ClientSession, path: str
) -> None:
    url = URL(stage.url + path, encoded=True)
    async with client.get(url, headers=stage.bearer()) as answer:
        assert answer.status == 200
    assert stage.sandbox.requests[-1].path == "/api/v1/bot/list"

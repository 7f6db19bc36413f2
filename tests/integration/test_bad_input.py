"""Malformed, oversized and hostile requests: a clear error in the right shape, and not a byte upstream."""

import asyncio
from typing import Any

import aiohttp
import pytest
from yarl import URL

from harness import KEYS, Stage

BAD_BODIES = {
    "no JSON": b"{name: x}",
    "half a document": b'{"name": "x"',
    "two documents": b"{}{}",
    "a constant JSON lacks": b'{"a": NaN}',
    "bytes that are not UTF-8": b'{"a": "\xff\xfe"}',
    "nested beyond reason": b"[" * 100_000 + b"]" * 100_000,
    "a number that never ends": b'{"a": 1e}',
    "a control character in a string": b'{"a": "\x01"}',
}
BAD_TOKENS = {
    "none at all": None,
    "another scheme": "Basic dXNlcjpwYXNz",
    "an upstream key": f"Bearer {KEYS['acme']}",
    "an empty one": "Bearer ",
    "two words": "Bearer a b",
    "no token": "Bearer x",
    "three empty parts": "Bearer ..",
    "not base64": "Bearer !!!.!!!.!!!",
    "too long": "Bearer " + "a" * 9000,
    "algorithm none": "Bearer eyJhbGciOiJub25lIn0."
    "eyJzdWIiOiJ4IiwidGVuYW50IjoiYWNtZSIsImV4cCI6NDAwMDAwMDAwMH0.",
}


async def asked(
    client: aiohttp.ClientSession, method: str, url: URL | str, **keywords: Any
) -> tuple[int, dict[str, Any], aiohttp.ClientResponse]:
    async with client.request(method, url, **keywords) as answer:
        return answer.status, await answer.json(), answer


def is_refusal(document: dict[str, Any]) -> bool:
    pair = {"message": document["message"], "code": document["code"]}
    return document["error"] == pair and bool(pair["message"])


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_a_body_that_is_not_json_is_refused(
    stage: Stage, client: aiohttp.ClientSession, name: str
) -> None:
    headers = stage.bearer() | {"Content-Type": "application/json"}
    url = f"{stage.url}/api/v1/bot/create"
    status, document, _ = await asked(client, "POST", url, data=BAD_BODIES[name], headers=headers)
    assert (status, document["code"]) == (400, "BAD_REQUEST")
    assert is_refusal(document)
    assert not stage.sandbox.requests


async def test_a_lone_surrogate_passes_as_it_does_without_a_gateway(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    headers = stage.bearer() | {"Content-Type": "application/json"}
    data = b'{"name": "half an emoji \\ud83d"}'
    status, _, _ = await asked(client, "POST", f"{stage.url}/api/v1/bot/create", data=data, headers=headers)
    assert stage.sandbox.requests[-1].body_size == len(data)
    assert status in {200, 400}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_bad_token_is_401_in_the_apis_shape(
    stage: Stage, client: aiohttp.ClientSession, name: str
) -> None:
    given = BAD_TOKENS[name]
    headers = {"Authorization": given} if given is not None else {}
    status, document, answer = await asked(client, "GET", f"{stage.url}/api/v1/bot/list", headers=headers)
    assert (status, document["code"]) == (401, "NOT_AUTHENTICATED")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert is_refusal(document)
    assert not stage.sandbox.requests


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/bot/a%2Fb/fetch", 400, "BAD_REQUEST"),
        ("GET", "/api/v1/bot/%00/fetch", 400, "BAD_REQUEST"),
        ("GET", "/api/v1/bot/%252e%252e/fetch", 400, "BAD_REQUEST"),
        ("GET", "/api/v1/bot/x/fetch?botId=y", 400, "BAD_REQUEST"),
        ("GET", "/api/v2/bot/list", 404, "NOT_FOUND"),
        ("GET", "/api/v1/../../etc/passwd", 404, "NOT_FOUND"),
        ("PUT", "/api/v1/bot/x/update", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/api/v1/bot/x/delete", 405, "METHOD_NOT_ALLOWED"),
        ("PATCH", "/api/v1/bot/x/update", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/v1/bot/create", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/api/v1/bot/list", 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_a_target_that_is_none_is_refused(
    stage: Stage, client: aiohttp.ClientSession, method: str, path: str, status: int, code: str
) -> None:
    url = URL(stage.url + path, encoded=True)
    seen, document, answer = await asked(client, method, url, headers=stage.bearer())
    assert (seen, document["code"]) == (status, code)
    assert is_refusal(document)
    assert answer.headers["X-Request-Id"] == document["requestId"]
    assert not stage.sandbox.requests


@pytest.mark.parametrize(
    "name",
    [
        "X-RunAs-User-ID",
        "x-runas-user-id",
        "X-RunAs-UserId",
        "X_RunAs_User_Id",
        "X-RunAs-Child-User-Email",
        "X-Runas-Anything-Else",
    ],
)
async def test_a_tenant_may_not_choose_its_account(
    stage: Stage, client: aiohttp.ClientSession, name: str
) -> None:
    headers = stage.bearer() | {name: "user_child1"}
    status, document, _ = await asked(client, "GET", f"{stage.url}/api/v1/bot/list", headers=headers)
    assert (status, document["code"]) == (403, "NOT_AUTHORIZED")
    assert not stage.sandbox.requests


async def test_headers_cross_by_allow_list(stage: Stage, client: aiohttp.ClientSession) -> None:
    hostile = {
        "Cookie": "session=1",
        "Forwarded": "for=1.2.3.4",
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Host": "evil",
        "X_Forwarded_Host": "evil",
        "X-Real-IP": "1.2.3.4",
        "X-ChatBotKit-Internal-Thing": "1",
        "X-CBK-Anything": "1",
        "X-ChatBotKit-Assertion-User": "1",
        "Proxy-Authorization": "Basic x",
        "TE": "trailers",
        "Upgrade": "h2c",
        "Connection": "keep-alive, X-Timezone",
        "X-Timezone": "Europe/Paris",
    }
    headers = stage.bearer() | hostile
    status, _, _ = await asked(client, "GET", f"{stage.url}/api/v1/bot/list", headers=headers)
    assert status == 200
    seen = stage.sandbox.requests[-1].headers
    assert seen["authorization"] == f"Bearer {KEYS['acme']}"
    lowered = {name.lower().replace("_", "-") for name in hostile}
    assert not lowered & (set(seen) - {"connection"})


async def test_a_dead_upstream_is_502_and_not_ready(stage: Stage, client: aiohttp.ClientSession) -> None:
    await stage.sandbox.stop()
    status, document, _ = await asked(client, "GET", f"{stage.url}/api/v1/bot/list", headers=stage.bearer())
    assert (status, document["code"]) == (502, "BAD_GATEWAY")
    assert is_refusal(document)
    status, document, _ = await asked(client, "GET", f"{stage.admin_url}/readyz")
    assert (status, document["checks"]["upstream"]) == (503, "failing")


async def test_a_client_that_leaves_cancels_the_call_upstream(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    stage.sandbox.add_fault("/api/v1/conversation/complete", "silence", value=60_000)
    body = {"messages": [{"type": "user", "text": "hello"}]}
    headers = stage.bearer() | {"Accept": "application/jsonl"}
    async with client.post(f"{stage.url}/api/v1/conversation/complete", json=body, headers=headers) as answer:
        assert await answer.content.readline()
    async with asyncio.timeout(30):
        while stage.sandbox.requests[-1].outcome == "pending":
            await asyncio.sleep(0.01)
    assert stage.sandbox.requests[-1].outcome == "disconnected"

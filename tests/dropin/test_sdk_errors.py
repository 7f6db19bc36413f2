"""What the official SDK shows of failures: the API's own, passed on, and the gateway's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from cbk_gateway.parties import Rate, TenantLimits
from cbk_gateway.store import Store
from dropin import scripts
from dropin.doors import Door, Way, arrived
from harness import SIGNING_KEY, Stage, running, tenant

pytestmark = [pytest.mark.dropin, pytest.mark.node, pytest.mark.usefixtures("sdk")]

LIST = {"call": "bot.list"}
MAKE = {"call": "bot.create", "args": [{"name": "Ada"}]}
STREAM = {"call": "conversation.complete", "args": [None, {"messages": []}], "stream": True}


@pytest.mark.parametrize("call", [LIST, MAKE, STREAM], ids=["read", "write", "stream"])
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "BAD_REQUEST"),
        (402, "NO_SUBSCRIPTION"),
        (403, "NOT_AUTHORIZED"),
        (404, "NOT_FOUND"),
        (409, "CONFLICT"),
        (422, "UNPROCESSABLE_ENTITY"),
        (429, "LIMITS_REACHED"),
        (500, "INTERNAL_SERVER_ERROR"),
        (501, "NOT_IMPLEMENTED"),
        (503, "SERVICE_UNAVAILABLE"),
    ],
)
async def test_the_apis_errors_keep_message_and_code(
    door: Door, call: dict[str, Any], status: int, code: str
) -> None:
    message = f'The API says {status}: "é 世界"'
    door.stage.sandbox.add_fault("*", "status", value={"status": status, "message": message, "code": code})
    (outcome,) = await scripts.calls(door.url, door.secret(), call)
    assert outcome == {"error": {"name": "FetchError", "message": message, "code": code}}
    assert [record.status for record in arrived(door.stage)] == [status]


async def test_the_apis_validation_says_which_field(door: Door) -> None:
    wrong = {"call": "bot.create", "args": [{"name": 7}]}
    unknown = {"call": "bot.fetch", "args": ["bot_nobody"]}
    nowhere = {"call": "clientFetch", "args": ["/api/v1/bot/a/b/c/d/nothing"]}
    outcomes = await scripts.calls(door.url, door.secret(), wrong, unknown, nowhere)
    assert [outcome["error"]["code"] for outcome in outcomes] == ["BAD_REQUEST", "NOT_FOUND", "NOT_FOUND"]
    assert outcomes[0]["error"]["message"] == '"name" must be a string'


async def test_the_sdk_repeats_what_may_pass(door: Door) -> None:
    """It repeats a refused call by itself, a POST too; what it gets in the end is the answer."""
    sandbox = door.stage.sandbox
    sandbox.add_fault("/v1/bot/list", "rate_limited", times=2)
    sandbox.add_fault("/v1/bot/create", "status", value=503, times=1)
    patient = {"retries": 3, "retryDelay": 300}
    made, listed = await scripts.calls(
        door.url, door.secret(), {**MAKE, "options": patient}, {**LIST, "options": patient}
    )
    assert [bot["id"] for bot in listed["value"]["items"]] == [made["value"]["id"]]
    statuses = [(record.path.rpartition("/")[2], record.status) for record in arrived(door.stage)]
    refused = [("list", 429), ("list", 429)]
    if door.is_gateway:
        # Before the gateway repeats a create it looks whether the first one was done, past the refusals.
        looked = [("create", 503), *refused, ("list", 200), ("create", 200), ("list", 200)]
        assert statuses == looked
    else:
        assert statuses == [("create", 503), ("create", 200), *refused, ("list", 200)]


@pytest.mark.parametrize("secret", ["", "garbage", "a.b.c", "sk-" + "0" * 64])
async def test_who_is_not_known_gets_401_from_the_gateway(gateway: Door, secret: str) -> None:
    outcomes = await scripts.calls(gateway.url, secret, LIST, MAKE, STREAM)
    assert [outcome["error"]["code"] for outcome in outcomes] == ["NOT_AUTHENTICATED"] * 3
    assert all(outcome["error"]["message"] for outcome in outcomes)
    assert gateway.stage.sandbox.requests == []


async def test_a_secret_of_the_api_itself_opens_nothing_here(gateway: Door) -> None:
    key = Door(Way.DIRECT, gateway.stage).secret()
    (outcome,) = await scripts.calls(gateway.url, key, LIST)
    assert outcome["error"]["code"] == "NOT_AUTHENTICATED"
    assert key not in str(outcome)
    assert gateway.stage.sandbox.requests == []


async def test_an_expired_token_says_so(gateway: Door) -> None:
    now = int(time.time())
    claims = jwt.decode(gateway.secret(), options={"verify_signature": False})
    old = {**claims, "iat": now - 7200, "exp": now - 3600}
    expired = jwt.encode(old, SIGNING_KEY, "HS256", {"kid": "k1"})
    (outcome,) = await scripts.calls(gateway.url, expired, LIST)
    assert outcome["error"]["code"] == "NOT_AUTHENTICATED"
    assert "expired" in outcome["error"]["message"]
    assert gateway.stage.sandbox.requests == []


async def test_what_the_scopes_lack_gets_403_from_the_gateway(gateway: Door) -> None:
    refused = await scripts.calls(gateway.url, gateway.secret("globex"), MAKE)
    narrow = gateway.stage.token("acme", "dataset:list")
    refused += await scripts.calls(gateway.url, narrow, LIST, STREAM)
    assert [outcome["error"]["code"] for outcome in refused] == ["NOT_AUTHORIZED"] * 3
    assert "scope" in refused[0]["error"]["message"]
    assert gateway.stage.sandbox.requests == []


async def test_what_is_no_path_of_the_api_gets_its_errors_from_the_gateway(gateway: Door) -> None:
    outcomes = await scripts.calls(
        gateway.url,
        gateway.secret(),
        {"call": "clientFetch", "args": ["/somewhere/else"]},
        {"call": "clientFetch", "args": ["/api/v1/bot/list", {"method": "DELETE"}]},
        {"call": "clientFetch", "args": ["/api/v1/bot/a/fetch", {"query": {"botId": "b"}}]},
        {"call": "clientFetch", "args": ["/api/v1/bot/a%2Fb/fetch"]},
    )
    codes = [outcome["error"]["code"] for outcome in outcomes]
    assert codes == ["NOT_FOUND", "METHOD_NOT_ALLOWED", "BAD_REQUEST", "BAD_REQUEST"]
    assert gateway.stage.sandbox.requests == []


async def test_a_used_up_rate_gets_429_from_the_gateway(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    slow = tenant("acme", limits=TenantLimits(rates=(Rate("tenant", 0.001, 3),)))
    async with running(tmp_path, valkey_url, tenants=(slow,)) as stage:
        token = stage.token()
        outcomes = await scripts.calls(stage.url, token, *[MAKE] * 5)
        assert ["value" in outcome for outcome in outcomes] == [True, True, True, False, False]
        error = outcomes[-1]["error"]
        assert error["code"] == "TOO_MANY_REQUESTS"
        assert "tenant" in error["message"]
        assert len(arrived(stage)) == 3


async def test_a_dead_api_gets_502_from_the_gateway(stage: Stage) -> None:
    gateway = Door(Way.GATEWAY, stage)
    await stage.sandbox.stop()
    outcomes = await scripts.calls(gateway.url, gateway.secret(), LIST, MAKE, STREAM)
    assert [outcome["error"]["code"] for outcome in outcomes] == ["BAD_GATEWAY"] * 3


async def test_a_refused_key_of_the_gateway_is_not_shown_as_the_clients_fault(door: Door) -> None:
    door.stage.sandbox.add_fault("*", "status", value=401)
    (outcome,) = await scripts.calls(door.url, door.secret(), LIST)
    code = outcome["error"]["code"]
    assert code != "NOT_AUTHENTICATED" if door.is_gateway else code == "NOT_AUTHENTICATED"

"""Writes that the official SDK repeats by itself: carried out once behind the gateway, and answered."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from dropin import scripts
from dropin.doors import Door
from harness import Stage

pytestmark = [pytest.mark.dropin, pytest.mark.node, pytest.mark.usefixtures("sdk")]

PATIENT = {"retries": 3, "retryDelay": 250}
MAKE = {"call": "bot.create", "args": [{"name": "Ada", "backstory": "Counts."}], "options": PATIENT}
LOST_ANSWERS = [
    pytest.param("status", {"status": 502, "after_effect": True}, id="502-after-it-was-done"),
    pytest.param("status", {"status": 500, "after_effect": True}, id="500-after-it-was-done"),
    pytest.param("drop_after_effect", None, id="dropped-after-it-was-done"),
]


def bots(stage: Stage, account: str = "acme-account") -> list[str]:
    """Ids of the bots that there are."""
    return [row.id for row in stage.sandbox.world.store.all_rows() if row.kind == "bot"]


def sent(stage: Stage, action: str) -> int:
    """How many requests of this action reached the API."""
    return sum(record.path.endswith(f"/{action}") for record in stage.sandbox.requests)


@pytest.mark.parametrize(("fault", "value"), LOST_ANSWERS)
async def test_a_create_whose_answer_is_always_lost_is_done_once(
    door: Door, fault: str, value: dict[str, Any] | None
) -> None:
    """Without a gateway the SDK makes four objects and reports a failure."""
    stage = door.stage
    stage.sandbox.add_fault("/v1/bot/create", fault, value=value)
    (outcome,) = await scripts.calls(door.url, door.secret(), MAKE)
    if not door.is_gateway:
        assert "error" in outcome
        assert len(bots(stage)) == 4
        return
    assert [outcome["value"]["id"]] == bots(stage)
    assert sent(stage, "create") == 1


@pytest.mark.parametrize(("fault", "value"), LOST_ANSWERS)
@pytest.mark.parametrize("action", ["update", "delete"])
async def test_a_change_whose_answer_is_lost_is_done_once(
    gateway: Door, action: str, fault: str, value: dict[str, Any] | None
) -> None:
    stage = gateway.stage
    made = await scripts.value(gateway.url, gateway.secret(), "bot.create", {"name": "Ada"})
    stage.sandbox.add_fault(f"/v1/bot/*/{action}", fault, value=value)
    args = [made["id"], {"name": "Eve"}] if action == "update" else [made["id"]]
    (outcome,) = await scripts.calls(
        gateway.url, gateway.secret(), {"call": f"bot.{action}", "args": args, "options": PATIENT}
    )
    assert outcome == {"value": {"id": made["id"]}}
    assert sent(stage, action) == 1


async def test_what_was_not_done_is_done_by_a_repetition(gateway: Door) -> None:
    stage = gateway.stage
    stage.sandbox.add_fault("/v1/bot/create", "drop_before", times=1)
    stage.sandbox.add_fault("/v1/bot/create", "status", value=503, times=1)
    (outcome,) = await scripts.calls(gateway.url, gateway.secret(), MAKE)
    assert [outcome["value"]["id"]] == bots(stage)


async def test_two_deliberate_creates_are_two_objects(gateway: Door) -> None:
    outcomes = await scripts.calls(gateway.url, gateway.secret(), MAKE, MAKE)
    made = [outcome["value"]["id"] for outcome in outcomes]
    assert sorted(made) == sorted(bots(gateway.stage))
    assert len(set(made)) == 2


async def test_an_older_twin_is_not_taken_for_what_was_lost(gateway: Door) -> None:
    """The first create was answered; the second, of the same content, was not done at its first try."""
    stage, secret = gateway.stage, gateway.secret()
    (first,) = await scripts.calls(gateway.url, secret, MAKE)
    stage.sandbox.add_fault("/v1/bot/create", "status", value=502, times=1)
    (second,) = await scripts.calls(gateway.url, secret, MAKE)
    assert first["value"]["id"] != second["value"]["id"]
    assert len(bots(stage)) == 2


async def test_what_cannot_be_told_is_refused_and_not_repeated(gateway: Door) -> None:
    """The list that would tell is away: nobody does it again, and the client hears why."""
    stage = gateway.stage
    stage.sandbox.add_fault("/v1/bot/create", "drop_after_effect")
    stage.sandbox.add_fault("/v1/bot/list", "status", value=403)
    (outcome,) = await scripts.calls(gateway.url, gateway.secret(), MAKE)
    assert outcome["error"]["code"] == "CONFLICT"
    assert len(bots(stage)) == 1


async def test_replays_are_journalled_and_name_the_first_request(gateway: Door) -> None:
    stage = gateway.stage
    stage.sandbox.add_fault("/v1/bot/create", "drop_after_effect")
    await scripts.calls(gateway.url, gateway.secret(), MAKE)
    await stage.gateway.stop()
    records = stage.journal()
    (replayed,) = [record for record in records if record["kind"] == "replayed"]
    (intent,) = [record for record in records if record["kind"] == "intent"]
    assert replayed["first_request_id"] == intent["request_id"] != replayed["request_id"]
    assert replayed["answer_ids"] == bots(stage)


BODY = b'{"name": "Ada"}'


async def post(
    client: aiohttp.ClientSession, door: Door, secret: str, key: str | None = None, body: bytes = BODY
) -> tuple[int, dict[str, str], Any]:
    """A create, as another client would make it."""
    fields = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    if key is not None:
        fields["Idempotency-Key"] = key
    async with client.post(f"{door.url}/api/v1/bot/create", data=body, headers=fields) as answer:
        return answer.status, dict(answer.headers), await answer.json()


async def test_one_idempotency_key_has_one_answer(gateway: Door, client: aiohttp.ClientSession) -> None:
    secret = gateway.secret()
    first = await post(client, gateway, secret, "k-1")
    again = await post(client, gateway, secret, "k-1")
    other = await post(client, gateway, secret, "k-2")
    assert first[0] == again[0] == 200
    assert first[2] == again[2] != other[2]
    assert "Idempotent-Replayed" not in first[1]
    assert again[1]["Idempotent-Replayed"] == "true"
    status, fields, _ = await post(client, gateway, secret, "k-1", b'{"name": "Eve"}')
    assert (status, fields["x-should-retry"]) == (409, "false")
    assert len(bots(gateway.stage)) == 2


@pytest.mark.parametrize("key", ["", " ", "x" * 256])
async def test_what_is_no_key_is_refused(gateway: Door, client: aiohttp.ClientSession, key: str) -> None:
    status, _, _ = await post(client, gateway, gateway.secret(), key)
    assert status == 400
    assert sent(gateway.stage, "create") == 0


async def test_a_repetition_shares_the_answer_of_the_one_under_way(
    gateway: Door, client: aiohttp.ClientSession
) -> None:
    gateway.stage.sandbox.add_fault("/v1/bot/create", "latency", value=400)
    secret = gateway.secret()
    answers = await asyncio.gather(*(post(client, gateway, secret) for _ in range(4)))
    assert {answer[2]["id"] for answer in answers} == set(bots(gateway.stage))
    assert len(bots(gateway.stage)) == 1
    assert sum("Idempotent-Replayed" in answer[1] for answer in answers) == 3


async def test_an_unknown_outcome_tells_clients_not_to_repeat(
    gateway: Door, client: aiohttp.ClientSession
) -> None:
    gateway.stage.sandbox.add_fault("/v1/bot/create", "drop_after_effect")
    status, fields, _ = await post(client, gateway, gateway.secret())
    assert (status, fields["x-should-retry"]) == (502, "false")


async def test_another_subjects_write_is_never_a_repetition(
    gateway: Door, client: aiohttp.ClientSession
) -> None:
    gateway.stage.sandbox.add_fault("/v1/bot/create", "latency", value=200)
    one, other = gateway.stage.token(subject="one"), gateway.stage.token(subject="other")
    await asyncio.gather(post(client, gateway, one, "same"), post(client, gateway, other, "same"))
    assert len(bots(gateway.stage)) == 2

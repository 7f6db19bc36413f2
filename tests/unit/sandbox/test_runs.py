"""Model runs: the order of events, what is stored, what is charged, and what the magic words do."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from cbk_gateway.sandbox import Sandbox

from .conftest import Api

SAID = {"messages": [{"type": "user", "text": "hi"}]}


async def test_a_completion_streams_in_the_order_of_the_api(api: Api) -> None:
    talk = await api.make("conversation")
    events = await api.events(f"/v1/conversation/{talk}/complete", {"text": "héllo 世界 🚀"})
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["sendResult", "completeBegin", "ping"]
    assert kinds[-4:] == ["usage", "completeEnd", "receiveResult", "result"]
    tokens = [event["data"]["token"] for event in events if event["type"] == "token"]
    assert "".join(tokens) == events[-1]["data"]["text"]
    assert "héllo 世界 🚀" in events[-1]["data"]["text"]
    assert all("createdAt" in event for event in events if event["type"] != "ping")


async def test_usage_is_one_running_total(api: Api) -> None:
    talk = await api.make("conversation")
    events = await api.events(f"/v1/conversation/{talk}/complete", {"text": "one two three"})
    by_kind = {event["type"]: event["data"] for event in events}
    sent, result = by_kind["sendResult"]["usage"]["token"], by_kind["result"]["usage"]["token"]
    used = by_kind["usage"]
    assert sent == used["inputTokensUsed"] == 3
    assert result == used["inputTokensUsed"] + used["outputTokensUsed"]
    assert by_kind["receiveResult"]["usage"]["token"] == result
    _, usage = await api.get(f"/v1/conversation/{talk}/usage/fetch")
    assert (usage["tokens"], usage["messages"]) == (result, 2)
    assert (await api.get("/v1/usage/fetch"))[1]["tokens"] == result
    _, series = await api.get("/v1/usage/series/fetch")
    assert sum(day["total"] for day in series["tokens"]) == result


async def test_json_gives_the_result_alone(api: Api) -> None:
    talk = await api.make("conversation")
    status, result = await api.post(f"/v1/conversation/{talk}/complete", {"text": "hi"})
    assert status == 200
    assert set(result) == {"id", "text", "usage", "end"}
    _, message = await api.get(f"/v1/conversation/{talk}/message/{result['id']}/fetch")
    assert (message["type"], message["text"]) == ("bot", result["text"])


async def test_send_and_receive_are_the_two_halves(api: Api) -> None:
    talk = await api.make("conversation")
    _, sent = await api.post(f"/v1/conversation/{talk}/send", {"text": "hello"})
    assert set(sent) == {"id", "entities"}
    _, received = await api.post(f"/v1/conversation/{talk}/receive", {})
    assert received["text"].endswith("hello")
    _, page = await api.get(f"/v1/conversation/{talk}/message/list")
    assert [message["type"] for message in page["items"]] == ["user", "bot"]


async def test_a_stateless_completion_keeps_no_conversation(api: Api) -> None:
    contact = {"fingerprint": "f1", "email": "a@b.c"}
    _, result = await api.post("/v1/conversation/complete", {**SAID, "contactId": contact})
    assert set(result) == {"text", "usage", "end"}
    assert (await api.get("/v1/conversation/list"))[1]["items"] == []
    assert [row["email"] for row in (await api.get("/v1/contact/list"))[1]["items"]] == ["a@b.c"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/conversation/complete", {}, 400),
        ("/v1/conversation/complete", {"messages": [], "botId": "unknown"}, 400),
        ("/v1/conversation/unknown/complete", {"text": "hi"}, 404),
        ("/v1/conversation/unknown/send", {}, 400),
    ],
)
async def test_what_is_wrong_before_the_first_event_is_an_ordinary_error(
    api: Api, path: str, body: dict[str, Any], status: int
) -> None:
    for accept in ("application/json", "application/jsonl"):
        answered, refusal = await api.post(path, body, headers={"Accept": accept})
        assert answered == status
        assert refusal["code"]


async def test_a_failing_run_is_an_event_in_a_stream_and_a_status_in_json(api: Api) -> None:
    body = {"messages": [{"type": "user", "text": "!error"}]}
    events = await api.events("/v1/conversation/complete", body)
    assert [event["type"] for event in events[-3:]] == ["token", "token", "error"]
    assert events[-1]["data"]["code"] == "INTERNAL_SERVER_ERROR"
    assert (await api.post("/v1/conversation/complete", body))[0] == 500


async def test_magic_words_write_at_the_end_of_the_run(api: Api, sandbox: Sandbox) -> None:
    talk = await api.make("conversation")
    old = await api.make("dataset", {"name": "old"})
    gone = await api.make("contact")
    text = f"!create bot Zed II\n!update dataset {old} new name\n!delete contact {gone}\n!delete bot x"
    store = sandbox.world.store
    events = await api.events(f"/v1/conversation/{talk}/complete", {"text": text})
    seen = [(event["type"], event["createdAt"]) for event in events if "createdAt" in event]
    assert [row.body["name"] for row in store.rows("acme", "bot").values()] == ["Zed II"]
    assert (await api.get(f"/v1/dataset/{old}/fetch"))[1]["name"] == "new name"
    assert (await api.get(f"/v1/contact/{gone}/fetch"))[0] == 404
    last_token = max(time for kind, time in seen if kind == "token")
    assert next(iter(store.rows("acme", "bot").values())).created >= last_token


async def test_a_dispatched_run_speaks_on_its_channel(api: Api) -> None:
    _, answer = await api.post("/v1/conversation/dispatch", {**SAID, "channelId": "room"})
    assert answer == {"channelId": "room"}
    kinds: list[str] = []
    async with asyncio.timeout(30):
        async with api.http.post(
            f"{api.sandbox.url}/v1/channel/room/subscribe",
            json={"historyLength": 100},
            headers={"Authorization": "Bearer sk-acme", "Accept": "application/jsonl"},
        ) as response:
            while "result" not in kinds:
                line = await response.content.readline()
                assert line
                kinds.append(_inner_type(line))
    assert kinds[0] == "nop"
    assert "token" in kinds


def _inner_type(line: bytes) -> str:
    event = orjson.loads(line)
    return str(event["data"]["type"] if event["type"] == "message" else event["type"])


async def test_a_vote_leaves_a_rating_and_two_activities(api: Api) -> None:
    contact = await api.make("contact")
    _, talk = await api.post(
        "/v1/conversation/create", {"contactId": contact, "messages": [{"type": "user", "text": "hi"}]}
    )
    _, page = await api.get(f"/v1/conversation/{talk['id']}/message/list")
    path = f"/v1/conversation/{talk['id']}/message/{page['items'][0]['id']}/downvote"
    assert (await api.post(path, {"reason": "bad"}))[0] == 200
    _, ratings = await api.get(f"/v1/contact/{contact}/rating/list")
    assert [(rating["value"], rating["reason"]) for rating in ratings["items"]] == [(-1, "bad")]
    _, page = await api.get(f"/v1/conversation/{talk['id']}/message/list")
    assert [message["type"] for message in page["items"]] == ["user", "activity", "activity"]


async def test_openai_style_answers_and_chunks(api: Api) -> None:
    bot = await api.make("bot", {"model": "m1"})
    body = {
        "model": f"bot/id={bot}",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    }
    status, completion = await api.post("/v1/openai/chat/completions", body)
    assert status == 200
    usage = completion["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    assert completion["choices"][0]["message"]["content"].endswith("hi")
    status, headers, stream = await api.raw(
        "POST", "/v1/openai/chat/completions", json={**body, "stream": True}
    )
    assert status == 200
    assert headers["Content-Type"] == "text/event-stream"
    assert headers["Cache-Control"] == "no-cache"
    assert stream.endswith(b"data: [DONE]\n\n")
    assert b'"usage"' not in stream


@pytest.mark.parametrize("model", ["gpt-4o", "bot/id=unknown", "conversation/id=x", "model/", ""])
async def test_an_openai_style_refusal_has_both_shapes(api: Api, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    status, refusal = await api.post("/v1/openai/chat/completions", body)
    assert status in (400, 404)
    assert refusal["error"]["type"] == "invalid_request_error"
    assert refusal["error"]["message"] == refusal["message"]

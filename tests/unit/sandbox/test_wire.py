"""What each fault does to the wire, and what it leaves done behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp
import orjson
import pytest

from cbk_gateway.sandbox import Sandbox

from .conftest import Api

JSONL = {"Accept": "application/jsonl"}


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; the deadline is generous, because it is only met by a failure."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def bots(api: Api) -> list[str]:
    return [str(row.body.get("name")) for row in api.sandbox.world.store.rows("acme", "bot").values()]


async def test_a_status_fault_answers_in_shape_and_without_effect(api: Api, sandbox: Sandbox) -> None:
    sandbox.add_fault("/v1/bot/*", "status", value=503, times=1)
    status, refusal = await api.post("/v1/bot/create", {"name": "x"})
    assert (status, refusal["code"], refusal["error"]["code"]) == (503, *["SERVICE_UNAVAILABLE"] * 2)
    assert bots(api) == []
    assert (await api.post("/v1/bot/create", {"name": "x"}))[0] == 200
    assert sandbox.requests[0].faults == ("status",)
    assert sandbox.requests[0].status == 503


async def test_a_status_fault_may_come_after_the_effect(api: Api, sandbox: Sandbox) -> None:
    value = {"status": 502, "after_effect": True, "message": "odd", "code": "ODD", "headers": {"X-A": "b"}}
    sandbox.add_fault("/v1/bot/create", "status", value=value)
    status, headers, body = await api.raw("POST", "/v1/bot/create", json={"name": "x"})
    assert (status, headers["X-A"]) == (502, "b")
    assert orjson.loads(body)["code"] == "ODD"
    assert bots(api) == ["x"]


async def test_a_rate_limited_answer_names_no_time(api: Api, sandbox: Sandbox) -> None:
    sandbox.add_fault("*", "rate_limited", times=1)
    status, headers, body = await api.raw("GET", "/v1/bot/list")
    assert (status, orjson.loads(body)["code"]) == (429, "LIMITS_REACHED")
    assert "Retry-After" not in headers


@pytest.mark.parametrize("value", [None, "reset"])
@pytest.mark.parametrize(("fault", "done"), [("drop_before", []), ("drop_after_effect", ["x"])])
async def test_a_dropped_connection_leaves_what_was_done(
    api: Api, sandbox: Sandbox, fault: str, value: str | None, done: list[str]
) -> None:
    sandbox.add_fault("*", fault, method="POST", value=value)
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await api.post("/v1/bot/create", {"name": "x"})
    assert bots(api) == done
    assert sandbox.requests[0].outcome == "dropped"
    assert sandbox.requests[0].body == {"name": "x"}


async def test_a_stream_dropped_after_its_effect_did_all_its_work(api: Api, sandbox: Sandbox) -> None:
    talk = await api.make("conversation")
    sandbox.add_fault("*/complete", "drop_after_effect")
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await api.post(f"/v1/conversation/{talk}/complete", {"text": "!create bot Zed"}, headers=JSONL)
    assert bots(api) == ["Zed"]


async def test_latency_comes_before_anything_else(api: Api, sandbox: Sandbox) -> None:
    sandbox.add_fault("/v1/bot/create", "latency", value=60_000)
    pending = asyncio.ensure_future(api.post("/v1/bot/create", {"name": "x"}))
    await eventually(lambda: sandbox.requests)
    assert sandbox.requests[0].outcome == "pending"
    pending.cancel()
    await eventually(lambda: sandbox.requests[0].outcome == "disconnected")
    assert bots(api) == []


async def test_a_short_latency_ends(api: Api, sandbox: Sandbox) -> None:
    sandbox.add_fault("*", "latency", value=30)
    assert (await api.get("/v1/bot/list"))[0] == 200
    assert sandbox.requests[0].faults == ("latency",)


async def test_a_slow_error_is_a_success_at_first(api: Api, sandbox: Sandbox) -> None:
    sandbox.add_fault("/v1/bot/list", "slow_json_error", value=1)
    status, headers, body = await api.raw("GET", "/v1/bot/list")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert headers["Transfer-Encoding"] == "chunked"
    assert set(orjson.loads(body)) == {"message", "code"}


@pytest.mark.parametrize("events", [0, 1, 4])
async def test_a_truncated_stream_ends_in_the_middle_but_its_work_goes_on(
    api: Api, sandbox: Sandbox, events: int
) -> None:
    talk = await api.make("conversation")
    sandbox.add_fault("*/complete", "truncate_stream", value=events)
    url = f"{sandbox.url}/v1/conversation/{talk}/complete"
    headers = {"Authorization": "Bearer sk-acme", **JSONL}
    async with api.http.post(url, json={"text": "!create bot Zed"}, headers=headers) as response:
        assert response.status == 200
        for _ in range(events):
            assert (await response.content.readline()).endswith(b"\n")
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert bots(api) == ["Zed"]


async def test_a_truncated_body_is_shorter_than_it_said(api: Api, sandbox: Sandbox) -> None:
    sandbox.add_fault("/v1/bot/list", "truncate_stream", value=5)
    with pytest.raises(aiohttp.ClientPayloadError):
        await api.get("/v1/bot/list")


async def test_a_truncation_past_the_end_cuts_nothing(api: Api, sandbox: Sandbox) -> None:
    await api.make("bot")
    sandbox.add_fault("/v1/bot/list", "truncate_stream", value=10)
    assert len(await api.events("/v1/bot/list")) == 1


async def test_a_silent_stream_keeps_still_after_its_first_event(api: Api, sandbox: Sandbox) -> None:
    talk = await api.make("conversation")
    sandbox.add_fault("*/complete", "silence")
    url = f"{sandbox.url}/v1/conversation/{talk}/complete"
    headers = {"Authorization": "Bearer sk-acme", **JSONL}
    async with api.http.post(url, json={"text": "!create bot Zed"}, headers=headers) as response:
        assert orjson.loads(await response.content.readline())["type"] == "sendResult"
        assert sandbox.requests[-1].outcome == "pending"
    # A client that leaves aborts the run: nothing after the silence ever happens.
    await eventually(lambda: sandbox.requests[-1].outcome == "disconnected")
    assert bots(api) == []


async def test_a_short_silence_ends(api: Api, sandbox: Sandbox) -> None:
    sandbox.add_fault("*/complete", "silence", value=1)
    events = await api.events("/v1/conversation/complete", {"messages": [{"type": "user", "text": "hi"}]})
    assert events[-1]["type"] == "result"


async def test_faults_are_planted_shown_and_cleared_over_http(api: Api) -> None:
    fault = {"path": "/v1/bot/*", "fault": "status", "value": 500, "times": 1}
    assert (await api.post("/_sandbox/faults", fault))[0] == 200
    assert (await api.get("/v1/bot/list"))[0] == 500
    _, listed = await api.get("/_sandbox/faults")
    assert listed == [{**fault, "method": None, "times": 0, "hits": 1}]
    await api.raw("DELETE", "/_sandbox/faults")
    assert (await api.get("/_sandbox/faults"))[1] == []


async def test_faults_never_touch_the_control_plane(api: Api, sandbox: Sandbox) -> None:
    sandbox.add_fault("*", "drop_before")
    assert (await api.get("/_sandbox/health"))[0] == 200

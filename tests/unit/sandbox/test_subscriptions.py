"""Endless streams: what opens them, who shares them, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from cbk_gateway.sandbox import Sandbox
from cbk_gateway.sandbox.channels import BACKLOG, Channels

from .conftest import KEYS, Api


@asynccontextmanager
async def subscribed(
    api: Api, path: str, *, key: str = "sk-acme", history: int = 0
) -> AsyncIterator[aiohttp.StreamReader]:
    headers = {"Authorization": f"Bearer {key}", "Accept": "application/jsonl"}
    body = {"historyLength": history}
    async with api.http.post(api.sandbox.url + path, json=body, headers=headers) as response:
        assert response.status == 200
        assert orjson.loads(await response.content.readline()) == {"type": "nop", "data": {}}
        yield response.content


async def next_event(stream: aiohttp.StreamReader) -> Any:
    async with asyncio.timeout(30):
        return orjson.loads(await stream.readline())


async def test_a_subscriber_hears_what_is_published(api: Api) -> None:
    async with subscribed(api, "/v1/channel/room/subscribe") as stream:
        assert (await api.post("/v1/channel/room/publish", {"message": {"n": 1}}))[1] == {"id": "room"}
        assert await next_event(stream) == {"type": "message", "data": {"n": 1}}


async def test_a_late_subscriber_may_ask_for_history(api: Api) -> None:
    for number in range(3):
        await api.post("/v1/channel/room/publish", {"message": {"n": number}})
    async with subscribed(api, "/v1/channel/room/subscribe", history=2) as stream:
        assert [(await next_event(stream))["data"]["n"] for _ in range(2)] == [1, 2]


async def test_channels_of_two_credentials_are_apart_even_in_one_account(api: Api) -> None:
    async with subscribed(api, "/v1/channel/room/subscribe") as stream:
        for key in ("sk-acme-2", "sk-globex"):
            await api.post("/v1/channel/room/publish", {"message": {"from": key}}, key=key)
        as_kid = {"X-RunAs-User-ID": "user_kid"}
        await api.post("/v1/channel/room/publish", {"message": {"from": "kid"}}, headers=as_kid)
        await api.post("/v1/channel/room/publish", {"message": {"from": "me"}})
        assert (await next_event(stream))["data"] == {"from": "me"}


async def test_a_json_client_gets_the_first_message(api: Api) -> None:
    await api.post("/v1/channel/room/publish", {"message": {"n": 1}})
    assert await api.post("/v1/channel/room/subscribe", {"historyLength": 1}) == (200, {"n": 1})


async def test_the_event_log_is_told_as_it_is_written(api: Api) -> None:
    async with subscribed(api, "/v1/event/log/subscribe") as stream:
        bot = await api.make("bot")
        event = await next_event(stream)
        assert event["type"] == "item"
        assert (event["data"]["type"], event["data"]["botId"]) == ("bot.create", bot)
    _, page = await api.get(f"/v1/event/log/list?botId={bot}")
    assert [entry["type"] for entry in page["items"]] == ["bot.create"]


async def test_a_triggered_task_ends_later(api: Api) -> None:
    task = await api.make("task")
    async with subscribed(api, f"/v1/task/{task}/subscribe") as stream:
        await api.post(f"/v1/task/{task}/trigger")
        assert (await api.get(f"/v1/task/{task}/fetch"))[1]["status"] == "running"
        assert (await next_event(stream))["type"] == "operationBegin"
        assert (await next_event(stream))["type"] == "operationEnd"
    _, fetched = await api.get(f"/v1/task/{task}/fetch")
    assert (fetched["status"], fetched["outcome"]) == ("idle", "success")
    _, executions = await api.get(f"/v1/task/{task}/execution/list")
    assert [execution["outcome"] for execution in executions["items"]] == ["success"]


async def test_a_canceled_execution_never_succeeds(api: Api) -> None:
    task = await api.make("task")
    await api.post(f"/v1/task/{task}/trigger")
    _, executions = await api.get(f"/v1/task/{task}/execution/list")
    execution = executions["items"][0]["id"]
    _, answer = await api.post(f"/v1/task/{task}/execution/{execution}/cancel")
    assert answer == {"id": execution, "taskId": task}
    await asyncio.gather(*api.sandbox.world.tasks)
    _, executions = await api.get(f"/v1/task/{task}/execution/list")
    assert executions["items"][0]["status"] == "canceled"


async def test_a_sync_ends_later_and_may_not_be_repeated_at_once(api: Api) -> None:
    sitemap = await api.make("integration/sitemap", {"url": "https://example.com"})
    assert (await api.post(f"/v1/integration/sitemap/{sitemap}/sync"))[0] == 200
    await asyncio.gather(*api.sandbox.world.tasks)
    _, fetched = await api.get(f"/v1/integration/sitemap/{sitemap}/fetch")
    assert fetched["syncStatus"] == "synced"
    status, refusal = await api.post(f"/v1/integration/sitemap/{sitemap}/sync")
    assert (status, refusal["code"]) == (429, "TOO_MANY_REQUESTS")


async def test_stopping_ends_open_streams_at_once() -> None:
    sandbox = await Sandbox(KEYS).start()
    async with aiohttp.ClientSession() as http:
        api = Api(sandbox, http)
        async with subscribed(api, "/v1/channel/room/subscribe") as stream:
            async with asyncio.timeout(5):
                await sandbox.stop()
                with pytest.raises(aiohttp.ClientPayloadError):
                    await stream.read()


def test_a_slow_listener_loses_the_oldest_messages() -> None:
    channels = Channels()
    with channels.listen("room") as queue:
        for number in range(BACKLOG + 5):
            channels.publish("room", {"n": number})
        assert queue.get_nowait() == {"n": 5}
        assert channels.listeners("room") == 1
    assert channels.listeners("room") == 0

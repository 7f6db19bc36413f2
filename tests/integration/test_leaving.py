"""Clients that leave before they have their answer: the upstream stops working, unless others wait for it.

Nothing else could end these calls: the upstream never answers by itself, and every timeout is minutes away.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.store import Store
from harness import Stage, running
from told_api import JSON, Asked, told, until

FETCH = "/api/v1/bot/b1/fetch"
CALLS = [
    pytest.param("GET", FETCH, "quiet", id="read-that-fills-the-cache"),
    pytest.param("GET", "/api/v1/file/f1/download", "quiet", id="read-that-does-not"),
    pytest.param("GET", "/api/v1/file/f1/download", "half", id="download-in-its-middle"),
    pytest.param("POST", "/api/v1/bot/create", "quiet", id="write"),
    pytest.param("POST", "/api/v1/bot/create", "half", id="write-in-its-answer"),
    pytest.param("POST", "/api/v1/conversation/complete", "quiet", id="model-run"),
]


async def never(one: Asked) -> None:
    await one.left.wait()


async def half(one: Asked) -> None:
    await one.begin(JSON)
    await one.chunk(b'{"id":')
    await one.left.wait()


@pytest.mark.parametrize(("method", "path", "how"), CALLS)
async def test_the_upstream_is_left_when_the_client_leaves(
    tmp_path: Path,
    valkey_url: str,
    store: Store,
    client: aiohttp.ClientSession,
    method: str,
    path: str,
    how: str,
) -> None:
    async with (
        told(half if how == "half" else never) as api,
        running(tmp_path, valkey_url, sandbox_url=api.url) as stage,
    ):
        await until(lambda: stage.gateway.parts.cache.is_live)
        sent: dict[str, list[str]] | None = {"messages": []} if method == "POST" else None
        asking = asyncio.ensure_future(
            client.request(method, stage.url + path, json=sent, headers=stage.bearer())
        )
        await until(lambda: bool(api.asked))
        assert not api.asked[0].left.is_set()
        await give_up(asking)
        await asyncio.wait_for(api.asked[0].left.wait(), 30)
        await until(lambda: in_flight(stage) == 0)


async def test_a_call_that_others_wait_for_goes_on(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    """The client that caused it leaves; the one who waits for the same answer gets it."""
    gate = asyncio.Event()

    async def answer(one: Asked) -> None:
        await gate.wait()
        await one.say(b'{"id":"b1","name":"kept"}')

    async with told(answer) as api, running(tmp_path, valkey_url, sandbox_url=api.url) as stage:
        cache = stage.gateway.parts.cache
        await until(lambda: cache.is_live)
        fields = stage.bearer()
        first = asyncio.ensure_future(client.get(stage.url + FETCH, headers=fields))
        await until(lambda: bool(api.asked))
        second = asyncio.ensure_future(client.get(stage.url + FETCH, headers=fields))
        await until(lambda: any(fill.is_awaited for fill in cache._tiers.fills))
        await give_up(first)
        await until(lambda: in_flight(stage) == 1)
        assert not api.asked[0].left.is_set()
        gate.set()
        async with await second as given:
            assert (given.status, await given.read()) == (200, b'{"id":"b1","name":"kept"}')
        assert len(api.asked) == 1


async def give_up(asking: asyncio.Future[aiohttp.ClientResponse]) -> None:
    """Close the client's connection, whether its answer has begun or not."""
    if asking.done():
        asking.result().close()
        return
    asking.cancel()
    await asyncio.wait((asking,))


def in_flight(stage: Stage) -> float:
    body, _ = stage.gateway.parts.metrics.exposition()
    (line,) = [one for one in body.decode().splitlines() if one.startswith("cbk_gateway_requests_in_flight")]
    return float(line.rpartition(" ")[2])

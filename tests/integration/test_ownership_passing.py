"""Creates whose answers are too long to hold, or streams, of tenants who share an account.

The write has been done by then: the client gets its answer, and owns what it names before it can know of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from cbk_gateway.secret import Secret
from cbk_gateway.store import Store
from harness import KEYS, Stage, running, tenant
from told_api import JSONL, SSE, Asked, gather, told

SHARED = {"account": "shared", "key": Secret(KEYS["acme"])}
CREATE = "/api/v1/bot/create"
SMALL_CACHE = {"max_entry_bytes": 4096}
PADDING = "x" * 20_000


@asynccontextmanager
async def shared(folder: Path, store_url: str, url: str) -> AsyncIterator[Stage]:
    tenants = tuple(tenant(name, isolation="objects", **SHARED) for name in ("acme", "globex"))
    async with running(folder, store_url, tenants=tenants, sandbox_url=url, cache=SMALL_CACHE) as stage:
        yield stage


async def owner(stage: Stage, identifier: str) -> str | None:
    return await stage.gateway.parts.ownership.owner_of("shared", identifier)


def outcome(stage: Stage) -> dict[str, object]:
    (one,) = [record for record in stage.journal() if record["kind"] == "outcome"]
    return dict(one)


@pytest.mark.parametrize("is_id_first", [True, False], ids=["id-first", "id-last"])
async def test_a_long_answer_is_given_whole_and_what_it_names_is_owned(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession, is_id_first: bool
) -> None:
    document = (
        {"id": "b1", "pad": PADDING} if is_id_first else {"pad": PADDING, "meta": {"id": "no"}, "id": "b1"}
    )
    body = orjson.dumps(document)

    async def answer(one: Asked) -> None:
        await one.say(body)

    async with told(answer) as api, shared(tmp_path, valkey_url, api.url) as stage:
        async with client.post(stage.url + CREATE, json={}, headers=stage.bearer()) as given:
            assert (given.status, await given.read()) == (200, body)
        assert await owner(stage, "b1") == "acme"
        assert await owner(stage, "no") is None
        # Its owner may use it, another tenant of the account may not.
        for who, status in (("acme", 200), ("globex", 404)):
            url = f"{stage.url}/api/v1/bot/b1/fetch"
            async with client.get(url, headers=stage.bearer(who)) as given:
                assert given.status == status
        await stage.gateway.stop()
        assert outcome(stage)["answer_ids"] == ["b1"]


def as_jsonl(identifier: str) -> bytes:
    return b'{"type":"item","data":{"id":"%b","name":"\xc3\xa9"}}\n' % identifier.encode()


def as_sse(identifier: str) -> bytes:
    return b'event: item\ndata: {"id":"%b","name":"\xc3\xa9"}\n\n' % identifier.encode()


FORMS = [pytest.param(JSONL, as_jsonl, id="jsonl"), pytest.param(SSE, as_sse, id="sse")]


@pytest.mark.parametrize(("media", "event"), FORMS)
async def test_each_event_names_what_is_owned_by_then(
    tmp_path: Path,
    valkey_url: str,
    store: Store,
    client: aiohttp.ClientSession,
    media: bytes,
    event: Callable[[str], bytes],
) -> None:
    had = asyncio.Semaphore(0)
    ids = ["b1", "b2", "b3"]

    async def answer(one: Asked) -> None:
        await one.begin(media)
        for identifier in ids:
            octets = event(identifier)
            await one.chunk(octets[:20], octets[20:])
            await had.acquire()
        await one.end()

    async with told(answer) as api, shared(tmp_path, valkey_url, api.url) as stage:
        got = b""
        async with client.post(stage.url + CREATE, json={}, headers=stage.bearer()) as given:
            for identifier in ids:
                while event(identifier) not in got:
                    got += await given.content.readany()
                assert await owner(stage, identifier) == "acme"
                had.release()
            got += await given.content.read()
        assert got == b"".join(map(event, ids))
        await stage.gateway.stop()
        assert (outcome(stage)["result"], outcome(stage)["answer_ids"]) == ("answered", ids)


async def test_a_stream_that_names_another_tenants_object_breaks_before_it(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    had = asyncio.Event()

    async def answer(one: Asked) -> None:
        await one.begin(JSONL)
        await one.chunk(as_jsonl("mine"))
        await had.wait()
        await one.chunk(as_jsonl("theirs"))
        await one.end()

    async with told(answer) as api, shared(tmp_path, valkey_url, api.url) as stage:
        await stage.gateway.parts.ownership.assign("shared", "globex", ["theirs"])
        got = bytearray()
        async with client.post(stage.url + CREATE, json={}, headers=stage.bearer()) as given:
            got += await given.content.readline()
            assert got == as_jsonl("mine")
            had.set()
            with pytest.raises(aiohttp.ClientPayloadError):
                await gather(given, got)
        assert b"theirs" not in got
        assert b'"type":"error"' in got.splitlines()[-1]


async def test_a_long_answer_about_another_tenants_object_is_refused_before_its_head(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    async def answer(one: Asked) -> None:
        await one.say(orjson.dumps({"id": "theirs", "pad": PADDING}))

    async with told(answer) as api, shared(tmp_path, valkey_url, api.url) as stage:
        await stage.gateway.parts.ownership.assign("shared", "globex", ["theirs"])
        async with client.post(stage.url + CREATE, json={}, headers=stage.bearer()) as given:
            assert given.status == 404
            assert b"theirs" not in await given.read()


async def test_the_answer_to_a_write_is_asked_for_uncoded(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    """Ids, usage and failures are read from it; what nobody looks into keeps its coding."""
    fields = {**stage.bearer(), "Accept-Encoding": "gzip, br"}
    async with client.post(stage.url + CREATE, json={"name": "a"}, headers=fields) as given:
        assert given.status == 200
    assert stage.sandbox.requests[-1].headers["accept-encoding"] == "identity"

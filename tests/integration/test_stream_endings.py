"""Event streams through the whole gateway: signs of life, and every way a stream can end.

What the client sees, what the upstream sees, and what metrics and journal say of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cbk_gateway.store import Store
from harness import Stage, running
from told_api import JSONL, SSE, Asked, ToldApi, gather, told, until

COMPLETE = "/api/v1/conversation/complete"
ASKED: dict[str, Any] = {"messages": []}
LINES = (b'{"type":"token","data":{"token":"\xc3\xa9"}}\n', b'{"type":"result","data":{"text":"\xc3\xa9"}}\n')
EVENTS = (b'event: token\ndata: {"token":"\xc3\xa9"}\n\n', b'event: result\ndata: {"text":"\xc3\xa9"}\n\n')
PING, COMMENT = b'{"type":"ping","data":{}}\n', b": ping\n\n"
FORMS = [
    pytest.param(JSONL, LINES, PING, id="jsonl"),
    pytest.param(SSE, EVENTS, COMMENT, id="sse"),
]


@asynccontextmanager
async def behind(
    folder: Path, store_url: str, api: ToldApi, **sections: Mapping[str, object]
) -> AsyncIterator[Stage]:
    async with running(folder, store_url, tenants=None, sandbox_url=api.url, **sections) as stage:
        yield stage


def asking(client: aiohttp.ClientSession, stage: Stage, media: bytes) -> Any:
    accept = media.split(b": ")[1].strip().decode()
    return client.post(stage.url + COMPLETE, json=ASKED, headers={**stage.bearer(), "Accept": accept})


def endings(stage: Stage, name: str = "stream_endings_total") -> dict[str, float]:
    """How streams ended, by the metrics."""
    body, _ = stage.gateway.parts.metrics.exposition()
    found = {}
    for line in body.decode().splitlines():
        if line.startswith(f"cbk_gateway_{name}{{"):
            series, _, value = line.rpartition(" ")
            ending = series.partition('ending="')[2].partition('"')[0]
            if float(value):
                found[ending] = float(value)
    return found


async def outcome(stage: Stage) -> tuple[str, str]:
    """What the journal says of the one write: its result and how its stream ended."""
    await stage.gateway.stop()
    (record,) = [one for one in stage.journal() if one["kind"] == "outcome"]
    return record["result"], record["stream_end"]


def is_error(media: bytes, last: bytes) -> bool:
    """Whether the last event says that something broke, in the stream's own form."""
    if media == JSONL:
        event = orjson.loads(last.splitlines()[-1])
        return bool(event["type"] == "error" and set(event["data"]) == {"message", "code"})
    name, document = last.removesuffix(b"\n\n").rpartition(b"\n\n")[2].split(b"\n")
    return name == b"event: error" and set(orjson.loads(document.removeprefix(b"data: "))) == {
        "message",
        "code",
    }


@pytest.mark.parametrize(("media", "events", "sign"), FORMS)
async def test_silence_is_filled_in_the_streams_own_form(
    tmp_path: Path,
    valkey_url: str,
    store: Store,
    client: aiohttp.ClientSession,
    media: bytes,
    events: tuple[bytes, bytes],
    sign: bytes,
) -> None:
    """Also in the midst of an event, where nothing may be put in."""
    go_on = asyncio.Event()

    async def answer(one: Asked) -> None:
        await one.begin(media)
        await one.chunk(events[0])
        await go_on.wait()
        await one.chunk(events[1][:9], events[1][9:])
        await one.end()

    async with (
        told(answer) as api,
        behind(tmp_path, valkey_url, api, upstream={"stream_heartbeat_s": 0.05}) as stage,
        asking(client, stage, media) as given,
    ):
        got = bytearray()
        while got.count(sign) < 3:
            got += await given.content.readany()
        go_on.set()
        await gather(given, got)
        assert bytes(got).startswith(events[0] + sign * 3)
        assert bytes(got).replace(sign, b"") == b"".join(events)
        if media == JSONL:
            assert all(orjson.loads(line) for line in got.splitlines())
        assert await outcome(stage) == ("answered", "complete")


async def whole(one: Asked, events: tuple[bytes, bytes]) -> None:
    await one.chunk(*events)
    await one.end()


async def without_its_result(one: Asked, events: tuple[bytes, bytes]) -> None:
    await one.chunk(events[0])
    await one.end()


async def cut(one: Asked, events: tuple[bytes, bytes]) -> None:
    await one.chunk(events[0], events[1][:9])
    one.writer.close()


async def reset(one: Asked, events: tuple[bytes, bytes]) -> None:
    await one.chunk(events[0])
    one.writer.transport.abort()


async def badly_framed(one: Asked, events: tuple[bytes, bytes]) -> None:
    await one.chunk(events[0])
    await one.write(b"nonsense\r\n")


async def silent(one: Asked, events: tuple[bytes, bytes]) -> None:
    await one.chunk(events[0])
    await one.left.wait()


Telling = Callable[[Asked, tuple[bytes, bytes]], Any]
ENDINGS = [
    pytest.param(whole, {}, "complete", id="complete"),
    pytest.param(without_its_result, {}, "truncated", id="without-its-result"),
    pytest.param(cut, {}, "truncated", id="cut"),
    pytest.param(reset, {}, "truncated", id="reset"),
    pytest.param(badly_framed, {}, "truncated", id="badly-framed"),
    pytest.param(silent, {"timeouts": {"model": {"idle_s": 0.3}}}, "truncated", id="silent"),
    pytest.param(silent, {"stream_deadline_s": 0.3}, "deadline", id="deadline"),
]


@pytest.mark.parametrize(("media", "events", "sign"), FORMS)
@pytest.mark.parametrize(("telling", "upstream", "ending"), ENDINGS)
async def test_how_a_stream_ended_is_told_to_client_metrics_and_journal(
    tmp_path: Path,
    valkey_url: str,
    store: Store,
    client: aiohttp.ClientSession,
    media: bytes,
    events: tuple[bytes, bytes],
    sign: bytes,
    telling: Telling,
    upstream: dict[str, Any],
    ending: str,
) -> None:
    async def answer(one: Asked) -> None:
        await one.begin(media)
        await telling(one, events)

    async with told(answer) as api, behind(tmp_path, valkey_url, api, upstream=upstream) as stage:
        got = bytearray()
        async with asking(client, stage, media) as given:
            if ending == "complete":
                await gather(given, got)
                assert bytes(got) == b"".join(events)
            else:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await gather(given, got)
                assert bytes(got).startswith(events[0])
                assert is_error(media, bytes(got)), got
                # Of an event that was cut off nothing is passed on.
                assert bytes(got).count(b"token") == events[0].count(b"token")
        await until(lambda: bool(endings(stage)))
        assert endings(stage) == endings(stage, "upstream_stream_endings_total") == {ending: 1}
        assert await outcome(stage) == ("answered", ending)


@pytest.mark.parametrize(("media", "events", "sign"), FORMS)
async def test_a_client_that_leaves_ends_the_upstreams_work(
    tmp_path: Path,
    valkey_url: str,
    store: Store,
    client: aiohttp.ClientSession,
    media: bytes,
    events: tuple[bytes, bytes],
    sign: bytes,
) -> None:
    async def answer(one: Asked) -> None:
        await one.begin(media)
        await silent(one, events)

    async with told(answer) as api, behind(tmp_path, valkey_url, api) as stage:
        given = await asking(client, stage, media)
        await given.content.readuntil(b"\n")
        (one,) = api.asked
        assert not one.left.is_set()
        given.close()
        # No timeout, heartbeat or write of the gateway's comes within minutes: only the leaving is left.
        await asyncio.wait_for(one.left.wait(), 30)
        await until(lambda: bool(endings(stage)))
        assert endings(stage) == {"client_abort": 1}
        assert await outcome(stage) == ("aborted_by_client", "client_abort")


@pytest.mark.parametrize(("media", "events", "sign"), FORMS)
async def test_a_drain_lets_streams_finish_and_tells_those_that_do_not(
    tmp_path: Path,
    valkey_url: str,
    store: Store,
    client: aiohttp.ClientSession,
    media: bytes,
    events: tuple[bytes, bytes],
    sign: bytes,
) -> None:
    go_on = asyncio.Event()

    async def answer(one: Asked) -> None:
        await one.begin(media)
        if len(api.asked) == 1:
            await one.chunk(events[0])
            await go_on.wait()
            await one.chunk(events[1])
            await one.end()
        else:
            await silent(one, events)

    async with told(answer) as api, behind(tmp_path, valkey_url, api, listen={"drain_s": 2}) as stage:
        first, other = bytearray(), bytearray()
        async with asking(client, stage, media) as finishing, asking(client, stage, media) as lasting:
            for given, into in ((finishing, first), (lasting, other)):
                while not into.endswith(events[0]):
                    into.extend(await given.content.readany())
            stopping = asyncio.ensure_future(stage.gateway.stop())
            await until(lambda: stage.gateway.is_draining)
            go_on.set()
            await gather(finishing, first)
            assert bytes(first) == b"".join(events)
            assert not stopping.done()
            with pytest.raises(aiohttp.ClientPayloadError):
                await gather(lasting, other)
            assert is_error(media, bytes(other))
            await stopping
        assert endings(stage) == {"complete": 1, "drained": 1}
        ends = {one["stream_end"] for one in stage.journal() if one["kind"] == "outcome"}
        assert ends == {"complete", "drained"}


async def test_a_revoked_token_ends_its_streams_with_a_word(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    async def answer(one: Asked) -> None:
        await one.begin(JSONL)
        await silent(one, LINES)

    async with told(answer) as api, behind(tmp_path, valkey_url, api) as stage:
        async with asking(client, stage, JSONL) as given:
            got = bytearray(await given.content.readline())
            stage.gateway.parts.open_streams.end_where(lambda who: who.tenant == "acme", "revoked")
            with pytest.raises(aiohttp.ClientPayloadError):
                await gather(given, got)
        assert is_error(JSONL, bytes(got))
        await asyncio.wait_for(api.asked[0].left.wait(), 30)
        await until(lambda: bool(endings(stage)))
        assert endings(stage) == {"revoked": 1}


async def test_a_reader_that_will_not_read_is_bounded_in_memory_and_time(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    line = b'{"type":"token","data":{"token":"%b"}}\n' % (b"x" * 60_000)
    written = 0

    async def answer(one: Asked) -> None:
        nonlocal written
        await one.begin(JSONL)
        while not one.left.is_set():
            await one.chunk(line)
            written += len(line)

    async with (
        told(answer) as api,
        behind(tmp_path, valkey_url, api, listen={"write_timeout_s": 1}) as stage,
    ):
        host, port = stage.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=65_536)
        head = (
            f"POST {COMPLETE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stage.token()}\r\n"
            "Content-Type: application/json\r\nAccept: application/jsonl\r\nContent-Length: 15\r\n\r\n"
        )
        writer.write(head.encode() + b'{"messages":[]}')
        assert b"200" in await reader.readline()
        # Nothing more is read: what the kernel does not take, the gateway must not gather.
        await until(lambda: bool(api.asked))
        await asyncio.wait_for(api.asked[0].left.wait(), 30)
        assert written < 40_000_000
        await until(lambda: bool(endings(stage)))
        assert endings(stage) == {"client_abort": 1}
        writer.transport.abort()

"""The relay of event streams, over the transport's own pieces and over any iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cbk_gateway.upstream import (
    Cause,
    Ending,
    Relay,
    RelayOptions,
    SilentObserver,
    StreamBroken,
    StreamForm,
    Terminal,
    relay,
)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = '{"type":"token","data":{"token":"é"}}\n'.encode()
RESULT = b'{"type":"result","data":{}}\n'
CALM = RelayOptions(heartbeat_s=60)


def chunked(octets: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(octets), octets)


async def taken(stream: Relay) -> tuple[bytes, StreamBroken | None]:
    got = b""
    try:
        async for piece in stream:
            got += piece
    except StreamBroken as fault:
        return got, fault
    return got, None


async def iterated(*parts: bytes | Exception) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


@pytest.mark.parametrize("over_the_wire", [True, False])
async def test_a_whole_stream_is_byte_exact_and_complete(kit: Any, over_the_wire: bool) -> None:
    stream = TOKEN * 3 + RESULT
    parts = [stream[place : place + 5] for place in range(0, len(stream), 5)]

    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(HEAD)
        for part in parts:
            await peer.send(chunked(part))
        await peer.send(b"0\r\n\r\n")

    async with (
        kit.scripted(script) as server,
        kit.running(server.url) as upstream,
        await upstream.send(kit.call()) as answer,
    ):
        pieces = answer.chunks() if over_the_wire else iterated(*parts)
        relayed = relay(pieces, StreamForm.JSONL, CALM, terminal=Terminal.RESULT)
        assert await taken(relayed) == (stream, None)
        assert relayed.ending is Ending.COMPLETE


@pytest.mark.parametrize("over_the_wire", [True, False])
async def test_silence_is_filled_with_heartbeats(kit: Any, over_the_wire: bool) -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield TOKEN
        await go_on.wait()
        yield RESULT

    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(HEAD + chunked(TOKEN))
        await go_on.wait()
        await peer.send(chunked(RESULT) + b"0\r\n\r\n")

    async with (
        kit.scripted(script) as server,
        kit.running(server.url) as upstream,
        await upstream.send(kit.call()) as answer,
    ):
        pieces = answer.chunks() if over_the_wire else slow()
        relayed = relay(pieces, StreamForm.JSONL, RelayOptions(heartbeat_s=0.02))
        assert await anext(relayed) == TOKEN
        for _ in range(3):
            assert await anext(relayed) == b'{"type":"ping","data":{}}\n'
        go_on.set()
        rest, fault = await taken(relayed)
        assert fault is None
        assert rest.replace(b'{"type":"ping","data":{}}\n', b"") == RESULT


async def test_no_heartbeat_is_put_into_a_line_that_was_passed_in_parts(kit: Any) -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 50
        await go_on.wait()
        yield b"\n"

    async def beside() -> AsyncIterator[bytes]:
        yield TOKEN
        await go_on.wait()

    relayed = relay(slow(), StreamForm.JSONL, RelayOptions(heartbeat_s=0.01, max_line_bytes=10))
    assert await anext(relayed) == b"x" * 50
    following = asyncio.ensure_future(anext(relayed))
    # Another stream, silent for no longer, gets several meanwhile.
    clock = relay(beside(), StreamForm.JSONL, RelayOptions(heartbeat_s=0.01))
    assert await anext(clock) == TOKEN
    for _ in range(5):
        assert await anext(clock) == b'{"type":"ping","data":{}}\n'
    assert not following.done()
    go_on.set()
    assert await following == b"\n"
    await relayed.aclose()
    await clock.aclose()


@pytest.mark.parametrize(
    ("form", "terminal", "parts", "passed", "last"),
    [
        (
            StreamForm.JSONL,
            Terminal.RESULT,
            [TOKEN, b'{"type":"tok', StreamBroken(Cause.CLOSED)],
            TOKEN,
            b'{"type":"error","data":{',
        ),
        (StreamForm.JSONL, Terminal.RESULT, [TOKEN], TOKEN, b'{"type":"error","data":{'),
        (
            StreamForm.SSE,
            Terminal.NONE,
            [b"data: a\n\n", StreamBroken(Cause.IDLE_TIMEOUT)],
            b"data: a\n\n",
            b"event: error\n",
        ),
        (StreamForm.SSE, Terminal.DONE, [b"data: a\n\n"], b"data: a\n\n", b'data: {"error":{'),
    ],
)
async def test_a_broken_stream_ends_in_an_error_event_and_a_fault(
    form: StreamForm, terminal: Terminal, parts: list[Any], passed: bytes, last: bytes
) -> None:
    relayed = relay(iterated(*parts), form, CALM, terminal=terminal)
    got, fault = await taken(relayed)
    assert fault is not None
    assert got.startswith(passed + last)
    assert got.endswith(b"\n")
    assert relayed.ending is Ending.TRUNCATED


async def test_a_stream_that_reported_its_own_error_is_complete() -> None:
    error = b'{"type":"error","data":{"message":"m","code":"C"}}\n'
    relayed = relay(iterated(TOKEN, error), StreamForm.JSONL, CALM, terminal=Terminal.RESULT)
    assert await taken(relayed) == (TOKEN + error, None)
    assert relayed.ending is Ending.COMPLETE


async def test_each_ending_is_reported_once() -> None:
    class Endings(SilentObserver):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def stream_ended(self, ending: str) -> None:
            self.seen.append(ending)

    endings = Endings()
    for parts in ([RESULT], [TOKEN]):
        relayed = relay(iterated(*parts), StreamForm.JSONL, CALM, terminal=Terminal.RESULT, observer=endings)
        await taken(relayed)
        await relayed.aclose()
    assert endings.seen == ["complete", "truncated"]


async def test_streams_without_an_end_of_their_own_may_end_anywhere() -> None:
    relayed = relay(iterated(TOKEN, b'{"last":1}'), StreamForm.JSONL, CALM)
    assert await taken(relayed) == (TOKEN + b'{"last":1}', None)


@pytest.mark.parametrize("over_the_wire", [True, False])
async def test_a_stream_may_be_ended_with_a_word_to_its_client(kit: Any, over_the_wire: bool) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(HEAD + chunked(TOKEN))
        await peer.read_to_end()

    async def silent() -> AsyncIterator[bytes]:
        yield TOKEN
        await asyncio.Event().wait()

    async with (
        kit.scripted(script) as server,
        kit.running(server.url) as upstream,
        await upstream.send(kit.call()) as answer,
    ):
        ended = asyncio.Event()
        pieces = answer.chunks() if over_the_wire else silent()
        relayed = relay(pieces, StreamForm.JSONL, CALM, ended=ended)
        assert await anext(relayed) == TOKEN
        following = asyncio.ensure_future(anext(relayed))
        await asyncio.sleep(0)
        ended.set()
        assert (await following).startswith(b'{"type":"error"')
        with pytest.raises(StreamBroken):
            await anext(relayed)
        assert relayed.ending is Ending.DEADLINE
        await relayed.aclose()


async def test_a_stream_has_a_longest_life() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield TOKEN
            await asyncio.sleep(0.01)

    relayed = relay(endless(), StreamForm.JSONL, RelayOptions(deadline_s=0.1))
    got, fault = await taken(relayed)
    assert fault is not None
    assert got.count(b'"error"') == 1
    assert relayed.ending is Ending.DEADLINE
    await relayed.aclose()


async def test_a_client_that_leaves_is_the_client_that_left(kit: Any) -> None:
    async def silent() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield TOKEN

    relayed = relay(silent(), StreamForm.SSE, CALM, ended=asyncio.Event())
    following = asyncio.ensure_future(anext(relayed))
    await kit.until(lambda: relayed._source._pending is not None)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert relayed.ending is Ending.CLIENT_ABORT
    await relayed.aclose()


async def test_a_slow_reader_holds_the_upstream_back(kit: Any) -> None:
    sent = 0

    async def script(peer: Any) -> None:
        nonlocal sent
        await peer.head()
        await peer.send(HEAD)
        for _ in range(2000):
            await peer.send(chunked(TOKEN * 1000))
            sent += len(TOKEN) * 1000
        await peer.send(b"0\r\n\r\n")

    async with (
        kit.scripted(script) as server,
        kit.running(server.url, buffer_bytes=65536) as upstream,
        await upstream.send(kit.call()) as answer,
    ):
        relayed = relay(answer.chunks(), StreamForm.JSONL, CALM)
        await anext(relayed)
        connections = upstream.pool._all
        await kit.until(lambda: not any(one._transport.is_reading() for one in connections))
        # What is not with the reader is in the socket buffers of the kernel, not in this process.
        assert sent < 30_000_000
        total = len(await anext(relayed))
        async for piece in relayed:
            total += len(piece)
        assert total > 2000 * 1000 * len(TOKEN) - 10_000_000
        assert relayed.ending is Ending.COMPLETE

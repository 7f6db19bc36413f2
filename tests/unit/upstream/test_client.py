"""Calls over real sockets to an upstream that follows a script: what is sent, what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cbk_gateway.errors import ContentTooLarge
from cbk_gateway.upstream import (
    Cause,
    RetryOptions,
    UpstreamFault,
)

ONCE = RetryOptions(max_attempts=1)
HEAD = b"HTTP/1.1 200 OK\r\n"


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: dropped\r\n\r\n",
            b"hello",
        ),
        (b"\r\nhello", b"hello"),
        (b"Content-Length: 0\r\n\r\n", b""),
    ],
)
async def test_each_framing_of_an_answer_is_read(kit: Any, wire: bytes, body: bytes) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        for octet in HEAD + wire:
            await peer.send(bytes([octet]))

    async with (
        kit.scripted(script) as server,
        kit.running(server.url) as upstream,
        await upstream.send(kit.call()) as answer,
    ):
        assert (answer.status, await answer.read(100), answer.attempts) == (200, body, 1)
        assert answer.header("trailer") is None


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_bodiless_answers_end_at_their_head(kit: Any, status: bytes) -> None:
    async def script(peer: Any) -> None:
        while await peer.head():
            await peer.send(b"HTTP/1.1 " + status + b"\r\n\r\n")

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        for _ in range(2):
            async with await upstream.send(kit.call()) as answer:
                assert await answer.read(100) == b""
        assert server.accepted == 1


async def test_a_call_leaves_as_it_was_given(kit: Any) -> None:
    seen = []

    async def script(peer: Any) -> None:
        seen.append(await peer.head() + await peer.read(9))
        await peer.send(kit.ok)

    call = kit.call(
        "POST", "/api/v1/bot/b%2B1/update?x=%2F", b'{"a": 1 }', headers=[("Host", "h"), ("A", "é")]
    )
    async with (
        kit.scripted(script) as server,
        kit.running(server.url, path_prefix="/v1") as upstream,
        await upstream.send(call) as answer,
    ):
        assert answer.status == 200
    expected = "POST /v1/bot/b%2B1/update?x=%2F HTTP/1.1\r\nHost: h\r\nA: é\r\nContent-Length: 9\r\n\r\n"
    assert seen == [expected.encode() + b'{"a": 1 }']


@pytest.mark.parametrize(
    ("length", "wire"),
    [(6, b"abcdef"), (None, b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")],
)
async def test_bodies_in_pieces_are_framed(kit: Any, length: int | None, wire: bytes) -> None:
    seen = []

    async def script(peer: Any) -> None:
        while await peer.head():
            seen.append(await peer.read(len(wire)))
            await peer.send(kit.ok)

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        for _ in range(2):
            async with await upstream.send(kit.create(pieces(b"abc", b"", b"def"), length)) as answer:
                assert await answer.read(10) == b"{}"
        assert server.accepted == 1
    assert seen == [wire, wire]


@pytest.mark.parametrize("parts", [(b"abc",), (b"abc", b"defgh")])
async def test_a_body_that_is_not_as_long_as_declared_breaks_the_exchange(
    kit: Any, parts: tuple[bytes, ...]
) -> None:
    ended = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.head()
        await peer.read_to_end()
        ended.set()

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        with pytest.raises(UpstreamFault) as fault:
            await upstream.send(kit.create(pieces(*parts), 6))
        assert fault.value.cause is Cause.REQUEST_BODY
        await ended.wait()


async def test_a_refusal_from_inside_the_body_is_what_the_client_gets(kit: Any) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ContentTooLarge("too large")

    async def script(peer: Any) -> None:
        await peer.head()
        await peer.read_to_end()

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        with pytest.raises(UpstreamFault) as fault:
            await upstream.send(kit.create(body(), 6))
        assert isinstance(fault.value.refusal(), ContentTooLarge)


async def test_connections_are_used_again_last_one_first(kit: Any) -> None:
    both = asyncio.Barrier(2)

    async def script(peer: Any) -> None:
        await peer.head()
        await both.wait()
        await peer.send(kit.ok)
        while await peer.head():
            await peer.send(HEAD + b"Content-Length: 1\r\n\r\n%d" % peer.index)

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        await asyncio.gather(upstream.send(kit.call()), upstream.send(kit.call()))
        indexes = set()
        for _ in range(5):
            async with await upstream.send(kit.call()) as answer:
                indexes.add(await answer.read(1))
        assert len(indexes) == 1
        assert server.accepted == 2


async def test_idle_connections_are_closed_before_the_upstream_does_it(kit: Any) -> None:
    gone = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(kit.ok)
        await peer.head()
        gone.set()

    async with kit.scripted(script) as server, kit.running(server.url, idle_s=0.05) as upstream:
        async with await upstream.send(kit.call()):
            pass
        await gone.wait()
        await kit.until(lambda: upstream.pool.open_count == 0)


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}stray",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_a_connection_whose_end_is_in_doubt_is_not_used_again(kit: Any, wire: bytes) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(wire)
        assert await peer.read_to_end() == b""

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        for _ in range(2):
            async with await upstream.send(kit.call()) as answer:
                assert await answer.read(2) == b"{}"
        assert server.accepted == 2


async def test_interim_answers_are_passed_over(kit: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + kit.ok
        )

    async with (
        kit.scripted(script) as server,
        kit.running(server.url) as upstream,
        await upstream.send(kit.call()) as answer,
    ):
        assert (answer.status, answer.header("link"), await answer.read(2)) == (200, None, b"{}")

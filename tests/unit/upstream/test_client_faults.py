"""Calls over real sockets to an upstream that misbehaves: faults, early answers, timeouts, leaving."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cbk_gateway.errors import BadGateway
from cbk_gateway.operation import CostClass
from cbk_gateway.upstream import (
    AnswerTooLarge,
    Cause,
    Outcome,
    RetryOptions,
    StreamBroken,
    Timeouts,
    UpstreamFault,
)

ONCE = RetryOptions(max_attempts=1)
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "wire",
    [
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\nx",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"X : a\r\n\r\n",
        HEAD + b"X: a\r\n folded\r\n\r\n",
        HEAD + b"X: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        HEAD + b"A: b\r\n" * 200 + b"\r\n",
        HEAD + b"A: " + b"b" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_answers_that_are_not_strict_http_are_faults(kit: Any, wire: bytes) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(wire)
        await peer.read_to_end()

    async with kit.scripted(script) as server, kit.running(server.url, retry=ONCE) as upstream:
        with pytest.raises(UpstreamFault) as fault:
            await upstream.send(kit.create())
        assert fault.value.cause in {Cause.PROTOCOL, Cause.HEAD_TOO_LARGE}
        assert fault.value.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("endless", [b"X: y\r\n", b"a" * 1000])
async def test_endless_trailers_and_chunk_extensions_are_faults(kit: Any, endless: bytes) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        start = b"0\r\n" if endless.startswith(b"X") else b"5;"
        await peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + start)
        while True:
            await peer.send(endless * 100)

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        async with await upstream.send(kit.call()) as answer:
            with pytest.raises(StreamBroken) as fault:
                await answer.read(1 << 30)
        assert fault.value.cause is Cause.HEAD_TOO_LARGE


@pytest.mark.parametrize(
    "wire",
    [
        b"Content-Length: 9\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
async def test_a_body_that_breaks_off_gives_what_came_and_then_the_fault(kit: Any, wire: bytes) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(HEAD + wire)

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        async with await upstream.send(kit.call()) as answer:
            chunks = answer.chunks()
            got = b""
            while len(got) < 5:
                got += await anext(chunks)
            with pytest.raises(StreamBroken) as fault:
                await anext(chunks)
        assert got == b"hello"
        assert fault.value.outcome is Outcome.ANSWERED


async def test_an_early_refusal_is_relayed_and_the_rest_of_the_body_not_sent(kit: Any) -> None:
    closed = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0)
        finally:
            closed.set()

    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nhuge")
        await peer.read_to_end()

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        async with await upstream.send(kit.create(body(), 1 << 40)) as answer:
            assert (answer.status, await answer.read(10)) == (413, b"huge")
        await closed.wait()
        await kit.until(lambda: upstream.pool.open_count == 0)


async def test_an_early_refusal_survives_the_reset_behind_it(kit: Any) -> None:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nhuge")
        # Closing with unread bytes in the queue makes the kernel send a reset.
        await kit.until(lambda: upstream.pool.open_count == 1)
        peer.close()

    async with (
        kit.scripted(script) as server,
        kit.running(server.url) as upstream,
        await upstream.send(kit.create(body(), 1 << 40)) as answer,
    ):
        assert (answer.status, await answer.read(10)) == (413, b"huge")


async def test_a_client_that_leaves_ends_the_call(kit: Any) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.head()
        arrived.set()
        await peer.read_to_end()
        left.set()

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        sending = asyncio.create_task(upstream.send(kit.create()))
        await arrived.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        async with asyncio.timeout(10):
            await left.wait()
        await kit.until(lambda: upstream.pool.open_count == 0)


async def test_leaving_an_answer_early_closes_its_connection(kit: Any) -> None:
    left = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await peer.read_to_end()
        left.set()

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        async with await upstream.send(kit.call()) as answer:
            assert await anext(answer.chunks()) == b"hello"
        await left.wait()


async def test_an_answer_too_large_to_hold_keeps_what_was_read(kit: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(HEAD + b"Content-Length: 10\r\n\r\n0123456789")

    async with (
        kit.scripted(script) as server,
        kit.running(server.url) as upstream,
        await upstream.send(kit.call()) as answer,
    ):
        with pytest.raises(AnswerTooLarge) as refused:
            await answer.read(5)
        rest = b"".join([piece async for piece in answer.chunks()])
        assert refused.value.taken + rest == b"0123456789"


SHORT = {one: Timeouts(0.5, 0.5, 2.0) for one in CostClass}


@pytest.mark.parametrize(
    ("wire", "cause"),
    [
        (b"", Cause.FIRST_BYTE_TIMEOUT),
        (b"HTTP/1.1 200 OK\r\nContent-", Cause.FIRST_BYTE_TIMEOUT),
        (HEAD + b"Content-Length: 9\r\n\r\nhello", Cause.IDLE_TIMEOUT),
    ],
)
async def test_silence_ends_at_its_timeout(kit: Any, wire: bytes, cause: Cause) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(wire)
        await peer.read_to_end()

    async with kit.scripted(script) as server, kit.running(server.url, timeouts=SHORT) as upstream:
        with pytest.raises(UpstreamFault) as fault:
            async with await upstream.send(kit.create()) as answer:
                await answer.read(100)
        assert fault.value.cause is cause
        await kit.until(lambda: upstream.pool.open_count == 0)


async def test_a_dripping_answer_ends_at_the_total_timeout(kit: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(HEAD + b"Content-Length: 99999\r\n\r\n")
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.05)

    async with kit.scripted(script) as server, kit.running(server.url, timeouts=SHORT) as upstream:
        async with await upstream.send(kit.call()) as answer:
            with pytest.raises(StreamBroken) as fault:
                await answer.read(1 << 20)
        assert fault.value.cause is Cause.TOTAL_TIMEOUT


async def test_an_upstream_that_takes_no_more_of_a_body_is_a_fault(kit: Any) -> None:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    async def script(peer: Any) -> None:
        await asyncio.Event().wait()

    async with kit.scripted(script) as server, kit.running(server.url, timeouts=SHORT) as upstream:
        with pytest.raises(UpstreamFault) as fault:
            await upstream.send(kit.create(body(), 1 << 40))
        assert fault.value.cause in {Cause.SEND_TIMEOUT, Cause.TOTAL_TIMEOUT}


async def test_a_dead_upstream_is_a_502_within_the_connect_timeout(kit: Any) -> None:
    async with kit.running("http://127.0.0.1:1", connect_timeout_s=1.0) as upstream:
        async with asyncio.timeout(5):
            with pytest.raises(UpstreamFault) as fault:
                await upstream.send(kit.create())
        assert (fault.value.cause, fault.value.outcome) == (Cause.CONNECT, Outcome.NOT_SENT)
        refusal = fault.value.refusal()
        assert isinstance(refusal, BadGateway)
        assert "x-should-retry" not in refusal.headers
        assert not await upstream.probe()


async def test_a_probe_asks_without_credentials(kit: Any) -> None:
    seen = []

    async def script(peer: Any) -> None:
        seen.append(await peer.head())
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n")

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        assert await upstream.probe()
        assert seen[0].startswith(b"HEAD /api/v1/spec HTTP/1.1\r\n")
        assert b"uthorization" not in seen[0]


async def test_redirects_cookies_and_codings_are_left_alone(kit: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nSet-Cookie: a=b\r\n"
            b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08"
        )
        assert b"ookie" not in await peer.head()
        await peer.send(kit.ok)

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        async with await upstream.send(kit.call()) as answer:
            assert (answer.status, answer.header("location")) == (302, "http://elsewhere/")
            assert (answer.header("set-cookie"), await answer.read(9)) == (None, b"\x1f\x8b\x08")
        async with await upstream.send(kit.call()) as answer:
            assert answer.status == 200


async def test_stopping_fails_what_is_under_way_and_leaves_nothing(kit: Any) -> None:
    arrived = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.head()
        arrived.set()
        await peer.read_to_end()

    async with kit.scripted(script) as server:
        async with kit.running(server.url) as upstream:
            sending = asyncio.create_task(upstream.send(kit.create()))
            await arrived.wait()
        with pytest.raises(UpstreamFault):
            await sending
        with pytest.raises(UpstreamFault) as fault:
            await upstream.send(kit.create())
        assert fault.value.cause is Cause.STOPPED
    gc.collect()

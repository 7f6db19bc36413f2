"""Small reads over a connection at hand: handed over whole, or not at all, and the connection stays sound."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cbk_gateway.operation import understand
from cbk_gateway.upstream import Call, Known, Swift, Upstream, UpstreamFault

REQUEST = b"GET /api/v1/bot/list HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Receiver:
    """Notes what it is told."""

    def __init__(self, known: Known | None = None) -> None:
        self.known = known
        self.told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def answered(
        self, status: int, fields: list[tuple[bytes, bytes]], body: bytes, upstream_s: float
    ) -> None:
        assert upstream_s >= 0
        self.status = status
        self.told.set_result((fields, body))

    def unusual(self) -> None:
        self.told.set_result("unusual")

    def faulted(self, fault: UpstreamFault) -> None:
        self.told.set_result(fault)


def call() -> Call:
    return Call(understand("GET", "/api/v1/bot/list"), [("Host", "x")], account="a", tenant="a")


async def warm(upstream: Upstream) -> None:
    """Leave one connection at hand."""
    async with await upstream.send(call()) as answer:
        await answer.read(100)


def begin(upstream: Upstream, receiver: Receiver) -> Swift:
    swift = upstream.send_now(call(), REQUEST, receiver)
    assert swift is not None
    return swift


def answering(*answers: bytes) -> Any:
    """A script: the first request is answered plainly, the next ones so, in pieces if there are several."""

    async def script(peer: Any) -> None:
        assert await peer.head()
        await peer.send(OK)
        while await peer.head():
            for piece in answers:
                await peer.send(piece)
                # The piece must be read by itself.
                await asyncio.sleep(0.02)

    return script


async def test_without_a_connection_at_hand_nothing_is_done(kit: Any) -> None:
    async with kit.scripted(answering(OK)) as server, kit.running(server.url) as upstream:
        assert upstream.send_now(call(), REQUEST, Receiver()) is None
        assert server.accepted == 0


async def test_a_repeated_head_is_recognised_and_means_the_same(kit: Any) -> None:
    async with kit.scripted(answering(OK)) as server, kit.running(server.url) as upstream:
        await warm(upstream)
        first = Receiver()
        begin(upstream, first)
        parsed = await first.told
        assert first.known is not None
        for _ in range(3):
            again = Receiver(first.known)
            begin(upstream, again)
            assert await again.told == parsed
        assert server.accepted == 1
        # The parser has missed three answers and still stands between two messages.
        await warm(upstream)
        assert server.accepted == 1


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((OK[:-2] + b"[]",), id="other-body"),
        pytest.param((OK[:30], OK[30:]), id="two-pieces"),
        pytest.param((OK[:-1], OK[-1:]), id="last-byte-apart"),
        pytest.param((OK.replace(b": 2", b": 3") + b" ",), id="other-length"),
        pytest.param((b"HTTP/1.1 100 Continue\r\n\r\n" + OK,), id="interim"),
    ],
)
async def test_what_differs_from_a_known_answer_is_parsed(kit: Any, pieces: tuple[bytes, ...]) -> None:
    async with kit.scripted(answering(*pieces)) as server, kit.running(server.url) as upstream:
        await warm(upstream)
        known = Known(
            OK[:-2], len(OK), 200, [(b"Content-Type", b"application/json"), (b"Content-Length", b"2")]
        )
        one = Receiver(known)
        begin(upstream, one)
        _, body = await one.told
        whole = b"".join(pieces)
        assert body == whole[whole.rindex(b"\r\n\r\n") + 4 :]


async def test_bytes_behind_a_known_answer_end_the_connection(kit: Any) -> None:
    async with (
        kit.scripted(answering(OK + b"HTTP/1.1 200 OK\r\n")) as server,
        kit.running(server.url) as upstream,
    ):
        await warm(upstream)
        one = Receiver(Known(OK[:-2], len(OK), 200, []))
        begin(upstream, one)
        fields, body = await one.told
        assert (len(fields), body) == (2, b"{}")
        await warm(upstream)
        assert server.accepted == 2


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\n\r\n{}", id="429"),
        pytest.param(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}", id="401"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", id="chunked"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + b" " * 90_000, id="large"),
    ],
)
async def test_what_is_not_plain_is_not_handed_over(kit: Any, answer: bytes) -> None:
    async with kit.scripted(answering(answer)) as server, kit.running(server.url) as upstream:
        await warm(upstream)
        one = Receiver()
        begin(upstream, one)
        assert await one.told == "unusual"


async def test_a_break_is_told_and_the_next_call_gets_another_connection(kit: Any) -> None:
    async def script(peer: Any) -> None:
        if await peer.head():
            await peer.send(OK)
        await peer.head()

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        await warm(upstream)
        one = Receiver()
        begin(upstream, one)
        assert isinstance(await one.told, UpstreamFault)
        await warm(upstream)
        assert server.accepted == 2


async def test_half_a_body_is_never_handed_over(kit: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(OK)
        await peer.head()
        await peer.send(OK[:-1])

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        await warm(upstream)
        one = Receiver(Known(OK[:-2], len(OK), 200, []))
        begin(upstream, one)
        assert isinstance(await one.told, UpstreamFault)


async def test_a_call_that_is_left_closes_its_connection_and_tells_nobody(kit: Any) -> None:
    ended = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(OK)
        await peer.head()
        assert await peer.head() == b""
        ended.set()

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        await warm(upstream)
        one = Receiver()
        begin(upstream, one).leave()
        async with asyncio.timeout(10):
            await ended.wait()
        assert not one.told.done()
        one.told.cancel()

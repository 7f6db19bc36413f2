"""Small reads over a connection at hand: handed over whole, or not at all, and the connection stays sound."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cbk_gateway.operation import CostClass, understand
from cbk_gateway.upstream import (
    BreakerOptions,
    Call,
    Cause,
    ConcurrencyOptions,
    Known,
    Lane,
    Swift,
    Timeouts,
    Upstream,
    UpstreamFault,
)

REQUEST = b"GET /api/v1/bot/list HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Receiver(Swift):
    """Notes what it is told."""

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane)
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


def begin(upstream: Upstream, known: Known | None = None, lane: Lane | None = None) -> Receiver:
    """A call under way, as one of a lane on which this answer came last."""
    if lane is None:
        lane = upstream.lane(call())
        lane.known = known
    one = Receiver(lane)
    assert upstream.send_now(one, REQUEST)
    return one


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
        assert not upstream.send_now(Receiver(upstream.lane(call())), REQUEST)
        assert server.accepted == 0


async def test_a_repeated_head_is_recognised_and_means_the_same(kit: Any) -> None:
    async with kit.scripted(answering(OK)) as server, kit.running(server.url) as upstream:
        await warm(upstream)
        lane = upstream.lane(call())
        parsed = await begin(upstream, lane=lane).told
        assert lane.known is not None
        for _ in range(3):
            assert await begin(upstream, lane=lane).told == parsed
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
        _, body = await begin(upstream, known).told
        whole = b"".join(pieces)
        assert body == whole[whole.rindex(b"\r\n\r\n") + 4 :]


async def test_bytes_behind_a_known_answer_end_the_connection(kit: Any) -> None:
    async with (
        kit.scripted(answering(OK + b"HTTP/1.1 200 OK\r\n")) as server,
        kit.running(server.url) as upstream,
    ):
        await warm(upstream)
        fields, body = await begin(upstream, Known(OK[:-2], len(OK), 200, [])).told
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
        assert await begin(upstream).told == "unusual"


async def test_a_break_is_told_and_the_next_call_gets_another_connection(kit: Any) -> None:
    async def script(peer: Any) -> None:
        if await peer.head():
            await peer.send(OK)
        await peer.head()

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        await warm(upstream)
        assert isinstance(await begin(upstream).told, UpstreamFault)
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
        one = begin(upstream, Known(OK[:-2], len(OK), 200, []))
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
        one = begin(upstream)
        one.abandon()
        async with asyncio.timeout(10):
            await ended.wait()
        assert not one.told.done()
        one.told.cancel()


async def status_of(upstream: Upstream, account: str) -> int:
    one = Call(understand("GET", "/api/v1/bot/list"), [("Host", "x")], account=account)
    async with await upstream.send(one) as answer:
        await answer.read(100)
        return answer.status


async def test_a_breaker_that_opens_holds_back_a_lane_that_was_used_before(kit: Any) -> None:
    statuses = [b"200 OK", b"200 OK", *[b"500 Internal Server Error"] * 3]

    async def script(peer: Any) -> None:
        while await peer.head():
            # What asks whether it is over is told that it is not.
            said = statuses.pop(0) if statuses else b"500 Internal Server Error"
            await peer.send(OK.replace(b"200 OK", said))

    breaker = BreakerOptions(minimum_samples=5, open_s=30)
    async with kit.scripted(script) as server, kit.running(server.url, breaker=breaker) as upstream:
        assert await status_of(upstream, "a") == 200
        lane = upstream.lane(call())
        await begin(upstream, lane=lane).told
        for _ in range(3):
            assert await status_of(upstream, "a") == 500
        # Three of five: both good calls were counted, the one from the lane as well.
        assert upstream.is_open("a")
        assert not upstream.send_now(Receiver(lane), REQUEST)


async def test_good_calls_of_a_lane_keep_a_breaker_closed(kit: Any) -> None:
    failing = False

    async def script(peer: Any) -> None:
        while await peer.head():
            await peer.send(OK.replace(b"200 OK", b"500 Internal Server Error") if failing else OK)

    breaker = BreakerOptions(minimum_samples=3, failure_share=0.5)
    async with kit.scripted(script) as server, kit.running(server.url, breaker=breaker) as upstream:
        assert await status_of(upstream, "a") == 200
        lane = upstream.lane(call())
        for _ in range(6):
            await begin(upstream, lane=lane).told
        failing = True
        for _ in range(6):
            assert await status_of(upstream, "a") == 500
        assert not upstream.is_open("a")
        assert await status_of(upstream, "a") == 500
        assert upstream.is_open("a")


async def test_an_account_that_was_forgotten_is_learnt_anew(kit: Any) -> None:
    failing = False

    async def script(peer: Any) -> None:
        while await peer.head():
            await peer.send(OK.replace(b"200 OK", b"500 Internal Server Error") if failing else OK)

    breaker = BreakerOptions(minimum_samples=4, failure_share=0.75, open_s=30, max_accounts=1)
    async with kit.scripted(script) as server, kit.running(server.url, breaker=breaker) as upstream:
        lane = upstream.lane(call())
        assert await status_of(upstream, "a") == 200
        await begin(upstream, lane=lane).told
        # Another account takes its place.
        assert await status_of(upstream, "b") == 200
        await begin(upstream, lane=lane).told
        failing = True
        for _ in range(3):
            assert await status_of(upstream, "a") == 500
        assert upstream.is_open("a")
        assert not upstream.send_now(Receiver(lane), REQUEST)


async def test_a_slowed_account_waits_on_the_full_path(kit: Any) -> None:
    said = [OK, OK.replace(b"200 OK", b"429 Too Many Requests"), OK]

    async def script(peer: Any) -> None:
        while await peer.head():
            await peer.send(said.pop(0))

    async with kit.scripted(script) as server, kit.running(server.url) as upstream:
        lane = upstream.lane(call())
        assert await status_of(upstream, "a") == 200
        assert await status_of(upstream, "a") == 429
        assert not upstream.send_now(Receiver(lane), REQUEST)


@pytest.mark.parametrize("timeouts", [Timeouts(0.1, 30), Timeouts(30, 30, total_s=0.1)])
async def test_an_answer_that_does_not_come_is_a_timeout(kit: Any, timeouts: Timeouts) -> None:
    async def script(peer: Any) -> None:
        await peer.head()
        await peer.send(OK)
        await peer.head()
        assert await peer.head() == b""

    settings = {"timeouts": {CostClass.READ: timeouts}}
    async with kit.scripted(script) as server, kit.running(server.url, **settings) as upstream:
        await warm(upstream)
        fault = await begin(upstream).told
        assert isinstance(fault, UpstreamFault)
        assert fault.timed_out
        total = timeouts.total_s is not None
        assert fault.cause is (Cause.TOTAL_TIMEOUT if total else Cause.FIRST_BYTE_TIMEOUT)


async def test_places_are_given_back_whatever_becomes_of_the_call(kit: Any) -> None:
    """With one place in all, each of these would otherwise keep out the next."""
    said = [OK, OK, OK, OK.replace(b"200 OK", b"403 Forbidden"), OK, b"", OK]

    async def script(peer: Any) -> None:
        while await peer.head():
            answer = said.pop(0)
            if not answer:
                return
            await peer.send(answer)

    one_place = ConcurrencyOptions(start=1, least=1, most=1)
    async with kit.scripted(script) as server, kit.running(server.url, concurrency=one_place) as upstream:
        await warm(upstream)
        lane = upstream.lane(call())
        for _ in range(2):
            assert (await begin(upstream, lane=lane).told)[1] == b"{}"
        first = begin(upstream, lane=lane)
        assert not upstream.send_now(Receiver(lane), REQUEST)
        assert await first.told == "unusual"
        await warm(upstream)
        assert isinstance(await begin(upstream, lane=lane).told, UpstreamFault)
        await warm(upstream)

"""Breakers, slowed accounts and places, through whole calls to a scripted upstream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cbk_gateway.upstream import (
    BreakerOptions,
    Cause,
    ConcurrencyOptions,
    Outcome,
    RetryOptions,
    UpstreamFault,
)

BREAKER = BreakerOptions(minimum_samples=3, open_s=0.1, longest_open_s=0.4)
ONCE = RetryOptions(max_attempts=1)


class Api:
    """An upstream whose health is a switch."""

    def __init__(self, kit: Any) -> None:
        self.kit = kit
        self.status = b"200 OK"
        self.extra = b""
        self.seen: list[bytes] = []

    async def script(self, peer: Any) -> None:
        while head := await peer.head():
            self.seen.append(head)
            if b"POST" in head:
                await peer.read(2)
            await peer.send(b"HTTP/1.1 %b\r\n%bContent-Length: 2\r\n\r\n{}" % (self.status, self.extra))

    def lines(self) -> list[bytes]:
        return [head.partition(b"\r\n")[0] for head in self.seen]


async def status_of(upstream: Any, call: Any) -> int:
    async with await upstream.send(call) as answer:
        await answer.read(100)
        return int(answer.status)


@pytest.fixture
def api(kit: Any) -> Api:
    return Api(kit)


async def test_an_open_breaker_refuses_before_sending_and_closes_by_a_get_of_its_own(
    kit: Any, api: Api
) -> None:
    async with kit.scripted(api.script) as server, kit.running(server.url, breaker=BREAKER) as upstream:
        api.status = b"503 Service Unavailable"
        for _ in range(3):
            assert await status_of(upstream, kit.create()) == 503
        assert upstream.is_open("acct")
        assert upstream.is_open("any")
        arrived = len(api.seen)
        with pytest.raises(UpstreamFault) as fault:
            await upstream.send(kit.create())
        assert (fault.value.cause, fault.value.outcome) == (Cause.BREAKER_OPEN, Outcome.NOT_SENT)
        assert int(fault.value.refusal().headers["Retry-After"]) >= 1
        assert all(line.startswith(b"GET ") for line in api.lines()[arrived:])
        api.status = b"200 OK"
        await kit.until(lambda: not upstream.is_open("acct"))
        probes = api.lines()[arrived:]
        assert b"GET /api/v1/spec HTTP/1.1" in probes
        assert all(line.startswith(b"GET ") for line in probes)
        assert await status_of(upstream, kit.create()) == 200


async def test_one_accounts_500s_hold_back_that_account_alone(kit: Any, api: Api) -> None:
    async with kit.scripted(api.script) as server, kit.running(server.url, breaker=BREAKER) as upstream:
        api.status = b"500 Internal Server Error"
        call = kit.call(headers=[("Host", "h"), ("Authorization", "Bearer sk-a")], account="a")
        for _ in range(3):
            await status_of(upstream, call)
        assert upstream.is_open("a")
        assert not upstream.is_open("b")
        api.status = b"200 OK"
        assert await status_of(upstream, kit.call(account="b")) == 200
        await kit.until(lambda: not upstream.is_open("a"))
        probe = next(head for head in api.seen if b"/usage/fetch" in head)
        assert b"Authorization: Bearer sk-a\r\n" in probe


async def test_failures_inside_a_200_count(kit: Any, api: Api) -> None:
    async with kit.scripted(api.script) as server, kit.running(server.url, breaker=BREAKER) as upstream:
        for _ in range(3):
            await status_of(upstream, kit.call(headers=[("Host", "h"), ("Authorization", "Bearer sk-a")]))
            upstream.report_failure("acct", "BAD_REQUEST")
        assert not upstream.is_open("acct")
        for _ in range(3):
            upstream.report_failure("acct", "INTERNAL_SERVER_ERROR")
        assert upstream.is_open("acct")
        # What asks whether it is over asks as the account that failed.
        await kit.until(lambda: not upstream.is_open("acct"))
        assert any(b"/usage/fetch" in line for line in api.lines())


async def test_failed_probes_keep_it_open(kit: Any, api: Api) -> None:
    async with kit.scripted(api.script) as server, kit.running(server.url, breaker=BREAKER) as upstream:
        api.status = b"502 Bad Gateway"
        for _ in range(3):
            await status_of(upstream, kit.call())
        await kit.until(lambda: sum(b"/spec" in line for line in api.lines()) >= 2)
        assert upstream.is_open("acct")


async def test_a_429_is_passed_on_with_a_time_to_come_back_and_slows_the_account(kit: Any, api: Api) -> None:
    concurrency = ConcurrencyOptions(queue_wait_s=0.5)
    async with (
        kit.scripted(api.script) as server,
        kit.running(server.url, concurrency=concurrency) as upstream,
    ):
        api.status, api.extra = b"429 Too Many Requests", b"Retry-After: 86400\r\n"
        async with await upstream.send(kit.call(account="a")) as answer:
            assert (answer.status, answer.header("retry-after")) == (429, "60")
        with pytest.raises(UpstreamFault) as fault:
            await upstream.send(kit.call(account="a"))
        assert fault.value.cause is Cause.SLOWED
        assert fault.value.refusal().status == 429
        api.status, api.extra = b"200 OK", b""
        assert await status_of(upstream, kit.call(account="b")) == 200
        assert len(api.seen) == 2


async def test_a_429_without_a_time_gets_one(kit: Any, api: Api) -> None:
    async with kit.scripted(api.script) as server, kit.running(server.url) as upstream:
        api.status = b"429 Too Many Requests"
        async with await upstream.send(kit.call()) as answer:
            assert answer.header("retry-after") == "1"
        api.status = b"200 OK"
        assert await status_of(upstream, kit.call()) == 200


async def test_a_bounded_number_of_short_calls_runs_and_the_rest_waits_its_turn(kit: Any) -> None:
    go_on = asyncio.Event()
    running = most = 0

    async def script(peer: Any) -> None:
        nonlocal running, most
        while await peer.head():
            running += 1
            most = max(most, running)
            await go_on.wait()
            running -= 1
            await peer.send(kit.ok)

    concurrency = ConcurrencyOptions(start=3, least=3, most=3, queue_size=5, queue_wait_s=30)
    async with kit.scripted(script) as server, kit.running(server.url, concurrency=concurrency) as upstream:
        calls = [asyncio.create_task(status_of(upstream, kit.call(account=f"a{n}"))) for n in range(8)]
        await kit.until(lambda: running == 3)
        with pytest.raises(UpstreamFault) as fault:
            await upstream.send(kit.call(account="late"))
        assert (fault.value.cause, fault.value.outcome) == (Cause.QUEUE_FULL, Outcome.NOT_SENT)
        go_on.set()
        assert await asyncio.gather(*calls) == [200] * 8
        assert most == 3


async def test_faults_and_cancelled_calls_give_their_places_back(kit: Any) -> None:
    heads = 0

    async def script(peer: Any) -> None:
        nonlocal heads
        while head := await peer.head():
            heads += 1
            if b"/fetch" in head:
                await peer.send(kit.ok)
            elif b"/list" in head:
                await peer.read_to_end()
            else:
                return

    concurrency = ConcurrencyOptions(start=1, least=1, most=1)
    async with (
        kit.scripted(script) as server,
        kit.running(server.url, concurrency=concurrency, retry=ONCE) as upstream,
    ):
        with pytest.raises(UpstreamFault):
            await upstream.send(kit.create())
        hanging = asyncio.create_task(upstream.send(kit.call()))
        await kit.until(lambda: heads == 2)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        answer = await upstream.send(kit.call(path="/v1/bot/b/fetch"))
        answer.abort()
        assert await status_of(upstream, kit.call(path="/v1/bot/b/fetch")) == 200


async def test_a_dead_upstream_opens_the_breaker_for_all(kit: Any) -> None:
    async with kit.running("http://127.0.0.1:1", breaker=BREAKER, retry=ONCE) as upstream:
        for number in range(3):
            with pytest.raises(UpstreamFault):
                await upstream.send(kit.call(account=f"a{number}"))
        assert upstream.is_open("another")

"""Addresses: all are tried, sick ones rest, and where connections come from is bounded."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from cbk_gateway.upstream import Cause, Outcome, RetryOptions, UpstreamFault, UpstreamOptions, parse_origin
from cbk_gateway.upstream.dialing import AddressBook

ONCE = RetryOptions(max_attempts=1)


@pytest.mark.parametrize(
    ("url", "secure", "host", "port", "authority"),
    [
        ("https://api.test", True, "api.test", 443, "api.test"),
        ("https://api.test:443/", True, "api.test", 443, "api.test"),
        ("http://api.test:8080", False, "api.test", 8080, "api.test:8080"),
        ("http://[::1]:81", False, "::1", 81, "[::1]:81"),
    ],
)
def test_an_origin_is_taken_apart(url: str, secure: bool, host: str, port: int, authority: str) -> None:
    origin = parse_origin(url)
    assert (origin.secure, origin.host, origin.port, origin.authority) == (secure, host, port, authority)


@pytest.mark.parametrize(
    "url",
    ["api.test", "ftp://api.test", "https://", "https://a/v1", "https://a?x", "https://u:p@a", "http://é"],
)
def test_what_is_no_origin_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="upstream URL"):
        parse_origin(url)


async def test_every_address_is_tried(kit: Any) -> None:
    async def script(peer: Any) -> None:
        while await peer.head():
            await peer.send(kit.ok)

    async with kit.scripted(script) as server:
        addresses = ("127.0.0.1:1", "127.0.0.2:1", f"127.0.0.1:{server.port}")
        async with kit.running("http://up.test", addresses=addresses, retry=ONCE) as upstream:
            for _ in range(3):
                async with await upstream.send(kit.call()) as answer:
                    assert answer.status == 200
                upstream.pool.retire()


async def test_a_silent_address_does_not_hold_up_the_next_one(kit: Any) -> None:
    # A full backlog that nobody empties: connecting to it just hangs.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)

        async def script(peer: Any) -> None:
            await peer.head()
            await peer.send(kit.ok)

        async with kit.scripted(script) as server:
            addresses = (f"127.0.0.1:{full.getsockname()[1]}", f"127.0.0.1:{server.port}")
            async with kit.running("http://up.test", addresses=addresses, connect_timeout_s=20) as upstream:
                for _ in range(2):
                    async with await upstream.send(kit.call()) as answer:
                        assert answer.status == 200
                        assert answer.connect_s < 15
                    upstream.pool.retire()
        for filler in fillers:
            filler.close()


async def test_sick_addresses_go_to_the_end_of_the_line_and_healthy_ones_take_turns() -> None:
    loop = asyncio.get_running_loop()
    options = UpstreamOptions(url="http://up.test", addresses=("127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"))
    book = AddressBook(loop, parse_origin(options.url), options)
    first, second = await book.candidates(), await book.candidates()
    assert first != second
    assert sorted(first) == sorted(second)
    book.failed(first[0])
    for _ in range(3):
        assert (await book.candidates())[-1] == first[0]
    book.succeeded(first[0])
    assert first[0] in {(await book.candidates())[0] for _ in range(3)}
    await book.close()


async def test_a_name_without_an_address_is_a_fault_that_sent_nothing(kit: Any) -> None:
    async with kit.running("http://nowhere.invalid", retry=ONCE, connect_timeout_s=20) as upstream:
        with pytest.raises(UpstreamFault) as fault:
            await upstream.send(kit.create())
        assert (fault.value.cause, fault.value.outcome) == (Cause.RESOLVE, Outcome.NOT_SENT)


async def test_a_full_pool_makes_calls_wait_and_then_refuses(kit: Any) -> None:
    go_on = asyncio.Event()

    async def script(peer: Any) -> None:
        while await peer.head():
            await go_on.wait()
            await peer.send(kit.ok)

    async def status(upstream: Any) -> int:
        async with await upstream.send(kit.call()) as answer:
            await answer.read(10)
            return int(answer.status)

    async with (
        kit.scripted(script) as server,
        kit.running(server.url, pool_size=1, connect_timeout_s=1.0, retry=ONCE) as upstream,
    ):
        first = asyncio.create_task(status(upstream))
        await kit.until(lambda: server.accepted == 1)
        with pytest.raises(UpstreamFault) as fault:
            await upstream.send(kit.call())
        assert (fault.value.cause, fault.value.outcome) == (Cause.POOL_FULL, Outcome.NOT_SENT)
        second = asyncio.create_task(status(upstream))
        await asyncio.sleep(0)
        go_on.set()
        assert [await first, await second] == [200, 200]
        assert server.accepted == 1

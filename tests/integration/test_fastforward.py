"""Repeated reads that no cache may answer: forwarded from their bytes, and everything that may go wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from cbk_gateway.fastforward import Forwarder
from cbk_gateway.store import Store
from harness import Stage, running, tenant
from integration.wires import Wire, wire

_VOLATILE = re.compile(
    rb"(?<=X-Request-Id: )[0-9a-f]+|(?<=dur=)[0-9.]+|(?<=Date: )[^\r]+"
    rb"|(?<=;r=)\d+;t=\d+|(?<=Remaining: )\d+|(?<=Reset: )\d+"
)
BODY = b'{"items":[],"cursor":null}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Own: 1\r\nContent-Length: %d\r\n\r\n" % len(
    BODY
)

Script = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def plainly(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del head, reader
    writer.write(PLAIN + BODY)


class Upstream:
    """An upstream that does as it is told, request by request; keeps the heads that it saw."""

    def __init__(self) -> None:
        self.script: Script = plainly
        self.heads: list[bytes] = []
        self.lost = asyncio.Event()
        self.writers: set[asyncio.StreamWriter] = set()

    async def sees_more_than(self, count: int) -> None:
        while len(self.heads) <= count:
            await asyncio.sleep(0.005)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                await self.script(head, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost.set()
        finally:
            writer.close()


@pytest.fixture
async def upstream() -> AsyncIterator[tuple[Upstream, str]]:
    made = Upstream()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    yield made, f"http://{host}:{port}"
    server.close()
    for writer in made.writers:
        writer.close()
    await server.wait_closed()


@pytest.fixture
async def stage(
    tmp_path: Path, valkey_url: str, store: Store, upstream: tuple[Upstream, str]
) -> AsyncIterator[Stage]:
    del store
    tenants = (tenant("acme", may_bypass_cache=True),)
    async with running(
        tmp_path, valkey_url, tenants=tenants, sandbox_url=upstream[1], listen={"hot_path": "on"}
    ) as one:
        yield one


def fast(stage: Stage) -> Forwarder:
    assert stage.gateway.parts.hot_path is not None
    return stage.gateway.parts.hot_path.forwarder


def head_of(token: str, *more: str) -> bytes:
    lines = ["GET /api/v1/bot/list HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token}"]
    return ("\r\n".join([*lines, "X-CBK-Cache: bypass", *more]) + "\r\n\r\n").encode()


async def warm(stage: Stage, one: Wire, head: bytes) -> bytes:
    """Ask until the request is forwarded from its bytes; its answer."""
    async with asyncio.timeout(10):
        while True:
            before = fast(stage).served
            answer = await one.ask(head)
            if fast(stage).served > before:
                return answer


def counted(stage: Stage, name: str, *labels: str) -> float:
    series = stage.gateway.parts.metrics.families()[f"cbk_gateway_{name}"]
    return sum(
        value
        for (_, values), value in series.items()
        if isinstance(value, float | int) and all(one in values for one in labels)
    )


@pytest.mark.parametrize("more", [(), ("Origin: https://a.example",), ("Accept-Encoding: gzip",)])
async def test_the_answer_is_in_the_full_paths_words(
    stage: Stage, upstream: tuple[Upstream, str], more: tuple[str, ...]
) -> None:
    head = head_of(stage.token(), *more)
    async with wire(stage) as one:
        quick = await warm(stage, one, head)
        sent = upstream[0].heads[-1]
        fast(stage).clear()
        assert stage.gateway.parts.hot_path is not None
        stage.gateway.parts.hot_path.clear()
        served = fast(stage).served
        full = await one.ask(head)
        assert fast(stage).served == served
    assert quick.endswith(BODY)
    assert _VOLATILE.sub(b"~", quick) == _VOLATILE.sub(b"~", full)
    ids = re.compile(rb"(?<=X-Request-Id: )\S+|(?<=traceparent: )\S+")
    assert ids.sub(b"~", sent) == ids.sub(b"~", upstream[0].heads[-1])
    assert len({ids.findall(one)[0] for one in upstream[0].heads}) == len(upstream[0].heads)


async def test_an_upstreams_own_date_stands(stage: Stage, upstream: tuple[Upstream, str]) -> None:
    head = head_of(stage.token())

    async def dated(h: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del h, reader
        writer.write(PLAIN.replace(b"X-Own: 1", b"Date: Sun, 22 Nov 2026 19:00:00 GMT") + BODY)

    upstream[0].script = dated
    async with wire(stage) as one:
        quick = await warm(stage, one, head)
        assert stage.gateway.parts.hot_path is not None
        stage.gateway.parts.hot_path.clear()
        full = await one.ask(head)
    assert quick.count(b"Date: ") == full.count(b"Date: ") == 1
    assert b"Date: Sun, 22 Nov 2026 19:00:00 GMT" in quick
    assert b"Date: Sun, 22 Nov 2026 19:00:00 GMT" in full


async def test_what_is_never_plain_is_asked_for_twice_once_only(
    stage: Stage, upstream: tuple[Upstream, str]
) -> None:
    head = head_of(stage.token())
    async with wire(stage) as one:
        await warm(stage, one, head)
        upstream[0].script, seen = with_a_field_of_ours, len(upstream[0].heads)
        for _ in range(20):
            await one.ask(head)
    assert len(upstream[0].heads) == seen + 21


async def test_every_request_is_counted_once(stage: Stage, upstream: tuple[Upstream, str]) -> None:
    head = head_of(stage.token())
    async with wire(stage) as one:
        await warm(stage, one, head)
        for _ in range(20):
            await one.ask(head)
    total = len(upstream[0].heads)
    assert fast(stage).served >= 20
    assert counted(stage, "requests_total", "acme", "bot", "200") == total
    assert counted(stage, "cache_passes_total") == total
    assert counted(stage, "limit_decisions_total", "acme", "admitted") == total
    assert counted(stage, "requests_in_flight") == 0
    assert counted(stage, "response_body_bytes_total", "acme") == total * len(BODY)


async def closes(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del head, reader
    writer.close()


async def half_an_answer(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del head, reader
    writer.write(PLAIN + BODY[:7])
    await writer.drain()
    writer.close()


async def not_found(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del head, reader
    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


async def in_chunks(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del head, reader
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    )


async def a_large_one(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del head, reader
    size = 300_000
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
        + b" " * size
    )


async def with_a_field_of_ours(
    head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    del head, reader
    writer.write(PLAIN.replace(b"X-Own: 1", b"RateLimit: 9") + BODY)


async def byte_by_byte(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del head, reader
    for place in range(len(PLAIN + BODY)):
        writer.write((PLAIN + BODY)[place : place + 1])
        await writer.drain()


@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param(closes, b"200", id="closed"),
        pytest.param(half_an_answer, b"200", id="half"),
        pytest.param(not_found, b"404", id="404"),
        pytest.param(in_chunks, b"200", id="chunked"),
        pytest.param(a_large_one, b"200", id="large"),
        pytest.param(with_a_field_of_ours, b"200", id="our-field"),
        pytest.param(byte_by_byte, b"200", id="dripped"),
    ],
)
async def test_whatever_is_not_plain_ends_as_on_the_full_path(
    stage: Stage, upstream: tuple[Upstream, str], script: Script, status: bytes
) -> None:
    head = head_of(stage.token())
    behaved = upstream[0]

    async def once_then(h: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Faults do not last; other kinds of answers do.
        behaved.script = plainly if script in {closes, half_an_answer} else script
        await script(h, reader, writer)

    async with wire(stage) as one:
        await warm(stage, one, head)
        behaved.script = once_then
        answer = await one.ask(head) if script is not in_chunks else b""
        if script is in_chunks:
            one.writer.write(head)
            async with asyncio.timeout(10):
                answer = await one.reader.readuntil(b"0\r\n\r\n")
        assert answer.split(b" ", 2)[1] == status
        if status == b"200" and script is not a_large_one:
            assert BODY in answer
        if script is a_large_one:
            assert answer.endswith(b" " * 300_000)
        behaved.script = plainly
        assert BODY in await one.ask(head)
    assert counted(stage, "requests_in_flight") == 0


async def test_what_a_client_sends_meanwhile_is_answered_in_order(
    stage: Stage, upstream: tuple[Upstream, str]
) -> None:
    head = head_of(stage.token())
    gate = asyncio.Event()

    async def wait(h: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await plainly(h, reader, writer)

    async with wire(stage) as one:
        await warm(stage, one, head)
        upstream[0].script, seen = wait, len(upstream[0].heads)
        one.writer.write(head)
        async with asyncio.timeout(10):
            await upstream[0].sees_more_than(seen)
        one.writer.write(head.replace(b"Bearer ", b"Bearer x") + head)
        await one.writer.drain()
        gate.set()
        answers = [await one.read() for _ in range(3)]
    assert [one.split(b" ", 2)[1] for one in answers] == [b"200", b"401", b"200"]


async def test_a_client_that_leaves_ends_the_call(stage: Stage, upstream: tuple[Upstream, str]) -> None:
    head = head_of(stage.token())

    async def never(h: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del h, writer
        # The next thing to come is the end of the connection.
        assert await reader.read() == b""
        raise ConnectionError

    async with wire(stage) as one:
        await warm(stage, one, head)
        upstream[0].script, seen = never, len(upstream[0].heads)
        one.writer.write(head)
        async with asyncio.timeout(10):
            await upstream[0].sees_more_than(seen)
            one.writer.close()
            await upstream[0].lost.wait()
            while counted(stage, "requests_total", "499") == 0:
                await asyncio.sleep(0.005)
    assert counted(stage, "requests_in_flight") == 0


async def test_a_stop_waits_for_the_answer(
    tmp_path: Path, valkey_url: str, store: Store, upstream: tuple[Upstream, str]
) -> None:
    del store
    gate = asyncio.Event()

    async def wait(h: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await plainly(h, reader, writer)

    tenants = (tenant("acme", may_bypass_cache=True),)
    async with (
        running(
            tmp_path, valkey_url, tenants=tenants, sandbox_url=upstream[1], listen={"hot_path": "on"}
        ) as stage,
        wire(stage) as one,
    ):
        head = head_of(stage.token())
        await warm(stage, one, head)
        upstream[0].script, seen = wait, len(upstream[0].heads)
        one.writer.write(head)
        async with asyncio.timeout(10):
            await upstream[0].sees_more_than(seen)
            stopping = asyncio.create_task(stage.gateway.stop())
            while not stage.gateway.is_draining:
                await asyncio.sleep(0.005)
            gate.set()
            assert (await one.read()).endswith(BODY)
            await stopping


async def test_an_upstream_that_takes_too_long_is_not_asked_again(
    tmp_path: Path, valkey_url: str, store: Store, upstream: tuple[Upstream, str]
) -> None:
    del store

    async def never(h: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del h, writer
        await reader.read()

    tenants = (tenant("acme", may_bypass_cache=True),)
    impatient = {"timeouts": {"read": {"first_byte_s": 0.3, "idle_s": 1}}}
    async with (
        running(
            tmp_path,
            valkey_url,
            tenants=tenants,
            sandbox_url=upstream[1],
            listen={"hot_path": "on"},
            upstream=impatient,
        ) as stage,
        wire(stage) as one,
    ):
        head = head_of(stage.token())
        await warm(stage, one, head)
        upstream[0].script, seen = never, len(upstream[0].heads)
        answer = await one.ask(head)
        assert answer.split(b" ", 2)[1] == b"504"
        assert b'"code":"' in answer
        assert len(upstream[0].heads) == seen + 1
        assert counted(stage, "requests_total", "504") == 1


async def test_a_revoked_token_is_refused_at_once(stage: Stage, upstream: tuple[Upstream, str]) -> None:
    head = head_of(stage.token())
    async with wire(stage) as one:
        await warm(stage, one, head)
        await stage.gateway.parts.identity.revoke(tenant="acme", issued_before=2**40)
        seen = len(upstream[0].heads)
        assert b" 401 " in await one.ask(head)
        assert len(upstream[0].heads) == seen

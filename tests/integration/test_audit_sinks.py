"""Shipping over real sockets: everything arrives, in order, at least once, whatever the receiver does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from cbk_gateway.audit import Act, Journal, JournalOptions, Outcome, Result, SilentObserver
from cbk_gateway.audit.reading import segments
from cbk_gateway.audit.retention import RetentionOptions, compress
from cbk_gateway.audit.signing import is_signed, load_or_make
from cbk_gateway.audit.sinks import (
    Batch,
    HttpSink,
    OtlpSink,
    RedisStreamSink,
    Shipper,
    ShipperOptions,
    SinkFault,
    SyslogSink,
)
from cbk_gateway.audit.sinks.http_batches import BATCH_DOMAIN
from cbk_gateway.operation import understand
from cbk_gateway.secret import Secret
from cbk_gateway.store import EmbeddedServer, Store, StoreOptions, open_store

OPERATION = understand("POST", "/api/v1/bot/b1/update")
SMALL = ShipperOptions(batch_records=7, poll_s=0.01, backoff_s=0.001, backoff_max_s=0.01, send_timeout_s=5)


@pytest.fixture
def options(tmp_path: Path) -> JournalOptions:
    return JournalOptions(
        tmp_path / "journal", b"k" * 32, segment_max_bytes=6000, reserve_bytes=0, reserve_inodes=0
    )


async def write(options: JournalOptions, count: int, prefix: str = "r", worker: str = "w0") -> None:
    """One run of a journal."""
    journal = Journal(options, SilentObserver(), worker)
    await journal.start()
    for number in range(count):
        act = Act(request_id=f"{prefix}{number}", tenant="acme", subject="app", operation=OPERATION)
        (await journal.intend(act)).close(Outcome(Result.ANSWERED, status=200))
    await journal.stop()


def lines_of(options: JournalOptions, worker: str = "w0") -> list[bytes]:
    """All lines of a chain, in order."""
    return [line for file in segments(options.directory / worker) for line in file.lines()]


class Memory:
    """A sink that remembers, and fails where it is told to."""

    name = "memory"

    def __init__(self, *failing: int) -> None:
        self.lines: list[bytes] = []
        self.calls = 0
        self._failing = failing

    async def send(self, batch: Batch) -> None:
        self.calls += 1
        if self.calls in self._failing:
            raise SinkFault("told to fail")
        self.lines += batch.lines

    async def close(self) -> None:
        """Nothing is open."""


async def drain(shipper: Shipper) -> None:
    """Ship until nothing is left."""
    while await shipper.ship_once():
        pass


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def receiver(handler: Handler) -> AsyncIterator[str]:
    """An HTTP server on a free port; gives its address."""
    server = web.Server(handler)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/logs"
    finally:
        await runner.cleanup()


async def test_every_record_arrives_once_and_in_order(options: JournalOptions, tmp_path: Path) -> None:
    await write(options, 30)
    sink = Memory()
    shipper = Shipper(options.directory, sink, tmp_path / "positions", SMALL)
    await drain(shipper)
    assert sink.lines == lines_of(options)
    await write(options, 5, "later")
    await drain(shipper)
    assert sink.lines == lines_of(options)


async def test_a_position_survives_the_process(options: JournalOptions, tmp_path: Path) -> None:
    await write(options, 30)
    first = Memory()
    shipper = Shipper(options.directory, first, tmp_path / "positions", SMALL)
    for _ in range(3):
        await shipper.ship_once()
    second = Memory()
    await drain(Shipper(options.directory, second, tmp_path / "positions", SMALL))
    assert first.lines + second.lines == lines_of(options)


async def test_a_refused_batch_is_offered_again_and_none_is_skipped(
    options: JournalOptions, tmp_path: Path
) -> None:
    await write(options, 30)
    sink = Memory(1, 2, 4)
    shipper = Shipper(options.directory, sink, tmp_path / "positions", SMALL, jitter=lambda: 0.5)
    running = asyncio.create_task(shipper.run())
    wanted = lines_of(options)
    async with asyncio.timeout(20):
        for _ in iter(lambda: len(sink.lines) >= len(wanted), True):
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert sink.lines == wanted
    assert shipper.failures == 0


@pytest.mark.parametrize(("failures", "pause_s"), [(1, 0.25), (2, 0.5), (4, 2.0), (50, 30.0)])
def test_pauses_double_up_to_a_bound(tmp_path: Path, failures: int, pause_s: float) -> None:
    shipper = Shipper(tmp_path, Memory(), tmp_path / "positions", jitter=lambda: 0.5)
    shipper.failures = failures
    assert shipper.pause_s() == pause_s


async def test_an_unreadable_position_sends_again_rather_than_losing(
    options: JournalOptions, tmp_path: Path
) -> None:
    await write(options, 5)
    (tmp_path / "positions").mkdir()
    (tmp_path / "positions" / "memory.json").write_bytes(b"{broken")
    sink = Memory()
    await drain(Shipper(options.directory, sink, tmp_path / "positions", SMALL))
    assert sink.lines == lines_of(options)


async def test_compression_under_a_shipper_changes_nothing(options: JournalOptions, tmp_path: Path) -> None:
    await write(options, 30)
    sink = Memory()
    shipper = Shipper(options.directory, sink, tmp_path / "positions", SMALL)
    await shipper.ship_once()
    wanted = lines_of(options)
    for file in segments(options.directory / "w0")[:-2]:
        compress(file)
    await drain(shipper)
    assert sink.lines == wanted


async def test_a_shipper_knows_what_retention_may_remove(options: JournalOptions, tmp_path: Path) -> None:
    await write(options, 30)
    shipper = Shipper(options.directory, Memory(), tmp_path / "positions", SMALL)
    files = segments(options.directory / "w0")
    assert not any(shipper.has_shipped(file) for file in files)
    assert shipper.lag() == {"w0": len(files)}
    await drain(shipper)
    assert all(shipper.has_shipped(file) for file in files[:-1])
    assert not RetentionOptions().held_tenants


async def test_only_the_chosen_chains_are_shipped(options: JournalOptions, tmp_path: Path) -> None:
    await write(options, 3, worker="w0")
    await write(options, 3, worker="w1")
    sink = Memory()
    chosen = replace(SMALL, workers=frozenset({"w1"}))
    await drain(Shipper(options.directory, sink, tmp_path / "positions", chosen))
    assert sink.lines == lines_of(options, "w1")


async def test_http_batches_are_signed_and_authorised(options: JournalOptions, tmp_path: Path) -> None:
    await write(options, 10)
    key = load_or_make(options.key_path)
    bodies: list[bytes] = []

    async def take(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        message = BATCH_DOMAIN + request.headers["X-CBK-Audit-Batch"].encode() + b"\0" + body
        assert is_signed(key.public_key, message, request.headers["X-CBK-Audit-Signature"])
        assert request.headers["X-CBK-Audit-Key"] == key.key_id
        assert request.headers["Authorization"] == "Bearer receiver-token"
        bodies.append(body)
        return web.Response(status=204)

    async with receiver(take) as url:
        sink = HttpSink(url, key, token=Secret("receiver-token"))
        await drain(Shipper(options.directory, sink, tmp_path / "positions", SMALL))
        await sink.close()
    assert b"".join(bodies) == b"".join(lines_of(options))


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500, 503])
async def test_any_answer_but_success_moves_no_position(
    options: JournalOptions, tmp_path: Path, status: int
) -> None:
    await write(options, 3)

    async def refuse(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with receiver(refuse) as url:
        sink = HttpSink(url, load_or_make(options.key_path))
        shipper = Shipper(options.directory, sink, tmp_path / "positions", SMALL)
        with pytest.raises(SinkFault, match=str(status)):
            await shipper.ship_once()
        await sink.close()
    after = Memory()
    after.name = "http"
    await drain(Shipper(options.directory, after, tmp_path / "positions", SMALL))
    assert after.lines == lines_of(options)


async def test_a_receiver_that_is_not_there_is_a_fault_and_no_secret_is_in_it(
    options: JournalOptions, tmp_path: Path, unused_tcp_port: int
) -> None:
    await write(options, 3)
    token = Secret("receiver-token")
    sink = OtlpSink(f"http://127.0.0.1:{unused_tcp_port}/v1/logs", token=token)
    with pytest.raises(SinkFault) as fault:
        await Shipper(options.directory, sink, tmp_path / "positions", SMALL).ship_once()
    await sink.close()
    assert "receiver-token" not in repr(fault.value)


async def test_a_receiver_that_never_answers_is_given_up(options: JournalOptions, tmp_path: Path) -> None:
    await write(options, 3)
    gate = asyncio.Event()

    async def hang(_: web.BaseRequest) -> web.Response:
        await gate.wait()
        return web.Response()

    async with receiver(hang) as url:
        sink = HttpSink(url, load_or_make(options.key_path))
        quick = replace(SMALL, send_timeout_s=0.1)
        with pytest.raises(SinkFault, match="no answer"):
            await Shipper(options.directory, sink, tmp_path / "positions", quick).ship_once()
        gate.set()
        await sink.close()


async def test_otlp_carries_each_record_with_its_attributes(options: JournalOptions, tmp_path: Path) -> None:
    await write(options, 4)
    documents: list[dict[str, Any]] = []

    async def take(request: web.BaseRequest) -> web.Response:
        documents.append(orjson.loads(await request.read()))
        return web.json_response({})

    async with receiver(take) as url:
        sink = OtlpSink(url, resource={"deployment.environment": "test"})
        shipper = Shipper(options.directory, sink, tmp_path / "positions", ShipperOptions())
        await drain(shipper)
        await sink.close()
    (document,) = documents
    (resource,) = document["resourceLogs"]
    (scope,) = resource["scopeLogs"]
    records = scope["logRecords"]
    lines = lines_of(options)
    assert [one["body"]["stringValue"].encode() + b"\n" for one in records] == lines
    first = {one["key"]: one["value"]["stringValue"] for one in records[1]["attributes"]}
    assert (first["cbk.audit.tenant"], first["cbk.audit.kind"]) == ("acme", "intent")
    assert re.fullmatch(r"1\d{18}", records[0]["timeUnixNano"])


async def test_syslog_messages_are_framed_and_formed_as_the_rfc_says(
    options: JournalOptions, tmp_path: Path
) -> None:
    await write(options, 10)
    received = bytearray()
    ended = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            received.extend(chunk)
        writer.close()
        ended.set()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        sink = SyslogSink("127.0.0.1", server.sockets[0].getsockname()[1])
        await drain(Shipper(options.directory, sink, tmp_path / "positions", SMALL))
        await sink.close()
        await ended.wait()
    messages = _unframe(bytes(received))
    lines = lines_of(options)
    assert len(messages) == len(lines)
    form = re.compile(
        rb"<10[89]>1 \d{4}-\d\d-\d\dT[\d:.]+Z \S+ cbk-gateway - \w+ "
        rb"\[cbkaudit@32473 worker=\"w0\" [^\]]*\] (\{.*\})"
    )
    for text, line in zip(messages, lines, strict=True):
        found = form.fullmatch(text)
        assert found is not None, text
        assert found[1] + b"\n" == line


def _unframe(stream: bytes) -> list[bytes]:
    """Octet counting, RFC 6587 section 3.4.1."""
    messages = []
    while stream:
        size, _, rest = stream.partition(b" ")
        messages.append(rest[: int(size)])
        stream = rest[int(size) :]
    return messages


async def test_a_syslog_receiver_that_comes_back_gets_the_rest(
    options: JournalOptions, tmp_path: Path, unused_tcp_port: int
) -> None:
    await write(options, 10)
    sink = SyslogSink("127.0.0.1", unused_tcp_port)
    shipper = Shipper(options.directory, sink, tmp_path / "positions", SMALL)
    with pytest.raises(SinkFault):
        await shipper.ship_once()
    received = bytearray()
    ended = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            received.extend(chunk)
        writer.close()
        ended.set()

    async with await asyncio.start_server(take, "127.0.0.1", unused_tcp_port):
        await drain(shipper)
        await sink.close()
        await ended.wait()
    assert len(_unframe(bytes(received))) == len(lines_of(options))


async def test_a_redis_stream_has_every_record_in_order(
    options: JournalOptions, tmp_path: Path, store: Store
) -> None:
    await write(options, 20)
    sink = RedisStreamSink(store)
    await drain(Shipper(options.directory, sink, tmp_path / "positions", SMALL))
    entries = await store.client.execute_command("XRANGE", "cbkgw:{audit}:records", "-", "+")
    fields = [found for _, found in entries]
    assert [one[b"record"] + b"\n" for one in fields] == lines_of(options)
    assert [int(one[b"seq"]) for one in fields] == list(range(1, len(fields) + 1))


async def test_a_dead_store_is_a_fault_and_what_it_missed_follows(
    options: JournalOptions, tmp_path: Path
) -> None:
    await write(options, 20)
    server = EmbeddedServer(tmp_path / "valkey")
    server.start()
    try:
        async with await open_store(
            StoreOptions(url=server.url, call_timeout_s=1.0, connect_timeout_s=1.0)
        ) as store:
            shipper = Shipper(options.directory, RedisStreamSink(store), tmp_path / "positions", SMALL)
            await shipper.ship_once()
            server.kill()
            with pytest.raises(SinkFault):
                await shipper.ship_once()
    finally:
        server.stop()
    rest = Memory()
    rest.name = "redis"
    await drain(Shipper(options.directory, rest, tmp_path / "positions", SMALL))
    assert rest.lines == lines_of(options)[7:]

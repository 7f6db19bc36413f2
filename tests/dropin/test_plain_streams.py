"""Streams and connections on the wire: when a piece arrives, how it is framed, what a connection carries."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.store import Store
from dropin.doors import Door, Way, arrived, until
from dropin.wire import dialled, upstream_that
from harness import Stage, running

pytestmark = pytest.mark.dropin

Session = aiohttp.ClientSession
COMPLETE = "/api/v1/conversation/complete"
ASKED = {"messages": [{"type": "user", "text": "héllo 世界"}]}


def _headers(door: Door, accept: str = "application/json") -> dict[str, str]:
    return {"Authorization": f"Bearer {door.secret()}", "Accept": accept}


def _request(door: Door, target: str, *lines: str, method: str = "GET", version: str = "1.1") -> str:
    """A request by hand, line ends still to be made CRLF."""
    head = (f"{method} {target} HTTP/{version}", "Host: localhost", f"Authorization: Bearer {door.secret()}")
    return "\n".join((*head, *lines, "", ""))


@pytest.mark.parametrize(
    ("accept", "first"),
    [
        ("application/jsonl", b'{"type":"completeBegin",'),
        ("text/event-stream", b"event: completeBegin\ndata: {}\n\n"),
    ],
)
async def test_the_first_event_arrives_while_the_stream_is_silent(
    door: Door, client: Session, accept: str, first: bytes
) -> None:
    door.stage.sandbox.add_fault(COMPLETE, "silence")
    async with client.post(f"{door.url}{COMPLETE}", json=ASKED, headers=_headers(door, accept)) as answer:
        assert (answer.status, answer.content_type) == (200, accept)
        event = await answer.content.readuntil(b"\n" if accept == "application/jsonl" else b"\n\n")
        assert event.startswith(first)
        (record,) = arrived(door.stage)
        assert record.outcome == "pending"
    await until(lambda: record.outcome == "disconnected")


@pytest.mark.parametrize("path", ["/api/v1/channel/c/subscribe", "/api/v1/event/log/subscribe"])
async def test_a_subscription_opens_before_there_is_anything_to_hear(
    door: Door, client: Session, path: str
) -> None:
    headers = _headers(door, "application/jsonl")
    async with client.post(f"{door.url}{path}", json={}, headers=headers) as answer:
        assert json.loads(await answer.content.readline()) == {"type": "nop", "data": {}}
    await until(lambda: arrived(door.stage)[0].outcome == "disconnected")


@pytest.mark.parametrize("accept", ["application/jsonl", "text/event-stream"])
async def test_each_event_is_passed_on_at_once_and_unchanged(
    tmp_path: Path, valkey_url: str, store: Store, accept: str
) -> None:
    """The upstream writes its next event only after the client has had the one before."""
    kinds = ["token", "unknownKind", "token", "result"]
    datas = [
        '{"token": "héllo"}',
        '{ "odd" :  [1.0, 1e3] }',
        '{"token":"世界 \\ud83c\\udf0d"}',
        '{"text":""}',
    ]
    if accept == "application/jsonl":
        pairs = zip(kinds, datas, strict=True)
        events = [f'{{"type":"{kind}","data":{data}}}\n'.encode() for kind, data in pairs]
    else:
        events = [
            f"event: {kind}\ndata: {data}\n\n".encode() for kind, data in zip(kinds, datas, strict=True)
        ]
    had = asyncio.Semaphore(1)

    async def answer(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {accept}\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for event in events:
            await had.acquire()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with (
        upstream_that(answer) as api,
        running(tmp_path, valkey_url, sandbox_url=api.url) as stage,
        dialled(stage.url) as line,
    ):
        body = json.dumps(ASKED)
        lines = (f"Accept: {accept}", "Content-Type: application/json", f"Content-Length: {len(body)}")
        line.write(_request(Door(Way.GATEWAY, stage), COMPLETE, *lines, method="POST") + body)
        _, status, headers = await line.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        got = []
        async for piece in line.chunks():
            got.append(piece)
            had.release()
        assert got == events


async def test_a_slow_answer_holds_up_nobody_else(door: Door, client: Session) -> None:
    door.stage.sandbox.add_fault("*/bot/list", "latency", value=600_000)
    slow = asyncio.ensure_future(client.get(f"{door.url}/api/v1/bot/list", headers=_headers(door)))
    await until(lambda: len(door.stage.sandbox.requests) == 1)
    for path in ("dataset/list", "contact/list"):
        async with client.get(f"{door.url}/api/v1/{path}", headers=_headers(door)) as answer:
            assert answer.status == 200
    assert not slow.done()
    slow.cancel()
    await asyncio.wait((slow,))
    await until(lambda: arrived(door.stage)[0].outcome == "disconnected")


async def test_a_cut_stream_is_never_ended_politely(door: Door) -> None:
    """No last chunk follows what was cut off, so no client can take it for the whole."""
    door.stage.sandbox.add_fault(COMPLETE, "truncate_stream", value=2)
    body = json.dumps(ASKED)
    lines = ("Accept: application/jsonl", "Content-Type: application/json", f"Content-Length: {len(body)}")
    async with dialled(door.url) as line:
        line.write(_request(door, COMPLETE, *lines, method="POST") + body)
        assert (await line.head())[1] == 200
        pieces: list[bytes] = []
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await line.read_into(pieces)
    assert b"".join(pieces).startswith(b'{"type":"completeBegin"')


async def test_an_old_client_is_answered_without_chunks(door: Door, client: Session) -> None:
    async with client.post(
        f"{door.url}/api/v1/bot/create", json={"name": "Ada"}, headers=_headers(door)
    ) as answer:
        assert answer.status == 200
    for accept in ("application/json", "application/jsonl"):
        async with dialled(door.url) as line:
            line.write(_request(door, "/api/v1/bot/list", f"Accept: {accept}", version="1.0"))
            reply = await line.reply()
            assert reply.status == 200
            assert "transfer-encoding" not in reply.headers
            assert b'"name":"Ada"' in reply.body
            assert await line.is_closed()


async def test_a_connection_serves_one_request_after_another(door: Door) -> None:
    async with dialled(door.url) as line:
        for path, status in (("bot/list", 200), ("bot/none/fetch", 404), ("no", 404), ("bot/list", 200)):
            line.write(_request(door, f"/api/v1/{path}"))
            reply = await line.reply()
            assert (reply.status, reply.headers.get("connection")) == (status, None)


async def test_requests_that_come_together_are_answered_in_order(gateway: Door) -> None:
    """Pipelining (RFC 9112 section 9.3.2): a slow first answer is not overtaken."""
    gateway.stage.sandbox.add_fault("*/bot/list", "latency", value=200)
    paths = ("bot/list", "dataset/none/fetch", "contact/list", "bot/list")
    async with dialled(gateway.url) as line:
        line.write("".join(_request(gateway, f"/api/v1/{path}") for path in paths))
        replies = [await line.reply() for _ in paths]
    assert [reply.status for reply in replies] == [200, 404, 200, 200]
    assert json.loads(replies[1].body)["code"] == "NOT_FOUND"
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert len(set(ids)) == len(paths)
    assert [record.path for record in arrived(gateway.stage)][:1] == ["/api/v1/bot/list"]


async def test_a_client_that_asks_for_it_gets_its_connection_closed(door: Door) -> None:
    async with dialled(door.url) as line:
        line.write(_request(door, "/api/v1/bot/list", "Connection: close"))
        reply = await line.reply()
        assert reply.status == 200
        assert await line.is_closed()


async def test_the_api_is_spoken_to_over_few_connections(stage: Stage, client: Session) -> None:
    """The gateway keeps its connections to the API, whatever its clients do with theirs."""
    gateway = Door(Way.GATEWAY, stage)
    for number in range(10):
        async with dialled(gateway.url) as line:
            line.write(_request(gateway, f"/api/v1/bot/none-{number}/fetch", "Connection: close"))
            assert (await line.reply()).status == 404
    assert len(arrived(stage)) == 10
    hops = [record.headers.get("connection", "").lower() for record in stage.sandbox.requests]
    assert "close" not in hops

"""The upstream misbehaves, through the whole gateway: time bounds per cost class, odd answers, its 429s."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cbk_gateway.store import Store
from harness import Stage, running
from told_api import Asked, ToldApi, gather, told, until

Session = aiohttp.ClientSession
FOR_EVER = 600
DIRECTLY = {"X-CBK-Cache": "bypass"}


@asynccontextmanager
async def behind(
    folder: Path, store_url: str, api: ToldApi, **sections: Mapping[str, object]
) -> AsyncIterator[Stage]:
    async with running(folder, store_url, tenants=None, sandbox_url=api.url, **sections) as stage:
        yield stage


def faults(stage: Stage) -> dict[tuple[str, str, str], float]:
    """Calls without an answer by cost class, cause and outcome, as the metrics have them."""
    body, _ = stage.gateway.parts.metrics.exposition()
    found = {}
    for line in body.decode().splitlines():
        if line.startswith("cbk_gateway_upstream_faults_total{"):
            labels = dict(pair.split("=") for pair in line.partition("{")[2].partition("}")[0].split(","))
            count = float(line.rpartition(" ")[2])
            if count:
                cause, cost, outcome = (labels[name].strip('"') for name in ("cause", "cost", "outcome"))
                found[cost, cause, outcome] = count
    return found


async def quiet(one: Asked) -> None:
    await one.left.wait()


async def stalls_in_its_body(one: Asked) -> None:
    await one.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{")
    await one.left.wait()


async def drips_its_head(one: Asked) -> None:
    await one.write(b"HTTP/1.1 200 OK\r\n")
    while not one.left.is_set():
        await one.write(b"X-Drip: 1\r\n")
        await asyncio.sleep(0.05)


READ, WRITE = ("GET", "/api/v1/bot/b/fetch"), ("POST", "/api/v1/bot/create")
SEARCH, MODEL = ("POST", "/api/v1/dataset/d/search"), ("POST", "/api/v1/conversation/complete")
TRANSFER, GRAPHQL = ("GET", "/api/v1/file/f/download"), ("POST", "/graphql")
BOUNDS = [
    pytest.param("read", "first_byte_s", READ, quiet, "first_byte_timeout", id="read-first-byte"),
    pytest.param("search", "first_byte_s", SEARCH, quiet, "first_byte_timeout", id="search-first-byte"),
    pytest.param("write", "first_byte_s", WRITE, quiet, "first_byte_timeout", id="write-first-byte"),
    pytest.param("model", "first_byte_s", MODEL, quiet, "first_byte_timeout", id="model-first-byte"),
    pytest.param("graphql", "first_byte_s", GRAPHQL, quiet, "first_byte_timeout", id="graphql-first-byte"),
    pytest.param("transfer", "first_byte_s", TRANSFER, quiet, "first_byte_timeout", id="transfer-first-byte"),
    pytest.param("read", "idle_s", READ, stalls_in_its_body, None, id="read-idle"),
    pytest.param("write", "idle_s", WRITE, stalls_in_its_body, None, id="write-idle"),
    pytest.param("read", "total_s", READ, drips_its_head, "total_timeout", id="read-total"),
    pytest.param("write", "total_s", WRITE, drips_its_head, "total_timeout", id="write-total"),
]


@pytest.mark.parametrize(("cost", "bound", "asked", "telling", "cause"), BOUNDS)
async def test_each_cost_class_has_its_own_patience(
    tmp_path: Path,
    valkey_url: str,
    store: Store,
    client: Session,
    cost: str,
    bound: str,
    asked: tuple[str, str],
    telling: Any,
    cause: str | None,
) -> None:
    """The bound of one class ends its calls; a call of another class goes on meanwhile and is answered."""
    method, path = asked
    other = WRITE if cost != "write" else READ
    ended = asyncio.Event()

    async def answer(one: Asked) -> None:
        if one.target.endswith(other[1].removeprefix("/api/v1")):
            await ended.wait()
            await one.say()
        else:
            await telling(one)

    timeouts = {cost: {"first_byte_s": FOR_EVER, "idle_s": FOR_EVER, bound: 0.3}}
    async with (
        told(answer) as api,
        behind(tmp_path, valkey_url, api, upstream={"timeouts": timeouts}) as stage,
    ):
        fields = stage.bearer()
        sent: Any = None if other is READ else {"name": "other"}
        patient = asyncio.ensure_future(
            client.request(other[0], stage.url + other[1], headers=fields, json=sent)
        )
        body: dict[str, Any] = {"query": "{a}"} if path == "/graphql" else {"messages": []}
        sent = None if method == "GET" else body
        async with client.request(method, stage.url + path, headers=fields, json=sent) as given:
            assert given.status == 504
            assert given.headers.get("x-should-retry") == ("false" if cost in {"write", "model"} else None)
        ended.set()
        async with await patient as given:
            assert given.status == 200
        outcome = "unknown"
        assert faults(stage) == ({(cost, cause, outcome): 1} if cause is not None else {})


async def test_a_silent_name_is_given_up_in_time_and_nothing_was_sent(
    tmp_path: Path, valkey_url: str, store: Store, client: Session
) -> None:
    """TCP is taken, TLS is never spoken."""

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = {"tls_timeout_s": 0.3, "connect_timeout_s": 20, "retry": {"max_attempts": 1}}
    url = f"https://127.0.0.1:{port}"
    async with running(tmp_path, valkey_url, sandbox_url=url, upstream=upstream) as stage:
        async with client.post(stage.url + WRITE[1], json={}, headers=stage.bearer()) as given:
            assert given.status == 502
            assert "x-should-retry" not in given.headers
        assert faults(stage) == {("write", "tls", "not_sent"): 1}
    server.close()


HEADS = [
    pytest.param(b"X-Large: " + b"x" * 70_000 + b"\r\n", 502, id="large"),
    pytest.param(b"".join(b"X-%d: y\r\n" % one for one in range(200)), 502, id="many"),
    pytest.param(b"X-Fine: " + b"x" * 7000 + b"\r\n", 200, id="fine"),
]


@pytest.mark.parametrize(("fields", "status"), HEADS)
async def test_an_answers_head_is_bounded(
    tmp_path: Path, valkey_url: str, store: Store, client: Session, fields: bytes, status: int
) -> None:
    async def answer(one: Asked) -> None:
        await one.say(fields=fields)

    async with (
        told(answer) as api,
        behind(tmp_path, valkey_url, api) as stage,
        client.post(stage.url + WRITE[1], json={}, headers=stage.bearer()) as given,
    ):
        assert given.status == status


async def test_nothing_is_ever_unpacked(
    tmp_path: Path, valkey_url: str, store: Store, client: Session
) -> None:
    """Ten thousand bytes that would be ten million: passed as they came, kept as they came, or not at all."""
    bomb = gzip.compress(b"\0" * 10_000_000)

    async def answer(one: Asked) -> None:
        await one.say(bomb, b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n")

    async with told(answer) as api, behind(tmp_path, valkey_url, api) as stage:
        for method, path in (READ, READ, TRANSFER, WRITE, MODEL):
            fields = {**stage.bearer(), "Accept-Encoding": "gzip"}
            sent: Any = None if method == "GET" else {"messages": []}
            async with client.request(method, stage.url + path, json=sent, headers=fields) as given:
                assert (given.status, given.headers["Content-Encoding"]) == (200, "gzip")
                assert await given.read() == bomb


DROPPED = {
    "Set-Cookie": "session=1",
    "Server": "internal",
    "X-Powered-By": "Next.js",
    "Via": "1.1 inner",
    "Alt-Svc": "h3",
    "Strict-Transport-Security": "max-age=1",
    "X-ChatBotKit-Internal-Trace": "1",
    "X-CBK-Node": "7",
    "Keep-Alive": "timeout=5",
    "Access-Control-Allow-Origin": "https://inner.example.com",
}


@pytest.mark.parametrize("asked", [READ, WRITE, TRANSFER], ids=["read", "write", "transfer"])
async def test_what_is_the_upstreams_own_does_not_reach_clients(
    tmp_path: Path, valkey_url: str, store: Store, client: Session, asked: tuple[str, str]
) -> None:
    raw = "".join(f"{name}: {value}\r\n" for name, value in DROPPED.items())

    async def answer(one: Asked) -> None:
        await one.say(fields=f"{raw}X-Failure-Code: kept\r\nContent-Type: application/json\r\n".encode())

    async with told(answer) as api, behind(tmp_path, valkey_url, api) as stage:
        method, path = asked
        sent = None if method == "GET" else {"name": "a"}
        async with client.request(method, stage.url + path, json=sent, headers=stage.bearer()) as given:
            assert given.headers["X-Failure-Code"] == "kept"
            for name, value in DROPPED.items():
                assert value not in given.headers.getall(name, []), name


ODD_BODIES = [
    b'{ "message" : "n\xc3\xb6" , "code":"BAD", "more": [1.0, 1e3] }\n',
    b"<html>an edge's own page</html>",
    b"",
    b"\xff\x00 no text at all",
]


@pytest.mark.parametrize("status", [400, 402, 403, 404, 409, 413, 422, 429, 500, 501, 502, 503, 504])
async def test_the_bodies_of_errors_pass_unchanged(
    tmp_path: Path, valkey_url: str, store: Store, client: Session, status: int
) -> None:
    bodies = {f"/api/v1/bot/b{number}/update": body for number, body in enumerate(ODD_BODIES)}

    async def answer(one: Asked) -> None:
        body = bodies[one.target] if one.method == "POST" else ODD_BODIES[0]
        await one.say(body, b"Content-Type: text/html\r\n", b"%d Odd" % status)

    # Each 429 would slow the next call, and each 5xx open the breaker a little further.
    calm = {"breaker": {"enabled": False}, "retry": {"max_attempts": 1}}
    async with told(answer) as api, behind(tmp_path, valkey_url, api, upstream=calm) as stage:
        for number, (path, body) in enumerate(bodies.items()):
            who = ("acme", "partner", "partner-one", "partner-two")[number]
            async with client.post(stage.url + path, json={"n": 1}, headers=stage.bearer(who)) as given:
                assert (given.status, await given.read()) == (status, body)
                assert given.headers.get("Content-Type") == "text/html"
        if status != 429:
            fields = {**stage.bearer(), **DIRECTLY}
            async with client.get(stage.url + READ[1], headers=fields) as given:
                assert (given.status, await given.read()) == (status, ODD_BODIES[0])


WAITS = [("7", "7"), ("0", "1"), ("999999", "60"), ("soon", None), (None, None)]


@pytest.mark.parametrize(("said", "told_on"), WAITS)
async def test_a_429_is_passed_on_with_a_sane_wait(
    tmp_path: Path, valkey_url: str, store: Store, client: Session, said: str | None, told_on: str | None
) -> None:
    async def answer(one: Asked) -> None:
        fields = b"" if said is None else f"Retry-After: {said}\r\n".encode()
        await one.say(b'{"message":"m","code":"LIMITS_REACHED"}', fields, b"429 Slow Down")

    async with told(answer) as api, behind(tmp_path, valkey_url, api) as stage:
        async with client.post(stage.url + WRITE[1], json={}, headers=stage.bearer()) as given:
            assert (given.status, b"LIMITS_REACHED" in await given.read()) == (429, True)
            wait = given.headers["Retry-After"]
        assert wait == told_on if told_on is not None else 1 <= int(wait) <= 60


async def test_a_429_slows_its_own_account_before_it_is_asked_again(
    tmp_path: Path, valkey_url: str, store: Store, client: Session
) -> None:
    async def answer(one: Asked) -> None:
        if "sk-acme" in (one.field("Authorization") or ""):
            await one.say(b"{}", b"Retry-After: 30\r\n", b"429 Slow Down")
        else:
            await one.say()

    async with told(answer) as api, behind(tmp_path, valkey_url, api) as stage:
        acme, partner = stage.bearer(), stage.bearer("partner")
        for turn in range(3):
            async with client.post(stage.url + WRITE[1], json={"n": turn}, headers=acme) as given:
                assert given.status == 429
                assert 1 <= int(given.headers["Retry-After"]) <= 30
        assert len(api.asked) == 1, "the gateway keeps the wait that it was told"
        async with client.post(stage.url + WRITE[1], json={}, headers=partner) as given:
            assert given.status == 200
        await stage.gateway.stop()
        results = [one["result"] for one in stage.journal() if one["kind"] == "outcome"]
        assert results == ["answered", "not_sent", "not_sent", "answered"]


async def test_a_body_that_breaks_off_is_never_ended_politely(
    tmp_path: Path, valkey_url: str, store: Store, client: Session
) -> None:
    async def answer(one: Asked) -> None:
        await one.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        one.writer.close()

    async with told(answer) as api, behind(tmp_path, valkey_url, api) as stage:
        got = bytearray()
        async with client.get(stage.url + TRANSFER[1], headers=stage.bearer()) as given:
            with pytest.raises(aiohttp.ClientPayloadError):
                await gather(given, got)
        assert got == b"half"
        await until(lambda: stage.gateway.parts.upstream.pool.open_count == 0)

"""Repeated reads answered from their bytes: the same answers, and every check that the full path makes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.hotpath import HotPath
from cbk_gateway.parties import Rate, TenantLimits
from cbk_gateway.store import Store
from harness import Stage, running, tenant
from integration.wires import Wire, wire

_VOLATILE = re.compile(
    rb"(?<=X-Request-Id: )[0-9a-f]+|(?<=dur=)[0-9.]+|(?<=Date: )[^\r]+|(?<=ttl=)\d+|(?<=Age: )\d+"
    rb"|(?<=;r=)\d+;t=\d+|(?<=Remaining: )\d+|(?<=Reset: )\d+|(?<=requestId\":\")[0-9a-f]+"
)


def head_of(token: str, path: str = "/api/v1/bot/list", *more: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def hot(stage: Stage) -> HotPath:
    assert stage.gateway.parts.hot_path is not None
    return stage.gateway.parts.hot_path


def lasting(answer: bytes) -> bytes:
    return _VOLATILE.sub(b"~", answer)


@pytest.fixture
async def stage(tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[Stage]:
    del store
    async with running(tmp_path, valkey_url, listen={"hot_path": "on"}) as one:
        yield one


async def warm(stage: Stage, one: Wire, head: bytes) -> bytes:
    """Ask until the hot path answers, which takes a lease of the limiter; its answer."""
    async with asyncio.timeout(10):
        while True:
            before = hot(stage).served
            answer = await one.ask(head)
            if hot(stage).served > before:
                return answer


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("Accept-Encoding: gzip",),
        ("Origin: https://a.example",),
        ("If-None-Match: *",),
        ("X-Request-Id: ab",),
    ],
)
async def test_a_repeated_read_gets_the_full_paths_words(stage: Stage, more: tuple[str, ...]) -> None:
    head = head_of(stage.token(), "/api/v1/bot/list", *more)
    async with wire(stage) as one, asyncio.timeout(10):
        fast, full = await warm(stage, one, head), b""
        hot(stage).clear()
        full = await one.ask(head)
        assert len(hot(stage)) == 0
    assert b"cbk-gateway; hit" in fast
    assert lasting(fast) == lasting(full)


async def test_every_request_counts_and_has_an_id_of_its_own(stage: Stage) -> None:
    head = head_of(stage.token())
    async with wire(stage) as one:
        await warm(stage, one, head)
        ids = {re.search(rb"X-Request-Id: (\w+)", await one.ask(head))[1] for _ in range(5)}  # type: ignore[index] # each answer has one
        assert len(ids) == 5
    series = stage.gateway.parts.metrics.families()["cbk_gateway_requests_total"]
    hits = [one for (_, labels), one in series.items() if "hit" in labels and isinstance(one, float | int)]
    assert sum(hits) >= hot(stage).served


async def test_one_byte_more_is_another_request(stage: Stage) -> None:
    token = stage.token()
    async with wire(stage) as one:
        await warm(stage, one, head_of(token))
        served = hot(stage).served
        assert b" 200 " in await one.ask(head_of(token, "/api/v1/bot/list", "X-Other: 1"))
        assert b" 401 " in await one.ask(head_of(token + "x"))
        assert hot(stage).served == served


async def test_a_write_is_seen_by_the_next_read(stage: Stage, client: aiohttp.ClientSession) -> None:
    head = head_of(stage.token())
    async with wire(stage) as one:
        await warm(stage, one, head)
        for name in ("first", "second"):
            async with client.post(
                f"{stage.url}/api/v1/bot/create", json={"name": name}, headers=stage.bearer()
            ) as made:
                assert made.status == 200
            assert name.encode() in await one.ask(head)
            assert name.encode() in await warm(stage, one, head)


async def test_a_revoked_token_is_refused_at_once(stage: Stage) -> None:
    token = stage.token(subject="leaver")
    async with wire(stage) as one:
        await warm(stage, one, head_of(token))
        await stage.gateway.parts.identity.revoke(tenant="acme", issued_before=2**40)
        assert b" 401 " in await one.ask(head_of(token))


async def test_a_disabled_tenant_is_refused_at_once(stage: Stage) -> None:
    token = stage.token()
    async with wire(stage) as one:
        await warm(stage, one, head_of(token))
        registry = stage.gateway.parts.registry
        registry.replace([tenant("acme", disabled=True)])
        assert b" 403 " in await one.ask(head_of(token))


async def test_a_spent_rate_refuses_in_the_full_paths_words(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    del store
    slow = TenantLimits(rates=(Rate("tenant", 20, 60),))
    async with running(
        tmp_path, valkey_url, tenants=(tenant("acme", limits=slow),), listen={"hot_path": "on"}
    ) as stage:
        head, other = head_of(stage.token()), head_of(stage.token(), "/api/v1/bot/list", "X-Other: 1")
        async with wire(stage) as one:
            await warm(stage, one, head)
            async with asyncio.timeout(10):
                while b" 429 " not in (await one.ask(head)):
                    pass
            for _ in range(200):
                before = hot(stage).served
                fast = await one.ask(head)
                if hot(stage).served > before and b" 429 " in fast:
                    break
            else:
                raise AssertionError("no refusal came from the hot path")
            full = await one.ask(other)
            assert b" 429 " in full
            ignoring = re.compile(rb"\d+")
            assert ignoring.sub(b"~", lasting(fast)) == ignoring.sub(b"~", lasting(full))


async def test_pipelined_and_split_requests_take_the_full_path_and_keep_their_order(stage: Stage) -> None:
    head, bots = head_of(stage.token()), head_of(stage.token(), "/api/v1/dataset/list")
    async with wire(stage) as one:
        await warm(stage, one, head)
        served = hot(stage).served
        one.writer.write(head + bots + head)
        answers = [await one.read() for _ in range(3)]
        assert all(b" 200 " in answer for answer in answers)
        assert lasting(answers[0]) == lasting(answers[2])
        assert hot(stage).served == served


async def test_a_known_head_inside_an_unfinished_one_is_no_request(stage: Stage) -> None:
    """The bytes of a repeated request may arrive as the middle of another's header field."""
    head = head_of(stage.token())
    async with wire(stage) as one, wire(stage) as other:
        await warm(stage, one, head)
        one.writer.write(b"GET /api/v1/nothing/such HTTP/1.1\r\nHost: gateway\r\nX-Part: ")
        # By its answer the gateway has read what came before it.
        await other.ask(head_of("x"))
        served = hot(stage).served
        answer = await one.ask(head)
        assert b" 200 " not in answer.split(b"\r\n", 1)[0]
        assert hot(stage).served == served


async def test_a_known_head_as_the_body_of_a_write_is_no_request(stage: Stage) -> None:
    head = head_of(stage.token())
    async with wire(stage) as one, wire(stage) as other:
        await warm(stage, one, head)
        served = hot(stage).served
        post = (
            f"POST /api/v1/bot/create HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {stage.token()}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(head)}\r\n\r\n"
        ).encode()
        one.writer.write(post)
        await other.ask(head_of("x"))
        answer = await one.ask(head)
        assert b" 400 " in answer.split(b"\r\n", 1)[0]
        assert hot(stage).served == served


async def test_a_connection_serves_hot_again_after_a_write(stage: Stage) -> None:
    token = stage.token()
    head, body = head_of(token, "/api/v1/dataset/list"), b'{"name":"Ada"}'
    post = (
        f"POST /api/v1/bot/create HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    async with wire(stage) as one:
        await warm(stage, one, head)
        assert b" 200 " in await one.ask(post + body)
        await warm(stage, one, head)


@pytest.mark.parametrize("mode", ["on", "off", "verify"])
async def test_cached_reads_are_alike_in_every_mode(
    tmp_path: Path, valkey_url: str, store: Store, mode: str
) -> None:
    del store
    async with running(tmp_path, valkey_url, listen={"hot_path": mode}) as stage:
        token = stage.token()
        async with wire(stage) as one:
            for path in ("/api/v1/bot/list", "/api/v1/bot/list?take=1", "/api/v1/nothing/such"):
                answers = [await one.ask(head_of(token, path)) for _ in range(30)]
                assert len({lasting(answer).split(b" ")[1] for answer in answers}) == 1
                assert (
                    len({answer.partition(b"\r\n\r\n")[2] for answer in answers if b" 200 " in answer}) <= 1
                )


async def test_off_means_off(tmp_path: Path, valkey_url: str, store: Store) -> None:
    del store
    async with running(tmp_path, valkey_url, listen={"hot_path": "off"}) as stage:
        assert stage.gateway.parts.hot_path is None


async def test_verifying_answers_twice_and_finds_no_difference(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    del store
    async with running(tmp_path, valkey_url, listen={"hot_path": "verify"}) as stage:
        token = stage.token()
        kinds: tuple[tuple[str, ...], ...] = ((), ("Accept-Encoding: gzip",), ("If-None-Match: *",))
        async with wire(stage) as one, asyncio.timeout(20):
            for more in kinds:
                for path in ("/api/v1/bot/list", "/api/v1/dataset/list?take=5"):
                    wanted = hot(stage).compared + 5
                    while hot(stage).compared < wanted:
                        await one.ask(head_of(token, path, *more))
                async with client.post(
                    f"{stage.url}/api/v1/bot/create", json={"name": "Ada"}, headers=stage.bearer()
                ) as made:
                    assert made.status == 200
        assert hot(stage).compared >= 30
        assert hot(stage).differences == 0
        assert hot(stage).served == 0


async def test_a_bad_token_is_refused_from_its_bytes_for_a_second_at_most(stage: Stage) -> None:
    bad = head_of(stage.token() + "x")
    refusals = hot(stage).refusals
    async with wire(stage) as one, asyncio.timeout(10):
        full = await one.ask(bad)
        while refusals.served == 0:
            quick = await one.ask(bad)
        assert lasting(quick) == lasting(full)
        served = refusals.served
        # As soon as a key or a revocation changes, the reasons are looked at anew.
        stage.gateway.parts.breaks.note()
        assert lasting(await one.ask(bad)) == lasting(full)
        assert refusals.served == served
    families = stage.gateway.parts.metrics.families()
    told = families["cbk_gateway_refusals_total"]
    assert (
        sum(n for (_, labels), n in told.items() if "401" in labels and isinstance(n, float | int)) > served
    )


async def test_a_crowd_that_finds_no_slice_asks_the_store_once(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    del store
    limited = tenant("acme", limits=TenantLimits(rates=(Rate("tenant", 50, 100),)))
    async with running(tmp_path, valkey_url, tenants=(limited,), listen={"hot_path": "on"}) as stage:
        head = head_of(stage.token())
        async with AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(wire(stage)) for _ in range(20)]
            statuses = []
            for _ in range(30):
                answers = await asyncio.gather(*(one.ask(head) for one in crowd))
                statuses += [int(one.split(b" ", 2)[1]) for one in answers]
        # Whoever waited got a token or the refusal that the others got; none was lost, none was doubled.
        assert set(statuses) == {200, 429}
        series = stage.gateway.parts.metrics.families()
        decided = series["cbk_gateway_limit_decisions_total"].items()
        admitted = sum(n for (_, labels), n in decided if "admitted" in labels and isinstance(n, float | int))
        assert admitted == statuses.count(200)
        asked = sum(
            n for n in series["cbk_gateway_limit_store_calls_total"].values() if isinstance(n, float | int)
        )
        assert asked < len(statuses) / 2

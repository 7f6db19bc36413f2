"""When the whole gateway holds calls back: breakers that learn and heal, places shared fairly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cbk_gateway.store import Store
from harness import Stage, running
from told_api import Asked, ToldApi, told, until

Session = aiohttp.ClientSession
COMPLETE, CREATE = "/api/v1/conversation/complete", "/api/v1/bot/create"
BREAKER = {"minimum_samples": 4, "failure_share": 0.9, "open_s": 0.2, "longest_open_s": 0.4}
LATE_FAILURE = b'{"message":"It broke.","code":"INTERNAL_SERVER_ERROR"}'


async def post(client: Session, stage: Stage, path: str, who: str = "acme", name: str = "n") -> int:
    async with client.post(
        stage.url + path, json={"messages": [], "name": name}, headers=stage.bearer(who)
    ) as given:
        await given.read()
        return given.status


def breaker_changes(stage: Stage) -> dict[tuple[str, str], float]:
    """How often breakers changed, by scope and state."""
    body, _ = stage.gateway.parts.metrics.exposition()
    found = {}
    for line in body.decode().splitlines():
        if line.startswith("cbk_gateway_upstream_breaker_changes_total{"):
            labels = dict(pair.split("=") for pair in line.partition("{")[2].partition("}")[0].split(","))
            if count := float(line.rpartition(" ")[2]):
                found[labels["scope"].strip('"'), labels["state"].strip('"')] = count
    return found


def sign(media: bytes) -> bytes:
    if media.endswith(b"json\r\n"):
        return LATE_FAILURE
    return b'{"type":"error","data":{"message":"It broke.","code":"INTERNAL_SERVER_ERROR"}}\n'


@pytest.mark.parametrize(
    "media",
    [b"Content-Type: application/json\r\n", b"Content-Type: application/jsonl\r\n"],
    ids=["late-json", "event-in-a-stream"],
)
async def test_failures_inside_200s_open_the_accounts_breaker_and_a_get_of_our_own_closes_it(
    tmp_path: Path, valkey_url: str, store: Store, client: Session, media: bytes
) -> None:
    """The account is held back, others are not; what probes is never a client's request."""
    healthy = asyncio.Event()

    async def answer(one: Asked) -> None:
        if one.method == "GET":
            # The gateway's own look.
            await one.say(b"{}", status=b"200 OK" if healthy.is_set() else b"503 Busy")
        elif "sk-acme" in (one.field("Authorization") or "") and not healthy.is_set():
            await one.say(sign(media), media)
        else:
            await one.say(b'{"id":"b1"}')

    async with (
        told(answer) as api,
        running(tmp_path, valkey_url, sandbox_url=api.url, upstream={"breaker": BREAKER}) as stage,
    ):
        upstream = stage.gateway.parts.upstream
        for _ in range(4):
            assert not upstream.is_open("acme-account")
            assert await post(client, stage, COMPLETE) == 200
        await until(lambda: upstream.is_open("acme-account"))
        assert not upstream.is_open("partner-account")
        sent = len(writes(api))
        assert await post(client, stage, CREATE) == 503
        assert await post(client, stage, COMPLETE) == 503
        assert len(writes(api)) == sent, "refused before anything was sent"
        assert await post(client, stage, CREATE, "partner") == 200
        await until(lambda: breaker_changes(stage).get(("account", "half_open"), 0) >= 2)
        assert upstream.is_open("acme-account"), "a failed look keeps it open"
        looks = [one for one in api.asked if one.method == "GET"]
        assert all(one.target.endswith("/usage/fetch") for one in looks)
        assert all("sk-acme" in (one.field("Authorization") or "") for one in looks)
        healthy.set()
        await until(lambda: not upstream.is_open("acme-account"))
        assert len(writes(api)) == sent + 1, "nothing of a client's was used to find out"
        assert await post(client, stage, CREATE, name="after") == 200
        assert breaker_changes(stage)["account", "closed"] == 1
        await stage.gateway.stop()
        outcomes = [one for one in stage.journal() if one["kind"] == "outcome"]
        assert [one.get("failure") for one in outcomes[:4]] == ["INTERNAL_SERVER_ERROR"] * 4


def writes(api: ToldApi) -> list[Asked]:
    return [one for one in api.asked if one.method == "POST"]


async def test_a_whole_upstream_that_fails_is_left_alone_while_reads_are_served_stale(
    tmp_path: Path, valkey_url: str, store: Store, client: Session
) -> None:
    """503s of several accounts open the breaker of all; what is cached outlives its time, not all times."""
    failing = asyncio.Event()

    async def answer(one: Asked) -> None:
        await one.say(b'{"id":"b1","name":"kept"}', status=b"503 Busy" if failing.is_set() else b"200 OK")

    sections: dict[str, Any] = {
        "upstream": {
            "breaker": BREAKER | {"open_s": 600, "longest_open_s": 600},
            "retry": {"max_attempts": 1},
        },
        "cache": {"config_s": 1, "stale_if_error_s": 3},
    }
    async with (
        told(answer) as api,
        running(tmp_path, valkey_url, sandbox_url=api.url, **sections) as stage,
    ):
        upstream = stage.gateway.parts.upstream
        await until(lambda: stage.gateway.parts.cache.is_live)
        url, fields = f"{stage.url}/api/v1/bot/b1/fetch", stage.bearer()
        async with client.get(url, headers=fields) as given:
            assert given.status == 200
        failing.set()
        for number in range(400):
            if upstream.is_open("nobody"):
                break
            who = ("acme", "partner")[number % 2]
            # Of another type: what a write touched is never served from before it.
            await post(client, stage, f"/api/v1/contact/x{number}/update", who)
        assert upstream.is_open("nobody"), "it is the upstream's own breaker"
        asked = len(api.asked)
        said: list[tuple[int, str]] = []
        async with asyncio.timeout(30):
            while not said or said[-1][0] == 200:
                async with client.get(url, headers=fields) as given:
                    said.append((given.status, given.headers.get("Cache-Status", "")))
                    await given.read()
                await asyncio.sleep(0.05)
        assert any("stale-if-error" in text for status, text in said if status == 200)
        assert said[-1][0] == 503, "the bound on staleness holds"
        assert await post(client, stage, CREATE) == 503
        assert len(api.asked) == asked
        assert breaker_changes(stage)["upstream", "open"] == 1


FEW = {"least": 1, "start": 2, "most": 2, "queue_size": 12, "queue_wait_s": 60}


async def test_places_go_round_by_tenant_and_a_full_queue_refuses_at_once(
    tmp_path: Path, valkey_url: str, store: Store, client: Session
) -> None:
    gate = asyncio.Semaphore(0)

    async def answer(one: Asked) -> None:
        await gate.acquire()
        await one.say(b'{"id":"b1"}')

    async with (
        told(answer) as api,
        running(tmp_path, valkey_url, sandbox_url=api.url, upstream={"concurrency": FEW}) as stage,
    ):
        guard = stage.gateway.parts.upstream._guard
        assert guard is not None

        def ask(who: str, name: str) -> asyncio.Task[int]:
            return asyncio.ensure_future(post(client, stage, f"/api/v1/bot/{who}-{name}/update", who))

        asking = []
        for number in range(10):
            asking.append(ask("acme", str(number)))
            await until(lambda count=number: len(api.asked) + guard._short.waiting == count + 1)  # type: ignore[misc] # bound per turn
        assert (len(api.asked), guard._short.waiting) == (2, 8)
        asking += [ask("partner", "0"), ask("partner", "1")]
        await until(lambda: guard._short.waiting == 10)
        # Two more of the one who waits most fill the queue; the next is refused, unsent and at once.
        asking += [ask("acme", "10"), ask("acme", "11")]
        await until(lambda: guard._short.waiting == 12)
        async with client.post(
            f"{stage.url}/api/v1/bot/acme-late/update", json={}, headers=stage.bearer()
        ) as given:
            assert (given.status, given.headers.get("x-should-retry")) == (503, None)
            assert int(given.headers["Retry-After"]) >= 1
        for _ in range(14):
            gate.release()
        assert await asyncio.gather(*asking) == [200] * 14
        order = [one.target.split("/")[4].split("-")[0] for one in api.asked]
        assert order[2:6] == ["acme", "partner", "acme", "partner"], order
        assert not any("late" in one.target for one in api.asked)


async def test_a_slow_upstream_is_asked_less_and_a_fast_one_more(
    tmp_path: Path, valkey_url: str, store: Store, client: Session
) -> None:
    status = b"200 OK"

    async def answer(one: Asked) -> None:
        await one.say(b'{"id":"b1"}', status=status)

    sections = {"concurrency": {"least": 2, "start": 8, "most": 50}, "breaker": {"enabled": False}}
    async with (
        told(answer) as api,
        running(tmp_path, valkey_url, sandbox_url=api.url, upstream=sections) as stage,
    ):
        guard = stage.gateway.parts.upstream._guard
        assert guard is not None
        bound: Callable[[], float] = lambda: guard._bound.value  # noqa: E731 - read anew each time

        async def some(name: str) -> None:
            paths = [f"/api/v1/bot/{name}{number}/update" for number in range(8)]
            await asyncio.gather(*(post(client, stage, path) for path in paths))

        for turn in range(10):
            await some(f"fast{turn}")
        grown = bound()
        assert grown > 8
        status = b"503 Busy"
        for turn in range(1000):
            if bound() == 2:
                break
            await some(f"slow{turn}-")
        assert bound() == 2
        assert len(api.asked) > 80

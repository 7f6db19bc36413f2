"""A gateway whose event loop really runs late refuses what it can spare, in order, before it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cbk_gateway.store import Store
from harness import Stage, running

BLOCKED_S = 0.03
"""How long each turn of the loop takes under the burden; looks at it are a tenth of a second apart."""
REACHED, BEYOND = 0.002, 3600.0
PATIENT: dict[str, Any] = {"store": {"timeout_ms": 5000}}
TALK = {"messages": [{"type": "user", "text": "hello"}]}
JSONL = {"Accept": "application/jsonl"}
ASKED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "cached": ("GET", "bot/list", {}),
    "read": ("GET", "team/list", {}),
    "search": ("POST", "memory/search", {"json": {"search": "x"}}),
    "write": ("POST", "bot/create", {"json": {}}),
    "stream": ("POST", "conversation/complete", {"json": TALK, "headers": JSONL}),
    "subscription": ("POST", "channel/c/subscribe", {"json": {}, "headers": JSONL}),
}


@contextlib.contextmanager
def burden() -> Iterator[None]:
    """Something on the loop takes long at each of its turns."""
    loop, is_over = asyncio.get_running_loop(), False

    def take_long() -> None:
        if not is_over:
            time.sleep(BLOCKED_S)
            loop.call_later(0, take_long)

    loop.call_soon(take_long)
    try:
        yield
    finally:
        is_over = True


async def asked(stage: Stage, client: aiohttp.ClientSession, name: str) -> tuple[int, str, dict[str, Any]]:
    method, path, options = ASKED[name]
    headers = stage.bearer() | options.get("headers", {})
    url = f"{stage.url}/api/v1/{path}"
    async with client.request(method, url, headers=headers, json=options.get("json")) as answer:
        if answer.status == 200:
            return 200, "", {}
        return answer.status, answer.headers.get("Retry-After", ""), await answer.json()


@pytest.mark.parametrize(
    ("shedding", "refused"),
    [
        pytest.param(
            {"streams_s": REACHED, "writes_s": BEYOND, "reads_s": BEYOND},
            {"stream", "subscription"},
            id="streams first",
        ),
        pytest.param(
            {"streams_s": REACHED, "writes_s": REACHED, "reads_s": BEYOND},
            {"stream", "subscription", "write"},
            id="then writes",
        ),
        pytest.param(
            {"streams_s": REACHED, "writes_s": REACHED, "reads_s": REACHED},
            {"stream", "subscription", "write", "read", "search"},
            id="then what is forwarded",
        ),
        pytest.param({"enabled": False, "streams_s": REACHED}, set(), id="nothing where it is off"),
    ],
)
async def test_what_can_be_spared_is_refused_first_and_never_sent(
    tmp_path: Path,
    valkey_url: str,
    store: Store,
    client: aiohttp.ClientSession,
    shedding: dict[str, object],
    refused: set[str],
) -> None:
    listen = {"port": 0, "drain_s": 2, "shedding": shedding}
    # Late as everything is, nothing else may give up.
    async with running(tmp_path, valkey_url, listen=listen, cache={"lease_s": 5}, **PATIENT) as stage:
        assert await asked(stage, client, "cached") == (200, "", {})
        stage.sandbox.clear_requests()
        known = len(stage.journal())
        state = stage.gateway.parts.shedding
        with burden():
            async with asyncio.timeout(30):
                while not state.refused and refused:
                    await asyncio.sleep(0.01)
            answers = dict(
                zip(ASKED, await asyncio.gather(*(asked(stage, client, name) for name in ASKED)), strict=True)
            )
        assert {name for name, (status, _, _) in answers.items() if status == 503} == refused
        assert {status for status, _, _ in answers.values()} <= {200, 503}
        for name in refused:
            _, wait_s, document = answers[name]
            assert int(wait_s) >= 1
            assert document["code"] == document["error"]["code"] == "SERVICE_UNAVAILABLE"

        sent = {one.path.removeprefix("/api/v1/") for one in stage.sandbox.requests}
        paths = {name: path for name, (_, path, _) in ASKED.items()}
        assert sent == {path for name, path in paths.items() if name not in refused | {"cached"}}
        if "write" in refused:
            # It is on record as refused, and nowhere as begun.
            assert {one["kind"] for one in stage.journal()[known:]} <= {"refused", "config"}
        assert counted(stage) == len(refused)

        async with asyncio.timeout(30):
            while state.refused:
                await asyncio.sleep(0.02)
        assert (await asked(stage, client, "write"))[0] == 200


def counted(stage: Stage) -> int:
    exposition, _ = stage.gateway.parts.metrics.exposition()
    lines = [line for line in exposition.splitlines() if line.startswith(b"cbk_gateway_requests_shed_total{")]
    return sum(int(float(line.rpartition(b" ")[2])) for line in lines)


async def test_an_old_answer_stands_in_for_a_read_that_is_refused(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    shedding = {"streams_s": REACHED, "writes_s": REACHED, "reads_s": REACHED}
    cache = {"config_s": 0.1, "stale_while_revalidate_s": 0, "stale_if_error_s": 3600, "lease_s": 5}
    listen = {"port": 0, "drain_s": 2, "shedding": shedding}
    async with running(tmp_path, valkey_url, listen=listen, cache=cache, **PATIENT) as stage:
        assert (await asked(stage, client, "cached"))[0] == 200
        state = stage.gateway.parts.shedding
        with burden():
            async with asyncio.timeout(30):
                while not state.refused:
                    await asyncio.sleep(0.01)
            stage.sandbox.clear_requests()
            assert (await asked(stage, client, "cached"))[0] == 200
        assert not stage.sandbox.requests

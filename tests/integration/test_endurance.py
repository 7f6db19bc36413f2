"""What must not grow, and what must not break, however long it goes on: soaks, streams, transfers, leavings.

The default forms are short. The long ones (`-m long`) are the promises themselves. How many requests the soak
makes is set by `CBK_GATEWAY_SOAK_REQUESTS`: a million by default, which takes half an hour and more.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from cbk_gateway.store import Store
from harness import Stage, running
from told_api import JSONL, Asked, told, until

SOAK: Final = int(os.environ.get("CBK_GATEWAY_SOAK_REQUESTS", "1000000"))
COMPLETE: Final = "/api/v1/conversation/complete"
TOKEN: Final = b'{"type":"token","data":{"token":"\xc3\xa9 %05d"}}\n'
RESULT: Final = b'{"type":"result","data":{"text":"\xc3\xa9nd"}}\n'
MEBIBYTE: Final = 1024 * 1024
SIDE_BY_SIDE: Final = 25


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Soaking:
    """A client that does a bit of everything: of 20 requests 13 reads, 4 writes, 2 streams, 1 refusal.

    A quarter of the streams is left in its middle. What is made is deleted again: nothing is to grow.
    """

    def __init__(self, stage: Stage, client: aiohttp.ClientSession) -> None:
        self.stage = stage
        self.client = client
        self.url = f"{stage.url}/api/v1"
        self.fields = {**stage.bearer(), "Accept": "application/json"}
        self.made = 0
        self.streams = self.left = 0

    async def batch(self, count: int) -> None:
        """So many requests, some of them side by side, and everything behind them done."""
        while count > 0:
            rounds = min(SIDE_BY_SIDE, -(-count // 20))
            await asyncio.gather(*(self._twenty(self.made + one * 20) for one in range(rounds)))
            self.made += rounds * 20
            count -= rounds * 20
            self.stage.sandbox.clear_requests()
        await self.stage.gateway.parts.background.drain(20)
        # What a client left is still being cleared away.
        await until(lambda: len(self.stage.gateway.parts.open_streams) == 0)

    async def _twenty(self, number: int) -> None:
        identifier = (await self._post("bot/create", {"name": f"n{number}"}))["id"]
        for turn in range(6):
            await self._get(f"bot/list?take={(number + turn) % 40 + 1}", 200)
            await self._get(f"bot/{identifier}/fetch", 200)
        await self._post(f"bot/{identifier}/update", {"name": f"m{number}"})
        await self._stream(leaves=False)
        await self._stream(leaves=number % 40 == 0)
        await self._post(f"bot/{identifier}/delete", {})
        await self._get(f"bot/{identifier}/fetch", 404)
        await self._post("contact/create", {"name": 5}, status=400)
        async with self.client.get(f"{self.url}/bot/list", headers={"Authorization": "Bearer no"}) as answer:
            assert answer.status == 401

    async def _get(self, path: str, status: int) -> None:
        async with self.client.get(f"{self.url}/{path}", headers=self.fields) as answer:
            assert answer.status == status, await answer.read()
            await answer.read()

    async def _post(self, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
        async with self.client.post(f"{self.url}/{path}", json=body, headers=self.fields) as answer:
            assert answer.status == status, await answer.read()
            return dict(await answer.json())

    async def _stream(self, *, leaves: bool) -> None:
        fields = {**self.fields, "Accept": "application/jsonl"}
        body = {"messages": [{"type": "user", "text": "h\xe9llo"}]}
        async with self.client.post(f"{self.stage.url}{COMPLETE}", json=body, headers=fields) as answer:
            assert answer.status == 200
            self.streams += 1
            if leaves:
                await answer.content.readline()
                answer.close()
                self.left += 1
                return
            assert b'"type":"result"' in (await answer.read()).splitlines()[-1]


SOAKS = [
    pytest.param(1000, 3000, 48, id="short"),
    pytest.param(
        min(20_000, SOAK // 5), SOAK, 24, id="soak", marks=[pytest.mark.long, pytest.mark.timeout(7200)]
    ),
]


@pytest.mark.parametrize(("warm_up", "count", "most_mebibytes"), SOAKS)
async def test_mixed_requests_leave_nothing_behind(
    stage: Stage, client: aiohttp.ClientSession, warm_up: int, count: int, most_mebibytes: int
) -> None:
    """Reads, writes, streams, leavings and refusals: after the warm-up neither memory, nor tasks, nor
    descriptors grow."""
    soaking = Soaking(stage, client)
    await soaking.batch(warm_up)
    rows = sum(1 for _ in stage.sandbox.world.store.all_rows())
    tasks, files, sizes = len(asyncio.all_tasks()), descriptors(), [resident()]
    begun = time.monotonic()
    for _ in range(10):
        await soaking.batch(count // 10)
        sizes.append(resident())
    took = time.monotonic() - begun
    growth = (sizes[-1] - sizes[0]) / MEBIBYTE
    sys.stdout.write(
        f"\n{count} requests in {took:.0f} s ({count / took:.0f}/s), {soaking.streams} streams "
        f"({soaking.left} left); resident MiB {[round(size / MEBIBYTE) for size in sizes]}; "
        f"tasks {tasks} -> {len(asyncio.all_tasks())}, descriptors {files} -> {descriptors()}\n"
    )
    assert sum(1 for _ in stage.sandbox.world.store.all_rows()) == rows, "the sandbox itself grew"
    assert len(asyncio.all_tasks()) <= tasks + 10
    assert descriptors() <= files + 10
    assert growth < most_mebibytes


@pytest.fixture
def many_files() -> Iterator[None]:
    """Four descriptors for each stream: both ends of both hops."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16_384)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


STREAMS = [
    pytest.param(200, 3, 0.2, id="200-streams"),
    pytest.param(
        1000, 60, 1.0, id="1000-streams-for-a-minute", marks=[pytest.mark.long, pytest.mark.timeout(600)]
    ),
]


@pytest.mark.parametrize(("count", "events", "pause_s"), STREAMS)
async def test_streams_side_by_side_all_arrive_whole_at_bounded_memory(
    tmp_path: Path, valkey_url: str, store: Store, many_files: None, count: int, events: int, pause_s: float
) -> None:
    expected = b"".join(TOKEN % one for one in range(events)) + RESULT
    open_at_once = 0
    all_open = asyncio.Event()

    async def answer(one: Asked) -> None:
        nonlocal open_at_once
        await one.begin(JSONL)
        open_at_once += 1
        if open_at_once == count:
            all_open.set()
        await all_open.wait()
        for number in range(events):
            # In two pieces, so that characters and lines come cut; the pause is the upstream's own pace.
            event = TOKEN % number
            await one.chunk(event[:34], event[34:])
            await asyncio.sleep(pause_s)
        await one.chunk(RESULT)
        await one.end()

    async def read(client: aiohttp.ClientSession, stage: Stage, fields: dict[str, str]) -> bytes:
        async with client.post(stage.url + COMPLETE, json={"messages": []}, headers=fields) as given:
            assert given.status == 200
            return await given.read()

    async with told(answer) as api, running(tmp_path, valkey_url, sandbox_url=api.url) as stage:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as client:
            fields = {**stage.bearer(), "Accept": "application/jsonl"}
            begun = time.monotonic()
            reading: asyncio.Future[list[bytes]] = asyncio.gather(
                *(read(client, stage, fields) for _ in range(count))
            )
            await asyncio.wait_for(all_open.wait(), 100)
            assert len(stage.gateway.parts.open_streams) == count
            sizes = [resident()]
            while not reading.done():
                await asyncio.wait([reading], timeout=5)
                sizes.append(resident())
            answers = await reading
        await until(lambda: len(stage.gateway.parts.open_streams) == 0)
    whole = sum(one == expected for one in answers)
    sys.stdout.write(
        f"\n{count} streams open at once for {time.monotonic() - begun:.0f} s, {whole} whole; "
        f"resident MiB {[round(size / MEBIBYTE) for size in sizes]}\n"
    )
    assert whole == count
    assert max(sizes) - sizes[0] < 64 * MEBIBYTE


@pytest.mark.long
async def test_how_soon_the_upstream_hears_of_a_client_that_left(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    """That it hears of it at all, and by nothing but the leaving, other suites assert by events; here is
    how long it takes, for a stream, for a write without an answer and for an uncached read."""
    targets = {
        "stream": ("POST", COMPLETE),
        "write": ("POST", "/api/v1/bot/create"),
        "read": ("GET", "/api/v1/file/f1/download"),
    }

    async def answer(one: Asked) -> None:
        if one.target == COMPLETE:
            await one.begin(JSONL)
        await one.left.wait()

    async with told(answer) as api, running(tmp_path, valkey_url, sandbox_url=api.url) as stage:
        host, port = stage.url.removeprefix("http://").split(":")
        for name, (method, target) in targets.items():
            times = []
            for turn in range(100):
                body = f'{{"name":"n{turn:03d}"}}'
                head = (
                    f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stage.token()}\r\n"
                    + (
                        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                        if method == "POST"
                        else "\r\n"
                    )
                )
                _, writer = await asyncio.open_connection(host, int(port))
                seen = len(api.asked)
                writer.write(head.encode())
                await until(lambda seen=seen: len(api.asked) > seen)  # type: ignore[misc] # bound per turn
                begun = time.perf_counter()
                writer.transport.abort()
                await asyncio.wait_for(api.asked[-1].left.wait(), 30)
                times.append((time.perf_counter() - begun) * 1000)
            times.sort()
            sys.stdout.write(
                f"\n{name}: the upstream hears of a leaving after {statistics.median(times):.1f} ms "
                f"(median), {times[97]:.1f} ms (98 of 100), {times[-1]:.1f} ms (longest)\n"
            )
            # The promise is 100 ms; the longest of them says more about the machine than about the gateway.
            assert statistics.median(times) < 100

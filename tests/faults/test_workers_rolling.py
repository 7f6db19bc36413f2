"""A steady load while settings are reloaded and workers are rolled: every request is answered.

The client repeats nothing: a request that gets no answer, whatever it was, is a lost one. Like every client
that does not repeat, it sends nothing on a connection that has long been idle: a server may close one at any
time, and a request that crosses with the close is nobody's fault (RFC 9112, section 9.5). The long form has
the size that is promised, 1,000 requests/s through 20 reloads and 5 rolling restarts, and prints what rate
the machine gave; with fewer processors than programs it is lower.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from fleet_stage import FleetStage, serving, until

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
IDLE_S = 1.0
"""Half of what a draining worker gives idle connections here."""
CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Size:
    """How much load, and what happens meanwhile; half of the reloads change a setting and roll the fleet."""

    clients: int
    per_client_s: float
    reloads: int
    restarts: int
    write_each: int


SHORT = Size(clients=10, per_client_s=20, reloads=4, restarts=2, write_each=3)
LONG = Size(clients=40, per_client_s=25, reloads=20, restarts=5, write_each=20)


@dataclass(slots=True)
class Load:
    """Clients that keep their connections until told to close them, and pace themselves."""

    stage: FleetStage
    size: Size
    answered: int = 0
    created: int = 0
    lost: list[str] = field(default_factory=list)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self, number: int) -> None:
        bearer = self.stage.bearer()["Authorization"]
        place = urlsplit(self.stage.url)
        head = f"Host: {place.netloc}\r\nAuthorization: {bearer}\r\n"
        loop = asyncio.get_running_loop()
        due, turn = loop.time(), number
        streams, used_at = await asyncio.open_connection(place.hostname, place.port), loop.time()
        while not self.is_over.is_set():
            turn += 1
            if loop.time() - used_at > IDLE_S:
                streams[1].close()
                streams = await asyncio.open_connection(place.hostname, place.port)
            is_write = turn % self.size.write_each == 0
            try:
                stays_open = await self.request(*streams, head, f"{number}-{turn}", is_write=is_write)
            except (OSError, EOFError) as fault:
                self.lost.append(f"{number}-{turn} (write: {is_write}): {fault!r}")
                stays_open = False
            self.answered += 1
            used_at = loop.time()
            if not stays_open:
                streams[1].close()
                streams = await asyncio.open_connection(place.hostname, place.port)
            due = max(due + 1 / self.size.per_client_s, loop.time() - 1)
            await asyncio.sleep(max(0.0, due - loop.time()))
        streams[1].close()
        await streams[1].wait_closed()

    async def request(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        head: str,
        name: str,
        *,
        is_write: bool,
    ) -> bool:
        """One request and its whole answer; whether the connection may be used again."""
        if is_write:
            body = orjson.dumps({"name": name}).decode()
            sent = f"POST /api/v1/bot/create HTTP/1.1\r\nContent-Type: application/json\r\n{head}"
            sent += f"Content-Length: {len(body)}\r\n\r\n{body}"
        else:
            sent = f"GET /api/v1/dataset/list HTTP/1.1\r\n{head}\r\n"
        writer.write(sent.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(answer)
        assert length is not None, answer
        await reader.readexactly(int(length[1]))
        status = int(answer.split(b" ", 2)[1])
        if status != 200:
            self.lost.append(f"{name}: {status}")
        else:
            self.created += is_write
        return CLOSE.search(answer) is None


async def reload(stage: FleetStage, turn: int) -> str:
    """By signal and by an operator in turn; what came of it, as the log says."""
    # Two reloads find the same setting: the second one changes nothing.
    stage.change(telemetry={"tenant_cap": 200 + turn // 2})
    if turn % 4 < 2:
        stage.process.send_signal(signal.SIGHUP)
    else:
        assert (await stage.admin("POST", "/admin/reload"))[0] == 200

    async def told() -> str | None:
        results = [str(one["result"]) for one in stage.events if one["event"] == "reloaded"]
        return results[turn] if len(results) > turn else None

    return str(await until(told))


async def restart(stage: FleetStage, turn: int) -> None:
    before = await stage.workers()
    if turn % 2 == 0:
        stage.process.send_signal(signal.SIGUSR2)
    else:
        assert (await stage.admin("POST", "/admin/restart"))[0] == 200
    await stage.workers_other_than(before, 2)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", [SHORT, pytest.param(LONG, marks=pytest.mark.long)], ids=["short", "long"])
async def test_reloads_and_rolling_restarts_lose_no_request(
    size: Size, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path, workers=2, listen={"drain_s": 4}) as stage:
        load = Load(stage, size)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        clients = [asyncio.ensure_future(load.client(number)) for number in range(size.clients)]
        first = await stage.workers()
        results = [await reload(stage, turn) for turn in range(size.reloads)]
        assert results.count("applied") == size.reloads // 2 - 1, results
        assert results.count("unchanged") == size.reloads // 2 + 1
        for turn in range(size.restarts):
            await restart(stage, turn)
        load.is_over.set()
        await asyncio.gather(*clients)
        took_s = loop.time() - begun
        with capsys.disabled():
            sys.stdout.write(
                f"\n{load.answered} requests ({load.created} writes) in {took_s:.0f} s = "
                f"{load.answered / took_s:.0f}/s through {size.reloads} reloads and {size.restarts} "
                f"rolling restarts, {len(load.lost)} lost\n"
            )
        assert load.lost == []
        assert load.created > size.clients
        assert not set(first.values()) & set((await stage.workers()).values())

        async def is_counted() -> bool:
            return await stage.metric("cbk_gateway_requests_total") == load.answered

        # The counts of a worker that has just closed its doors arrive with its last words.
        await until(is_counted)
        assert await stage.stop() == 0

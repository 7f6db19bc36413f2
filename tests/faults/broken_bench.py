"""A gateway that reaches its sandbox through the breaking relay, and what is asked of the three of them."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cbk_gateway.sandbox import Sandbox
from faults.breaking_relay import HEAD_END, BreakingRelay, How, Passed, Plan
from harness import CHILDREN, KEYS, Stage, running
from told_api import gather, until

STALLED_TOGETHER = 60
"""Exchanges that are silent at the same time."""

CALM: dict[str, Any] = {
    "idle_s": 60,
    "breaker": {"enabled": False},
    "retry": {"first_wait_s": 0.001, "budget_reserve": 100_000},
    # Fixed: timeouts are signs of overload, and a bound that shrinks would let fewer and fewer rows through.
    "concurrency": {"least": 1000, "start": 1000, "most": 1000},
}
TALK = {"messages": [{"type": "user", "text": "h\xe9llo"}]}
IMPATIENT = {"first_byte_s": 3, "idle_s": 3, "total_s": 60}


@dataclass(frozen=True, slots=True)
class Row:
    """One exchange of the matrix."""

    request_id: str
    method: str
    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Got:
    """What the client got."""

    status: int
    body: bytes
    may_repeat: bool
    is_whole: bool


@dataclass
class Bench:
    """A gateway that reaches its sandbox through the relay, and its client."""

    stage: Stage
    relay: BreakingRelay
    session: aiohttp.ClientSession
    bearer: dict[str, str]
    got: dict[str, Got] = field(default_factory=dict)
    _numbers: Iterable[int] = field(default_factory=itertools.count)

    def row(self, method: str, plan: Plan | None = None, kind: str = "row") -> Row:
        """An exchange with an id of its own; all ids are equally long."""
        return Row(f"{kind:_<5}-{next(iter(self._numbers)):06d}", method, plan)

    async def ask(self, row: Row) -> None:
        """Make an exchange that no cache can answer and no shield takes for another."""
        fields = {**self.bearer, "X-Request-Id": row.request_id}
        api = f"{self.stage.url}/api/v1/bot"
        if row.request_id.startswith("prime"):
            # Of a class whose timeouts are the usual ones: it may have to wait for the others.
            url = f"{self.stage.url}/api/v1/file/{row.request_id}/download"
            asked = self.session.get(url, headers=fields)
        elif row.method == "GET":
            asked = self.session.get(f"{api}/{row.request_id}/fetch", headers=fields)
        elif row.method == "STREAM":
            fields["Accept"] = "application/jsonl"
            url = f"{self.stage.url}/api/v1/conversation/complete"
            asked = self.session.post(url, json=TALK, headers=fields)
        else:
            asked = self.session.post(f"{api}/create", json={"name": row.request_id}, headers=fields)
        async with asked as answer:
            may_repeat = answer.headers.get("x-should-retry") != "false"
            body, is_whole = bytearray(), True
            try:
                await gather(answer, body)
            except aiohttp.ClientPayloadError:
                is_whole = False
            self.got[row.request_id] = Got(answer.status, bytes(body), may_repeat, is_whole)

    async def sample(self, method: str) -> Passed:
        """An exchange that does not break: its bytes show where the borders are."""
        row = self.row(method)
        await self.ask(row)
        (passed,) = self.relay.attempts(row.request_id)
        assert passed.is_returned
        return passed

    async def ask_all(self, rows: list[Row], *, reused: bool) -> None:
        """Make these exchanges side by side, each on a connection of the wanted kind."""
        pool = self.stage.gateway.parts.upstream.pool
        pool.retire()
        if reused:
            self.relay.together = threading.Barrier(len(rows))
            await asyncio.gather(*(self.ask(self.row("GET", kind="prime")) for _ in rows))
            await until(lambda: pool.idle_count == len(rows))
        self.relay.plans = {row.request_id: row.plan for row in rows if row.plan is not None}
        await asyncio.gather(*(self.ask(row) for row in rows))

    def metric(self, name: str, **labels: str) -> float:
        """The sum over the series of this name with these labels."""
        text, _ = self.stage.gateway.parts.metrics.exposition()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
            if sample.name == f"cbk_gateway_{name}" and labels.items() <= sample.labels.items()
        )

    def objects(self) -> Counter[str]:
        """How many objects of each name the sandbox holds."""
        rows = self.stage.sandbox.world.store.all_rows()
        return Counter(str(row.body.get("name")) for row in rows if row.kind == "bot")


@asynccontextmanager
async def bench(
    folder: Path, store_url: str, how: How | None = None, listen: Mapping[str, object] | None = None
) -> AsyncIterator[Bench]:
    timeouts = {name: dict(IMPATIENT) for name in ("read", "write", "model") if how is How.STALL}
    accounts = {key: f"{name}-account" for name, key in KEYS.items()}
    async with Sandbox(accounts, CHILDREN) as sandbox:
        relay = BreakingRelay((sandbox.host, sandbox.port))
        with relay.running():
            upstream = {**CALM, "timeouts": timeouts}
            async with (
                running(
                    folder, store_url, sandbox_url=relay.url, upstream=upstream, listen=listen or {}
                ) as stage,
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            ):
                stage.sandbox = sandbox
                yield Bench(stage, relay, session, stage.bearer())


def kinds_of_places(message: bytes) -> Iterable[int]:
    """A byte of each kind: nothing, in and behind the first line, a field, the head, the body, everything."""
    line, head = message.index(b"\r\n"), message.index(HEAD_END)
    places = {0, 1, line // 2, line, line + 2, (line + head) // 2, head, head + 2, head + 4}
    return sorted(places | {(head + 4 + len(message)) // 2, len(message) - 1, len(message)})


def every_place(message: bytes) -> Iterable[int]:
    return range(len(message) + 1)


FORMS = [
    pytest.param(kinds_of_places, id="kinds-of-bytes"),
    pytest.param(every_place, id="every-byte", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
]


def passed_in_silence(row: Row) -> bool:
    return row.plan is not None and row.plan.how is How.STALL

"""Streams and repeated reads that break at a byte: half of one is never given for the whole."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from cbk_gateway.store import Store
from faults.breaking_relay import HEAD_END, How, Passed, Plan, Side
from faults.broken_bench import FORMS, STALLED_TOGETHER, Bench, Got, Row, bench, passed_in_silence


@pytest.mark.parametrize("places", FORMS)
@pytest.mark.parametrize("how", list(How), ids=str)
async def test_what_is_said_of_a_broken_stream_is_what_happened(
    tmp_path: Path, valkey_url: str, store: Store, how: How, places: Any
) -> None:
    """Once its head is out, a stream is whole, or ends in an error event and a broken connection."""
    async with bench(tmp_path, valkey_url, how) as one:
        example = await one.sample("STREAM")
        rows = [one.row("STREAM", Plan(Side.ANSWER, count, how)) for count in places(example.answer)]
        width = STALLED_TOGETHER if how is How.STALL else 1
        for begin in range(0, len(rows), width):
            await one.ask_all(rows[begin : begin + width], reused=False)
        await one.stage.gateway.stop()
        outcomes = {
            record["request_id"]: record for record in one.stage.journal() if record["kind"] == "outcome"
        }
        for row in rows:
            # A machine so busy that the relay never looked before the gateway gave up: nothing got through.
            unseen = [Passed(row.request_id, False, b"unseen")] if how is How.STALL else []
            (passed,) = one.relay.attempts(row.request_id) or unseen
            check_stream(row, one.got[row.request_id], passed, outcomes[row.request_id])
        endings = Counter(one_outcome.get("stream_end") for one_outcome in outcomes.values())
        sys.stdout.write(f"\n{len(rows)} streams, {how}: {dict(endings)}\n")


def check_stream(row: Row, got: Got, passed: Passed, outcome: dict[str, Any]) -> None:
    if not passed.has_returned_head:
        assert (got.status, got.may_repeat) == (504 if passed_in_silence(row) else 502, False), row
        assert (outcome["result"], outcome.get("stream_end")) == ("unknown", None), row
    elif passed.is_returned:
        assert (got.status, got.is_whole) == (200, True), row
        assert orjson.loads(got.body.splitlines()[-1])["type"] == "result", row
        assert (outcome["result"], outcome["stream_end"]) == ("answered", "complete"), row
    else:
        assert (got.status, got.is_whole) == (200, False), row
        *before, last = [orjson.loads(line) for line in got.body.splitlines()]
        assert last["type"] == "error", row
        assert "error" not in {event["type"] for event in before}, row
        assert (outcome["result"], outcome["stream_end"]) == ("answered", "truncated"), row


@pytest.mark.parametrize("places", FORMS)
@pytest.mark.parametrize("how", list(How), ids=str)
async def test_a_repeated_read_that_breaks_is_asked_for_anew(
    tmp_path: Path, valkey_url: str, store: Store, how: How, places: Any
) -> None:
    """Forwarded from its bytes, on a used connection: half an answer is thrown away, never given."""
    async with (
        bench(tmp_path, valkey_url, how, listen={"hot_path": "on"}) as one,
        contextlib.AsyncExitStack() as stack,
    ):
        one.relay.is_undated = True
        await one.ask(one.row("POST"))
        (made,) = [row.id for row in one.stage.sandbox.world.store.all_rows() if row.kind == "bot"]
        target = f"/api/v1/bot/{made}/fetch"
        width = STALLED_TOGETHER if how is How.STALL else 1
        readers = [Repeater(one, target) for _ in range(width)]
        for reader in readers:
            await stack.enter_async_context(reader.connected())
        example = await readers[0].armed()
        plans = [Plan(Side.REQUEST, count, how) for count in places(example.request)]
        plans += [Plan(Side.ANSWER, count, how) for count in places(example.answer)]
        for begin in range(0, len(plans), width):
            await asyncio.gather(
                *(
                    reader.check(plan, example.answer.partition(HEAD_END)[2])
                    for reader, plan in zip(readers, plans[begin : begin + width], strict=False)
                )
            )
        assert one.metric("requests_in_flight") == 0
        sys.stdout.write(f"\n{len(plans)} repeated reads, {how}: each answered whole, or refused in time\n")


@dataclass
class Repeater:
    """A client that sends the same bytes again and again over one connection."""

    bench: Bench
    target: str
    _number: int = field(default_factory=itertools.count().__next__)
    _wire: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        # A query of its own tells its exchanges from the other clients'.
        self.target += f"?client={self._number}"
        await self.dial()
        yield
        self.hang_up()

    async def dial(self) -> None:
        host, port = self.bench.stage.url.removeprefix("http://").split(":")
        self._wire = await asyncio.open_connection(host, int(port))

    def hang_up(self) -> None:
        if self._wire is not None:
            self._wire[1].close()

    @property
    def head(self) -> bytes:
        fields = {"Host": "api.test", "X-CBK-Cache": "bypass", **self.bench.bearer}
        lines = (f"GET {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()))
        return "\r\n".join((*lines, "", "")).encode()

    async def ask(self) -> tuple[int, bytes]:
        assert self._wire is not None
        reader, writer = self._wire
        writer.write(self.head)
        head = await reader.readuntil(HEAD_END)
        found = re.search(rb"Content-Length: (\d+)", head)
        assert found is not None, head
        return int(head.split(b" ", 2)[1]), await reader.readexactly(int(found[1]))

    async def armed(self) -> Passed:
        """Ask until the next request will be forwarded from its bytes; the last exchange."""
        hot_path = self.bench.stage.gateway.parts.hot_path
        assert hot_path is not None
        async with asyncio.timeout(30):
            while self.head not in hot_path.forwarder:
                assert (await self.ask())[0] == 200
        return [one for one in self.bench.relay.passed if one.target == self.target][-1]

    async def check(self, plan: Plan, body: bytes) -> None:
        await self.armed()
        relay = self.bench.relay
        seen = sum(one.target == self.target for one in relay.passed)
        relay.plans[self.target] = plan
        status, given = 0, b""
        try:
            status, given = await self.ask()
        except asyncio.IncompleteReadError:
            # No connection was at hand, so it was passed on as it came, and the break with it.
            self.hang_up()
            await self.dial()
        first, *more = [one for one in relay.passed if one.target == self.target][seen:]
        if plan.how is How.STALL and not first.is_returned and not more:
            # Who took so long is not asked again.
            assert status == 504 or (status == 0 and first.has_returned_head), plan
        else:
            assert (status, given) == (200, body), plan
            assert len(more) == (not first.is_returned), plan

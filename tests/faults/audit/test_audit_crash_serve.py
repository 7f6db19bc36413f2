"""`kill -9` of real workers of `serve` at random moments under load, seen from the API's side and the disk's.

Every write that reached the API has its intent; no line is torn; all chains verify after recovery; and what
clients were told of a write is what the journal says.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cbk_gateway.audit.verify import keys_at, verify
from fleet_stage import FleetStage, gone, serving

CLIENTS = 6
KILLS_PER_RUN = 5
AUDIT = {"segment_max_bytes": 60_000, "checkpoint_interval_s": 0.2, "resolve_after_s": 3600}


@dataclass(slots=True)
class Load:
    """Clients that write until told to stop, each body another's, and remember what they were answered."""

    stage: FleetStage
    bearer: dict[str, str]
    answered: dict[str, str] = field(default_factory=dict)
    broken: int = 0
    is_over: bool = False

    async def client(self, number: int) -> None:
        count = 0
        async with aiohttp.ClientSession(headers=self.bearer) as session:
            while not self.is_over:
                count += 1
                try:
                    async with session.post(
                        f"{self.stage.url}/api/v1/bot/create", json={"name": f"{number}-{count}"}
                    ) as answer:
                        document = orjson.loads(await answer.read())
                        if answer.status == 200:
                            self.answered[answer.headers["X-Request-Id"]] = document["id"]
                except aiohttp.ClientError:
                    self.broken += 1
                    await asyncio.sleep(0.02)

    async def until(self, more: int) -> None:
        """Wait until that many more writes were answered."""
        wanted = len(self.answered) + more
        async with asyncio.timeout(60):
            while len(self.answered) < wanted:
                await asyncio.sleep(0.005)


@dataclass(slots=True)
class Seen:
    """What was seen from outside over all runs."""

    reached: set[str] = field(default_factory=set)
    answered: dict[str, str] = field(default_factory=dict)
    broken: int = 0


def recorded(directory: Path) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Request ids of intents by name, and outcomes by name; a torn line or a second outcome fails here."""
    intents: dict[str, str] = {}
    outcomes: dict[str, dict[str, Any]] = {}
    for path in sorted(directory.rglob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            one = orjson.loads(line)
            if one["kind"] == "intent":
                intents[one["intent"]] = one["request_id"]
            elif one["kind"] == "outcome":
                assert one["intent"] not in outcomes, one
                outcomes[one["intent"]] = one
    return intents, outcomes


async def kill_under_load(folder: Path, dice: random.Random, kills: int, seen: Seen) -> None:
    """Serve, kill workers at random moments while clients write, and stop."""
    async with serving(folder, workers=2, audit=AUDIT) as stage:
        load = Load(stage, stage.bearer())
        clients = [asyncio.ensure_future(load.client(number)) for number in range(CLIENTS)]
        for _ in range(kills):
            await load.until(dice.randrange(5, 60))
            await asyncio.sleep(dice.random() / 50)  # anywhere within a write, a sync or a rotation
            victim = dice.choice(sorted((await stage.workers()).values()))
            os.kill(victim, signal.SIGKILL)
            await gone(victim)
            await stage.workers_other_than({"victim": victim}, 2)
        load.is_over = True
        await asyncio.gather(*clients)
        seen.reached |= {
            one.headers["x-request-id"] for one in stage.sandbox.requests if one.method == "POST"
        }
        seen.answered |= load.answered
        seen.broken += load.broken
        assert await stage.stop() == 0


@pytest.mark.parametrize(
    "rounds",
    [1, pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(1800)])],
    ids=["short", "long"],
)
async def test_no_write_that_reached_the_api_lacks_its_intent_after_kills(
    tmp_path: Path, rounds: int
) -> None:
    dice, seen = random.Random(rounds), Seen()
    # The supervisor waits ever longer between deaths of one run, so a run has a few and the next goes on.
    for start in range(0, rounds, KILLS_PER_RUN):
        await kill_under_load(tmp_path, dice, min(KILLS_PER_RUN, rounds - start), seen)
    directory = tmp_path / "audit"
    intents, outcomes = recorded(directory)
    assert seen.reached <= set(intents.values())
    assert set(outcomes) == set(intents)
    results = {one["request_id"]: one for one in outcomes.values()}
    for name, made in seen.answered.items():
        # An answer may reach its client a moment before its outcome reaches the disk, and the kill between.
        assert results[name]["result"] == "unknown" or results[name]["answer_ids"] == [made]
    report = verify(directory, keys_at(tmp_path / "audit.signing.pem"))
    assert report.is_good, report.findings
    unknown = sum(one["result"] == "unknown" for one in outcomes.values())
    assert {one["result"] for one in outcomes.values()} <= {"answered", "unknown", "not_sent"}
    print(  # noqa: T201 - the long form's figures
        f"{rounds} kills: {len(seen.reached)} writes reached the API, {len(intents)} intents, "
        f"{unknown} unknown, "
        f"{seen.broken} broken connections, {report.tally.records} records, {report.tally.segments} segments"
    )

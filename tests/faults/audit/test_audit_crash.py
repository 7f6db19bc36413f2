"""`kill -9` at random moments under load: nothing the upstream saw lacks an intent, nothing is torn.

This proves what recovery does; that records survive a loss of power is the power-cut suite's to prove.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from cbk_gateway.audit import Journal, JournalOptions, SilentObserver
from cbk_gateway.audit.verify import keys_at, verify

DIGEST_KEY = b"the key of the fault suites....."
CHILD = Path(__file__).with_name("writer_child.py")
SETTINGS = {"segment_max_bytes": 40_000, "checkpoint_interval_s": 0.05, "tasks": 8}


def run_and_kill(directory: Path, lines: int) -> set[str]:
    """Let a child write until that many acts went through, kill it, and return all that did."""
    command = [sys.executable, str(CHILD), "load", str(directory), orjson.dumps(SETTINGS).decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        seen = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        # What stands in the pipe was seen too; the last line may be half of one.
        rest = child.stdout.read()
    whole = b"".join(seen) + rest[: rest.rfind(b"\n") + 1]
    assert whole.count(b"\n") >= lines
    return set(whole.decode().split())


def records(directory: Path) -> list[dict[str, Any]]:
    """Every record; a line that is none fails here."""
    return [
        orjson.loads(line)
        for path in sorted(directory.rglob("*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


def opened_and_closed(found: list[dict[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """Request ids by name of intent; results by name of intent, each of which may be there once."""
    intents = {one["intent"]: one["request_id"] for one in found if one["kind"] == "intent"}
    outcomes: dict[str, str] = {}
    for one in found:
        if one["kind"] == "outcome":
            assert one["intent"] not in outcomes, one
            outcomes[one["intent"]] = one["result"]
    return intents, outcomes


@pytest.mark.parametrize("rounds", [4, pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
async def test_no_write_that_went_through_lacks_its_intent_after_kills(tmp_path: Path, rounds: int) -> None:
    dice = random.Random(rounds)
    directory = tmp_path / "journal"
    seen: set[str] = set()
    for _ in range(rounds):
        seen |= run_and_kill(directory, dice.randrange(1, 300))
    options = JournalOptions(directory, DIGEST_KEY, reserve_bytes=0, reserve_inodes=0)
    journal = Journal(options, SilentObserver(), "w0")
    await journal.start()
    await journal.stop()
    intents, outcomes = opened_and_closed(records(directory))
    assert seen <= set(intents.values())
    assert set(outcomes) == set(intents)
    assert set(outcomes.values()) == {"answered", "unknown"}
    report = verify(directory, keys_at(options.key_path))
    assert report.is_good, report.findings

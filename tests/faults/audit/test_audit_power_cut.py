"""Loss of power: whatever was not synced is gone, and still every write that went through keeps its intent.

A preloaded library notes what was synced when. After the kill, each segment is cut back to what it was
promised to hold (or worse: to a part of the unsynced rest, or with zeros in its place), and files whose
directory entry was not synced vanish. The control neutralises the sync and must lose records: a suite
that cannot fail proves nothing.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from cbk_gateway.audit import Journal, JournalOptions, SilentObserver
from cbk_gateway.audit.verify import Report, keys_at, verify

DIGEST_KEY = b"the key of the fault suites....."
HERE = Path(__file__).parent
SETTINGS = {"segment_max_bytes": 30_000, "checkpoint_interval_s": 0.05, "tasks": 8}


class Machine:
    """A computer whose plug can be pulled."""

    def __init__(self, root: Path, preload: Path, mood: str) -> None:
        self.directory = root / "journal"
        self._log = root / "syncs"
        self._mood = root / "mood"
        self._mood.write_text(mood)
        self._environment = {
            **os.environ,
            "LD_PRELOAD": str(preload),
            "CBK_DISK_ROOT": str(self.directory),
            "CBK_DISK_LOG": str(self._log),
            "CBK_DISK_MODE": str(self._mood),
        }
        self._log.write_bytes(b"")

    def run_until(self, lines: int) -> set[str]:
        """Write until that many acts went through, then pull the plug on the process."""
        command = [
            sys.executable, str(HERE / "writer_child.py"), "load", str(self.directory),
            orjson.dumps(SETTINGS).decode(),
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=self._environment) as child:
            assert child.stdout is not None
            seen = [child.stdout.readline() for _ in range(lines)]
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read()
        return set((b"".join(seen) + rest[: rest.rfind(b"\n") + 1]).decode().split())

    def lose_unsynced(self, spoil: Callable[[bytes], bytes]) -> None:
        """Leave on disk what was synced; `spoil` makes what became of the rest."""
        synced: dict[str, int] = {}
        durable: set[str] = set()
        fresh: dict[str, set[str]] = {}
        for line in self._log.read_text().splitlines():
            event, size, name = line.split(" ", 2)
            if event == "C":
                fresh.setdefault(str(Path(name).parent), set()).add(name)
            elif event == "D":
                durable |= fresh.pop(name, set())
            else:
                synced[name] = int(size)
        for path in self.directory.rglob("*.jsonl"):
            if str(path) not in durable:
                path.unlink()
                continue
            content = path.read_bytes()
            promised = synced.get(str(path), 0)
            path.write_bytes(content[:promised] + spoil(content[promised:]))

    def note_all_durable(self) -> None:
        """After a repair: what is there now counts as synced."""
        lines: list[str] = []
        for path in sorted(self.directory.rglob("*.jsonl")):
            lines += [f"C 0 {path}", f"D 0 {path.parent}", f"S {path.stat().st_size} {path}"]
        self._log.write_text("\n".join([*lines, ""]))


def vanishes(_: bytes) -> bytes:
    """Nothing unsynced reached the disk."""
    return b""


def half(rest: bytes) -> bytes:
    """Some of it did."""
    return rest[: len(rest) // 2]


def zeros(rest: bytes) -> bytes:
    """The size was written before the pages."""
    return b"\0" * len(rest)


def holes(rest: bytes) -> bytes:
    """Later pages were written and earlier ones not."""
    return b"\0" * (len(rest) // 2) + rest[len(rest) // 2 :]


async def intents_after_power_returns(directory: Path) -> tuple[set[str], Report]:
    """Start and stop a journal there, then read what it has."""
    options = JournalOptions(directory, DIGEST_KEY, reserve_bytes=0, reserve_inodes=0)
    journal = Journal(options, SilentObserver(), "w0")
    await journal.start()
    await journal.stop()
    return request_ids(directory), verify(directory, keys_at(options.key_path))


def request_ids(directory: Path) -> set[str]:
    """Request ids of all intents there; a line that is no record fails here."""
    lines = (line for path in directory.rglob("*.jsonl") for line in path.read_bytes().splitlines())
    return {one["request_id"] for one in map(orjson.loads, lines) if one["kind"] == "intent"}


@pytest.mark.parametrize("spoil", [vanishes, half, zeros, holes])
@pytest.mark.parametrize("rounds", [1, pytest.param(12, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
async def test_every_write_that_went_through_keeps_an_intact_record(
    tmp_path: Path, preload: Path, spoil: Callable[[bytes], bytes], rounds: int
) -> None:
    dice = random.Random(rounds)
    machine = Machine(tmp_path, preload, "o")
    seen: set[str] = set()
    for _ in range(rounds):
        seen |= machine.run_until(dice.randrange(50, 400))
        machine.lose_unsynced(spoil)
        kept, report = await intents_after_power_returns(machine.directory)
        assert seen <= kept
        assert report.is_good, report.findings
        machine.note_all_durable()


async def test_the_control_without_syncs_loses_records(tmp_path: Path, preload: Path) -> None:
    machine = Machine(tmp_path, preload, "n")
    seen = machine.run_until(200)
    machine.lose_unsynced(vanishes)
    kept, _ = await intents_after_power_returns(machine.directory)
    assert len(seen - kept) >= 100

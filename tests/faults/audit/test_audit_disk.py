"""Bad disks under a real process: refuse or go on as documented, never hang, never lose an intent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from cbk_gateway.audit.verify import keys_at, verify

HERE = Path(__file__).parent


class Served:
    """A process with a journal that does as it is told, on a disk whose mood the test sets."""

    def __init__(self, root: Path, child: subprocess.Popen[bytes]) -> None:
        self.directory = root / "journal"
        self._mood = root / "mood"
        self._child = child
        self.accepted: set[str] = set()

    def mood(self, letter: str) -> None:
        """See `disk.c`."""
        self._mood.write_text(letter)

    def tell(self, command: str) -> dict[str, Any]:
        """Give one command and wait for its answer: that there is one is half of what is tested."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(command.encode() + b"\n")
        self._child.stdin.flush()
        return dict(orjson.loads(self._child.stdout.readline()))

    def intend(self, request_id: str) -> str | None:
        """Ask for an intent; returns why it was refused, None when it was not."""
        refused = self.tell(f"intend {request_id}")["refused"]
        if refused is None:
            self.accepted.add(request_id)
        return None if refused is None else str(refused)

    def intend_until(self, wanted: str | None, prefix: str) -> None:
        """Ask until the answer is this one; what comes before it depends on who is faster."""
        answers = [self.intend(f"{prefix}-0")]
        while answers[-1] != wanted:
            answers.append(self.intend(f"{prefix}-{len(answers)}"))
            assert len(answers) < 2000, answers[-5:]

    def recorded(self) -> set[str]:
        """Request ids of the intents in the journal."""
        lines = (line for path in self.directory.rglob("*.jsonl") for line in path.read_bytes().splitlines())
        return {one["request_id"] for one in map(orjson.loads, lines) if one["kind"] == "intent"}


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path, preload: Path) -> Serve:
    """Starts the process; leaving the context stops it and checks what every case must leave behind."""

    @contextmanager
    def serving(**settings: object) -> Iterator[Served]:
        (tmp_path / "mood").write_text("o")
        directory = tmp_path / "journal"
        environment = {
            **os.environ,
            "LD_PRELOAD": str(preload),
            "CBK_DISK_ROOT": str(directory),
            "CBK_DISK_MODE": str(tmp_path / "mood"),
        }
        given = orjson.dumps({"deadline_s": 20.0, **settings}).decode()
        command = [sys.executable, str(HERE / "writer_child.py"), "serve", str(directory), given]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        ) as child:
            assert child.stdout is not None
            assert orjson.loads(child.stdout.readline()) == {"ready": True}
            served = Served(tmp_path, child)
            yield served
            assert child.stdin is not None
            child.stdin.close()
            assert orjson.loads(child.stdout.readline()) == {"stopped": True}
        assert served.accepted <= served.recorded()
        report = verify(directory, keys_at(tmp_path / "journal.signing.pem"))
        assert report.is_good, report.findings

    return serving


@pytest.mark.parametrize("mood", ["w", "r", "e"], ids=["full", "read-only", "sync-fails"])
def test_a_disk_that_takes_nothing_refuses_writes_until_it_is_well(serve: Serve, mood: str) -> None:
    with serve() as served:
        assert served.intend("before") is None
        served.mood(mood)
        for number in range(3):
            assert served.intend(f"during-{number}") == "audit_disk"
        served.mood("o")
        assert served.intend("after") is None
    assert {"before", "after"} <= served.recorded()


def test_a_full_disk_leaves_no_refused_intent_behind(serve: Serve) -> None:
    with serve() as served:
        served.mood("w")
        assert served.intend("refused") == "audit_disk"
        served.mood("o")
        assert served.intend("after") is None
    assert served.recorded() == {"after"}


def test_one_failed_sync_costs_a_segment_and_no_write(serve: Serve) -> None:
    with serve() as served:
        assert served.intend("before") is None
        served.mood("1")
        assert served.intend("during") is None
        assert served.tell("flush")["segment"] == 2
    assert served.recorded() == {"before", "during"}


def test_a_hanging_sync_refuses_at_the_deadline_and_recovers(serve: Serve) -> None:
    with serve(deadline_s=0.3) as served:
        assert served.intend("before") is None
        served.mood("h")
        assert served.intend("caught") == "audit_deadline"
        served.intend_until("audit_stalled", "next")
        served.mood("o")
        served.intend_until(None, "after")


def test_a_slow_sync_slows_writes_and_refuses_none(serve: Serve) -> None:
    with serve() as served:
        served.mood("s")
        for number in range(10):
            assert served.intend(f"slow-{number}") is None
            served.tell(f"close slow-{number}")


def test_a_deleted_directory_is_written_anew(serve: Serve) -> None:
    with serve() as served:
        assert served.intend("before") is None
        shutil.rmtree(served.directory)
        assert served.intend("after") is None
    assert served.recorded() == {"before", "after"}


def test_a_replaced_file_is_set_aside_and_its_records_put_back(serve: Serve) -> None:
    with serve() as served:
        assert served.intend("before") is None
        (segment,) = served.directory.rglob("*.jsonl")
        segment.unlink()
        segment.write_text("somebody else's")
        assert served.intend("after") is None
        assert [one.read_text() for one in segment.parent.glob("*.foreign-*")] == ["somebody else's"]
    assert served.recorded() == {"before", "after"}


@pytest.mark.parametrize("mood", ["f", "i"], ids=["bytes", "inodes"])
def test_the_reserve_stops_writes_and_changes_and_takes_outcomes(serve: Serve, mood: str) -> None:
    with serve(reserve_bytes=100_000, reserve_inodes=10) as served:
        assert served.intend("before") is None
        served.mood(mood)
        served.intend_until("audit_space", "during")
        assert served.tell("change")["refused"] == "audit_space"
        assert served.tell("state")["trouble"] == "space"
        served.tell("close before")
        assert served.tell("flush")["refused"] is None
        content = b"".join(path.read_bytes() for path in served.directory.rglob("*.jsonl"))
        assert (content.count(b'"result":"answered"'), content.count(b'"change"')) == (1, 0)
        served.mood("o")
        served.intend_until(None, "after")


@pytest.mark.parametrize("mood", ["w", "r", "e"], ids=["full", "read-only", "sync-fails"])
def test_a_change_that_was_refused_is_never_recorded(serve: Serve, mood: str) -> None:
    with serve() as served:
        served.mood(mood)
        assert served.tell("change")["refused"] == "audit_disk"
        served.mood("o")
        assert served.intend("after") is None
        assert served.tell("flush")["refused"] is None
        content = b"".join(path.read_bytes() for path in served.directory.rglob("*.jsonl"))
        assert b'"change"' not in content


def test_outcomes_wait_for_the_disk_and_are_not_lost(serve: Serve) -> None:
    with serve() as served:
        for number in range(20):
            assert served.intend(f"r{number}") is None
        served.mood("w")
        for number in range(20):
            served.tell(f"close r{number}")
        assert served.intend("refused") == "audit_disk"
        served.mood("o")
        assert served.tell("flush")["refused"] is None
        content = b"".join(path.read_bytes() for path in served.directory.rglob("*.jsonl"))
        assert content.count(b'"result":"answered"') == 20

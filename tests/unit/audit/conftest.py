"""A journal on a temporary disk, acts to put into it, and a disk that misbehaves on command."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from cbk_gateway.audit import Act, Journal, JournalOptions, SilentObserver
from cbk_gateway.audit.disk import Disk, FreeSpace
from cbk_gateway.operation import understand

DIGEST_KEY = b"a key for the tests, 32 bytes..."


class Counts(SilentObserver):
    """Remembers what the journal reported."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def of(self, name: str) -> list[object]:
        """What was reported under a name, in order."""
        return [value for event, value in self.events if event == name]

    def committed(self, records: int, size_bytes: int, sync_s: float) -> None:  # noqa: ARG002 - its signature
        self.events.append(("committed", records))

    def refused(self, reason: str) -> None:
        self.events.append(("refused", reason))

    def allowed(self, reason: str) -> None:
        self.events.append(("allowed", reason))

    def dropped(self, kind: str) -> None:
        self.events.append(("dropped", kind))

    def segment_opened(self, reason: str) -> None:
        self.events.append(("segment_opened", reason))

    def recovered(self, open_intents: int) -> None:
        self.events.append(("recovered", open_intents))


class BadDisk(Disk):
    """A real disk whose calls fail, hang or lie when told to.

    `fails` maps a call's name to the errors of its next calls; an int stands for ever until removed.
    """

    def __init__(self) -> None:
        self.fails: dict[str, list[int] | int] = {}
        self.free_space = FreeSpace(1 << 40, 1 << 20)
        self.gate = threading.Event()
        self.gate.set()
        self.is_waiting = threading.Event()

    def _fail(self, call: str) -> None:
        planned = self.fails.get(call)
        number = planned.pop(0) if isinstance(planned, list) and planned else planned
        if isinstance(number, int) and number:
            raise OSError(number, os.strerror(number))

    def create(self, path: Path) -> int:
        self._fail("create")
        return super().create(path)

    def write(self, fd: int, content: bytes) -> None:
        planned = self.fails.get("write")
        if planned:
            os.write(fd, content[: len(content) // 2])  # a full disk takes a part and then no more
        self._fail("write")
        super().write(fd, content)

    def sync(self, fd: int) -> None:
        self.is_waiting.set()
        self.gate.wait()
        self._fail("sync")
        super().sync(fd)

    def truncate(self, fd: int, size: int) -> None:
        self._fail("truncate")
        super().truncate(fd, size)

    def free(self, path: Path) -> FreeSpace:  # noqa: ARG002 - its signature
        return self.free_space


async def until(holds: Callable[[], bool], deadline_s: float = 20.0) -> None:
    """Wait for a condition that another thread brings about."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    for _ in iter(holds, True):
        assert loop.time() < end, "it did not come about"
        await asyncio.sleep(0.005)


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[None]]:
    return until


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def bad_disk() -> BadDisk:
    return BadDisk()


@pytest.fixture
def options(tmp_path: Path) -> JournalOptions:
    return JournalOptions(
        tmp_path / "journal", DIGEST_KEY, deadline_s=30.0, reserve_bytes=0, reserve_inodes=0
    )


@pytest.fixture
async def journal(options: JournalOptions, counts: Counts) -> AsyncIterator[Journal]:
    one = Journal(options, counts, "w0")
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
def act() -> Callable[..., Act]:
    """Makes an act; anything about it may be said by name."""

    def make(
        request_id: str = "r1", method: str = "POST", target: str = "/api/v1/bot/b1/update", **other: Any
    ) -> Act:
        who = {"tenant": "acme", "subject": "app", **other}
        return Act(request_id=request_id, operation=understand(method, target), **who)

    return make


@pytest.fixture
def read() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads every record of a journal, chain by chain."""

    def records(directory: Path) -> list[dict[str, Any]]:
        return [
            orjson.loads(line)
            for path in sorted(directory.rglob("*.jsonl"))
            for line in path.read_bytes().splitlines()
        ]

    return records

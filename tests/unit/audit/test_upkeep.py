"""Upkeep: sweeps and shipping run beside the journal, and what is not shipped is not removed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.audit import Journal, JournalOptions, Outcome, Result, SilentObserver
from cbk_gateway.audit.reading import segments
from cbk_gateway.audit.retention import KEPT_NEWEST, RetentionOptions
from cbk_gateway.audit.sinks import Batch, Shipper, ShipperOptions, SinkFault
from cbk_gateway.audit.upkeep import Upkeep
from cbk_gateway.audit.verify import keys_at, verify

OLD = RetentionOptions(compress_after_s=None, max_age_s=60.0)


def much_later() -> datetime:
    return datetime.now(UTC) + timedelta(days=2)


class Door:
    """A sink that takes batches once it is opened."""

    name = "door"

    def __init__(self) -> None:
        self.is_open = False
        self.is_closed = False
        self.records = 0

    async def send(self, batch: Batch) -> None:
        if not self.is_open:
            raise SinkFault("shut")
        self.records += len(batch.lines)

    async def close(self) -> None:
        self.is_closed = True


@pytest.fixture
async def sample(options: JournalOptions, act: Any) -> JournalOptions:
    small = replace(options, segment_max_bytes=4000)
    journal = Journal(small, SilentObserver(), "w0")
    await journal.start()
    for number in range(30):
        (await journal.intend(act(f"r{number}"))).close(Outcome(Result.ANSWERED))
    await journal.stop()
    return small


async def test_what_is_not_shipped_is_not_removed(
    sample: JournalOptions, tmp_path: Path, until: Callable[..., Awaitable[None]]
) -> None:
    door = Door()
    patient = ShipperOptions(batch_records=10, poll_s=0.01, backoff_s=0.01, backoff_max_s=0.02)
    shipper = Shipper(sample.directory, door, tmp_path / "positions", patient)
    upkeep = Upkeep(sample.directory, sample.key_path, OLD, [shipper], interval_s=0.02, clock=much_later)
    await upkeep.start()
    count = len(segments(sample.directory / "w0"))
    await until(lambda: upkeep.last_swept is not None)
    assert len(segments(sample.directory / "w0")) == count
    door.is_open = True
    await until(lambda: len(segments(sample.directory / "w0")) == KEPT_NEWEST)
    await upkeep.stop()
    assert door.is_closed
    report = verify(sample.directory, keys_at(sample.key_path))
    assert report.is_good, report.findings


async def test_two_sweeps_at_once_do_the_work_once(sample: JournalOptions) -> None:
    count = len(segments(sample.directory / "w0"))
    both = [Upkeep(sample.directory, sample.key_path, OLD, clock=much_later) for _ in range(2)]
    swept = await asyncio.gather(*(one.sweep_once() for one in both))
    assert sum(one.removed for one in swept if one is not None) == count - KEPT_NEWEST
    assert verify(sample.directory, keys_at(sample.key_path)).is_good


async def test_a_journal_that_is_not_there_is_reported_and_waited_for(options: JournalOptions) -> None:
    assert await Upkeep(options.directory, options.key_path, OLD).sweep_once() is None

"""Records of changes: durable before the change is made, and none left of a change that was refused."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.audit import Journal, JournalOptions
from cbk_gateway.audit.disk import FreeSpace
from cbk_gateway.errors import AuditUnavailable

Read = Callable[[Path], list[dict[str, Any]]]
Until = Callable[..., Awaitable[None]]
PURGE = {"operator": "ops", "change": "cache.purge"}


def changes(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of changes; the journal's own probes of a bad disk are none."""
    return [one for one in records if one["kind"] == "admin" and "change" in one]


async def start(options: JournalOptions, counts: Any, disk: Any) -> Journal:
    journal = Journal(options, counts, "w0", disk=disk)
    await journal.start()
    return journal


@pytest.mark.parametrize("free", [FreeSpace(100, 10_000), FreeSpace(1 << 40, 3)], ids=["bytes", "inodes"])
async def test_the_reserve_is_not_for_changes(
    *,
    options: JournalOptions,
    counts: Any,
    bad_disk: Any,
    read: Read,
    free: FreeSpace,
    until: Until,
) -> None:
    journal = await start(replace(options, reserve_bytes=1000, reserve_inodes=10), counts, bad_disk)
    bad_disk.free_space = free
    await until(lambda: journal.trouble == "space")
    with pytest.raises(AuditUnavailable) as refusal:
        await journal.record("admin", PURGE)
    assert refusal.value.reason == "audit_space"
    await journal.stop()
    assert changes(read(options.directory)) == []


async def test_a_change_refused_by_a_failing_disk_never_reaches_the_journal(
    options: JournalOptions, counts: Any, bad_disk: Any, read: Read
) -> None:
    journal = await start(options, counts, bad_disk)
    bad_disk.fails["write"] = errno.ENOSPC
    with pytest.raises(AuditUnavailable) as refusal:
        await journal.record("admin", PURGE)
    assert refusal.value.reason == "audit_disk"
    bad_disk.fails.clear()
    await journal.record("admin", {**PURGE, "account": "made"})
    await journal.stop()
    assert [one.get("account") for one in changes(read(options.directory))] == ["made"]


async def test_a_change_that_waits_behind_a_hanging_sync_is_withdrawn_at_the_deadline(
    options: JournalOptions, counts: Any, bad_disk: Any, act: Any, read: Read
) -> None:
    journal = await start(replace(options, deadline_s=0.2), counts, bad_disk)
    bad_disk.gate.clear()
    bad_disk.is_waiting.clear()
    writing = asyncio.create_task(journal.intend(act("in hand")))
    await asyncio.to_thread(bad_disk.is_waiting.wait)
    with pytest.raises(AuditUnavailable) as refusal:
        await journal.record("admin", PURGE)
    assert refusal.value.reason == "audit_deadline"
    with pytest.raises(AuditUnavailable):
        await writing
    bad_disk.gate.set()
    await journal.stop()
    assert changes(read(options.directory)) == []


@pytest.mark.parametrize("leaves", [False, True], ids=["deadline", "cancelled"])
async def test_a_change_whose_record_came_too_late_is_taken_back(
    *, options: JournalOptions, counts: Any, bad_disk: Any, read: Read, leaves: bool
) -> None:
    journal = await start(replace(options, deadline_s=30.0 if leaves else 0.2), counts, bad_disk)
    bad_disk.gate.clear()
    bad_disk.is_waiting.clear()
    changing = asyncio.create_task(journal.record("admin", PURGE))
    await asyncio.to_thread(bad_disk.is_waiting.wait)
    if leaves:
        changing.cancel()
    with pytest.raises(asyncio.CancelledError if leaves else AuditUnavailable):
        await changing
    bad_disk.gate.set()
    await journal.stop()
    late, taken_back = changes(read(options.directory))
    assert late["record_id"] == taken_back["record_id"]
    assert (late.get("result"), taken_back["result"]) == (None, "not_made")
    assert taken_back["reason"] == ("audit_cancelled" if leaves else "audit_deadline")


async def test_a_change_on_a_disk_that_hangs_already_is_refused_at_once(
    options: JournalOptions, counts: Any, bad_disk: Any, act: Any, read: Read, until: Until
) -> None:
    journal = await start(replace(options, deadline_s=0.1), counts, bad_disk)
    bad_disk.gate.clear()
    with pytest.raises(AuditUnavailable):
        await journal.intend(act("caught"))
    await until(lambda: journal.trouble == "stalled")
    with pytest.raises(AuditUnavailable) as refusal:
        await journal.record("admin", PURGE)
    assert refusal.value.reason == "audit_stalled"
    bad_disk.gate.set()
    await journal.stop()
    assert changes(read(options.directory)) == []


async def test_a_stopped_journal_takes_no_changes(options: JournalOptions, counts: Any) -> None:
    journal = Journal(options, counts, "w0")
    for ask in (journal.record("admin", PURGE), journal.flushed()):
        with pytest.raises(AuditUnavailable) as refusal:
            await ask
        assert refusal.value.reason == "audit_stopped"

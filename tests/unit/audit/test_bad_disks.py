"""Disks that fail, hang, fill up or lose files: what the journal does about each of them."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.audit import (
    Journal,
    JournalOptions,
    OnFailure,
    Outcome,
    Result,
)
from cbk_gateway.audit.disk import FreeSpace
from cbk_gateway.audit.verify import keys_at, verify
from cbk_gateway.errors import AuditUnavailable

Read = Callable[[Path], list[dict[str, Any]]]
Until = Callable[..., Awaitable[None]]
ANSWERED = Outcome(Result.ANSWERED, status=200)


def kinds(records: list[dict[str, Any]]) -> list[str]:
    """Kinds of records without the segment's own."""
    return [record["kind"] for record in records if record["kind"] not in {"segment", "checkpoint", "seal"}]


async def test_a_hanging_disk_refuses_at_the_deadline_and_then_at_once(
    *, options: JournalOptions, counts: Any, bad_disk: Any, act: Any, read: Read, until: Until
) -> None:
    journal = Journal(replace(options, deadline_s=0.2), counts, "w0", disk=bad_disk)
    await journal.start()
    bad_disk.gate.clear()
    with pytest.raises(AuditUnavailable) as refusal:
        await journal.intend(act("late"))
    assert refusal.value.reason == "audit_deadline"
    await until(lambda: journal.trouble == "stalled")
    assert not journal.is_healthy
    with pytest.raises(AuditUnavailable) as refusal:
        await journal.intend(act("next"))
    assert refusal.value.reason == "audit_stalled"
    bad_disk.gate.set()
    await journal.stop()
    late = [one for one in read(options.directory) if one.get("request_id") == "late"]
    assert [(one["kind"], one.get("result")) for one in late] == [("intent", None), ("outcome", "not_sent")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
async def test_a_failed_write_refuses_and_leaves_no_half_line(
    *, options: JournalOptions, counts: Any, bad_disk: Any, act: Any, read: Read, number: int
) -> None:
    journal = Journal(options, counts, "w0", disk=bad_disk)
    await journal.start()
    (await journal.intend(act("before"))).close(ANSWERED)
    bad_disk.fails["write"] = number
    with pytest.raises(AuditUnavailable) as refusal:
        await journal.intend(act("during"))
    assert refusal.value.reason == "audit_disk"
    assert journal.trouble == "disk"
    bad_disk.fails.clear()
    await journal.intend(act("after"))
    assert journal.is_healthy
    await journal.stop()
    records = read(options.directory)
    assert [one["seq"] for one in records] == list(range(1, len(records) + 1))
    assert [one["request_id"] for one in records if one["kind"] == "intent"] == ["before", "after"]


async def test_an_outcome_survives_a_disk_that_fails_for_a_while(
    *, options: JournalOptions, counts: Any, bad_disk: Any, act: Any, read: Read, until: Until
) -> None:
    journal = Journal(options, counts, "w0", disk=bad_disk)
    await journal.start()
    intent = await journal.intend(act("r1"))
    bad_disk.fails["write"] = errno.ENOSPC
    intent.close(ANSWERED)
    await until(lambda: journal.trouble == "disk")
    bad_disk.fails.clear()
    await intent.closed_durably()
    assert kinds(read(options.directory)) == ["intent", "outcome"]
    await journal.stop()


async def test_a_segment_whose_sync_failed_is_given_up_and_its_records_written_anew(
    options: JournalOptions, counts: Any, bad_disk: Any, act: Any, read: Read
) -> None:
    journal = Journal(options, counts, "w0", disk=bad_disk)
    await journal.start()
    await journal.intend(act("before"))
    bad_disk.fails["sync"] = [errno.EIO]
    intent = await journal.intend(act("during"))
    assert intent.is_durable
    assert journal.position[0] == 2
    assert counts.of("segment_opened") == ["started", "lost"]
    await journal.stop()
    records = read(options.directory)
    header = next(one for one in records if one["kind"] == "segment" and one["segment"] == 2)
    assert header["lost"] == {"segment": 1, "reason": "sync_failed", "after_seq": 2}
    assert [one["request_id"] for one in records if one["kind"] == "intent"] == ["before", "during"]


async def test_a_journal_gets_well_by_itself_when_its_disk_does(
    options: JournalOptions, counts: Any, bad_disk: Any, act: Any, until: Until
) -> None:
    """A gateway that is not ready gets no writes, so the next write cannot be what finds out."""
    journal = Journal(options, counts, "w0", disk=bad_disk)
    await journal.start()
    bad_disk.fails["write"] = errno.ENOSPC
    with pytest.raises(AuditUnavailable):
        await journal.intend(act())
    assert not journal.is_healthy
    bad_disk.fails.clear()
    await until(lambda: journal.is_healthy)
    await journal.stop()


async def test_half_a_line_that_cannot_be_cut_off_is_left_behind_and_explained(
    options: JournalOptions, counts: Any, bad_disk: Any, act: Any
) -> None:
    journal = Journal(options, counts, "w0", disk=bad_disk)
    await journal.start()
    await journal.intend(act("before"))
    bad_disk.fails.update(write=errno.EIO, truncate=errno.EIO)
    with pytest.raises(AuditUnavailable):
        await journal.intend(act("during"))
    bad_disk.fails.clear()
    (await journal.intend(act("after"))).close(ANSWERED)
    await journal.stop()
    report = verify(options.directory, keys_at(options.key_path))
    assert report.is_good, report.findings
    assert [one.kind for one in report.findings] == ["note"]


async def test_a_write_refused_at_once_leaves_no_record(
    options: JournalOptions, counts: Any, bad_disk: Any, act: Any, read: Read
) -> None:
    journal = Journal(options, counts, "w0", disk=bad_disk)
    await journal.start()
    bad_disk.fails["write"] = errno.ENOSPC
    for _ in range(5):
        with pytest.raises(AuditUnavailable):
            await journal.intend(act())
    bad_disk.fails.clear()
    await journal.stop()
    assert set(kinds(read(options.directory))) <= {"admin"}


async def test_a_disk_that_never_syncs_refuses_every_write(
    options: JournalOptions, counts: Any, bad_disk: Any, act: Any
) -> None:
    journal = Journal(options, counts, "w0", disk=bad_disk)
    await journal.start()
    bad_disk.fails["sync"] = errno.EIO
    for _ in range(3):
        with pytest.raises(AuditUnavailable):
            await journal.intend(act())
    bad_disk.fails.clear()
    assert (await journal.intend(act())).is_durable
    await journal.stop()


async def test_a_deleted_segment_is_put_back_and_a_new_one_begun(
    journal: Journal, counts: Any, act: Any, read: Read
) -> None:
    await journal.intend(act("before"))
    next(journal.options.directory.rglob("*.jsonl")).unlink()
    await journal.intend(act("after"))
    records = read(journal.options.directory)
    assert [one["request_id"] for one in records if one["kind"] == "intent"] == ["before", "after"]
    lost = [one["lost"] for one in records if "lost" in one]
    assert lost == [{"segment": 1, "reason": "file_missing", "restored": True}]
    assert counts.of("segment_opened") == ["started", "lost"]


async def test_a_replaced_segment_is_put_back_and_the_foreign_file_kept(
    journal: Journal, act: Any, read: Read
) -> None:
    await journal.intend(act("before"))
    path = next(journal.options.directory.rglob("*.jsonl"))
    path.unlink()
    path.write_bytes(b"something else\n")
    await journal.intend(act("after"))
    found = [one["request_id"] for one in read(journal.options.directory) if one["kind"] == "intent"]
    assert found == ["before", "after"]
    assert [one.read_bytes() for one in path.parent.glob("*.foreign-*")] == [b"something else\n"]


async def test_a_deleted_directory_is_made_anew_with_what_was_in_it(
    journal: Journal, act: Any, read: Read
) -> None:
    await journal.intend(act("before"))
    folder = journal.options.directory / "w0"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    journal.options.directory.rmdir()
    await journal.intend(act("after"))
    found = [one["request_id"] for one in read(journal.options.directory) if one["kind"] == "intent"]
    assert found == ["before", "after"]


@pytest.mark.parametrize("free", [FreeSpace(100, 10_000), FreeSpace(1 << 40, 3)])
async def test_the_reserve_is_kept_for_outcomes(
    *,
    options: JournalOptions,
    counts: Any,
    bad_disk: Any,
    act: Any,
    read: Read,
    free: FreeSpace,
    until: Until,
) -> None:
    guarded = replace(options, reserve_bytes=1000, reserve_inodes=10)
    journal = Journal(guarded, counts, "w0", disk=bad_disk)
    await journal.start()
    intent = await journal.intend(act("before"))
    bad_disk.free_space = free
    await until(lambda: journal.trouble == "space")  # the guard looks only now and then, idle or not
    with pytest.raises(AuditUnavailable) as refusal:
        await journal.intend(act("short"))
    assert refusal.value.reason == "audit_space"
    intent.close(ANSWERED)
    await intent.closed_durably()
    found = [one for one in read(options.directory) if one.get("request_id") == "before"]
    assert [one["kind"] for one in found] == ["intent", "outcome"]
    await journal.stop()


async def test_a_tenant_that_may_goes_on_without_a_record_and_it_is_counted(
    options: JournalOptions, counts: Any, bad_disk: Any, act: Any
) -> None:
    journal = Journal(options, counts, "w0", disk=bad_disk)
    await journal.start()
    bad_disk.fails["write"] = errno.ENOSPC
    intent = await journal.intend(act(on_failure=OnFailure.ALLOW))
    assert not intent.is_durable
    assert counts.of("allowed") == ["disk"]
    with pytest.raises(AuditUnavailable):
        await journal.intend(act())
    bad_disk.fails.clear()
    await journal.stop()


async def test_more_waiting_intents_than_allowed_are_refused_at_once(
    options: JournalOptions, counts: Any, bad_disk: Any, act: Any
) -> None:
    journal = Journal(replace(options, pending_max=2), counts, "w0", disk=bad_disk)
    await journal.start()
    bad_disk.gate.clear()
    waiting = [asyncio.create_task(journal.intend(act(f"r{n}"))) for n in range(2)]
    await asyncio.sleep(0)  # let both tasks put their records in
    with pytest.raises(AuditUnavailable) as refusal:
        await journal.intend(act("third"))
    assert refusal.value.reason == "audit_overloaded"
    bad_disk.gate.set()
    await asyncio.gather(*waiting)
    await journal.stop()

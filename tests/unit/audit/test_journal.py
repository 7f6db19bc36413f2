"""The journal's promises towards the pipeline: durable first, refused in time, nothing lost in silence."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.audit import (
    Act,
    Journal,
    JournalFault,
    JournalOptions,
    Outcome,
    Result,
    SilentObserver,
)
from cbk_gateway.audit.record import FIELDS, STRUCTURE_FIELDS
from cbk_gateway.errors import AuditUnavailable

Read = Callable[[Path], list[dict[str, Any]]]
Until = Callable[..., Awaitable[None]]
ANSWERED = Outcome(Result.ANSWERED, status=200)


def kinds(records: list[dict[str, Any]]) -> list[str]:
    """Kinds of records without the segment's own."""
    return [record["kind"] for record in records if record["kind"] not in {"segment", "checkpoint", "seal"}]


async def test_an_intent_is_in_the_file_when_intend_returns(journal: Journal, act: Any, read: Read) -> None:
    intent = await journal.intend(act("r1"))
    assert intent.is_durable
    assert [one["request_id"] for one in read(journal.options.directory) if one["kind"] == "intent"] == ["r1"]


async def test_intent_and_outcome_share_a_name_and_a_request_id(
    journal: Journal, act: Any, read: Read
) -> None:
    intent = await journal.intend(act("r1"))
    intent.close(Outcome(Result.ANSWERED, status=201, answer_ids=("b9",)))
    await intent.closed_durably()
    first, second = [one for one in read(journal.options.directory) if "intent" in one]
    assert (first["kind"], second["kind"]) == ("intent", "outcome")
    assert first["intent"] == second["intent"] == intent.name
    assert (second["request_id"], second["status"], second["answer_ids"]) == ("r1", 201, ["b9"])


async def test_only_the_first_outcome_counts(journal: Journal, act: Any, read: Read) -> None:
    intent = await journal.intend(act())
    intent.close(ANSWERED)
    intent.close(Outcome(Result.UNKNOWN))
    await intent.closed_durably()
    found = [one["result"] for one in read(journal.options.directory) if one["kind"] == "outcome"]
    assert found == ["answered"]


async def test_one_sync_serves_all_intents_that_wait(
    options: JournalOptions, counts: Any, bad_disk: Any, act: Any
) -> None:
    journal = Journal(options, counts, "w0", disk=bad_disk)
    await journal.start()
    bad_disk.gate.clear()
    bad_disk.is_waiting.clear()
    first = asyncio.create_task(journal.intend(act("r0")))
    await asyncio.to_thread(bad_disk.is_waiting.wait)
    others = [asyncio.create_task(journal.intend(act(f"r{n}"))) for n in range(1, 51)]
    await asyncio.sleep(0)  # let each task put its record in
    bad_disk.gate.set()
    await asyncio.gather(first, *others)
    assert counts.of("committed")[:2] == [1, 50]
    await journal.stop()


async def test_a_caller_that_leaves_while_it_waits_is_closed_as_not_sent(
    options: JournalOptions, counts: Any, bad_disk: Any, act: Any, read: Read
) -> None:
    journal = Journal(options, counts, "w0", disk=bad_disk)
    await journal.start()
    bad_disk.gate.clear()
    bad_disk.is_waiting.clear()
    waiting = asyncio.create_task(journal.intend(act("gone")))
    await asyncio.to_thread(bad_disk.is_waiting.wait)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    bad_disk.gate.set()
    await journal.stop()
    outcome = [one for one in read(options.directory) if one["kind"] == "outcome"]
    assert [(one["request_id"], one["result"], one["reason"]) for one in outcome] == [
        ("gone", "not_sent", "cancelled")
    ]


async def test_refusal_notes_are_dropped_and_counted_when_too_many_wait(
    options: JournalOptions, counts: Any, bad_disk: Any
) -> None:
    journal = Journal(replace(options, notes_max=5), counts, "w0", disk=bad_disk)
    await journal.start()
    bad_disk.gate.clear()
    for _ in range(50):
        journal.note("refused", {"reason": "scope"})
    assert len(counts.of("dropped")) >= 40
    journal.note("admin", {"what": "revoked"})
    assert counts.of("dropped").count("note") == 0
    bad_disk.gate.set()
    await journal.stop()


async def test_an_administrative_record_is_durable_when_record_returns(journal: Journal, read: Read) -> None:
    await journal.record("admin", {"what": "purge", "who": "ops"})
    assert kinds(read(journal.options.directory)) == ["admin"]


async def test_a_stopped_journal_refuses(options: JournalOptions, act: Any) -> None:
    journal = Journal(options, SilentObserver(), "w0")
    for _ in range(2):
        with pytest.raises(AuditUnavailable) as refusal:
            await journal.intend(act())
        assert refusal.value.reason == "audit_stopped"
        assert refusal.value.status == 503
        assert refusal.value.code == "AUDIT_UNAVAILABLE"
        await journal.start()
        await journal.stop()


async def test_stop_flushes_seals_and_signs(journal: Journal, act: Any, read: Read) -> None:
    (await journal.intend(act())).close(ANSWERED)
    journal.note("refused", {"reason": "scope"})
    await journal.stop()
    records = read(journal.options.directory)
    assert sorted(kinds(records)) == ["intent", "outcome", "refused"]
    assert (records[-1]["kind"], records[-1]["reason"], records[-1]["open"]) == ("seal", "stopped", 0)
    assert "sig" in records[-1]


async def test_segments_rotate_by_size_and_the_chain_goes_on(
    options: JournalOptions, act: Any, read: Read
) -> None:
    journal = Journal(replace(options, segment_max_bytes=5000), SilentObserver(), "w0")
    await journal.start()
    for number in range(40):
        (await journal.intend(act(f"r{number}"))).close(ANSWERED)
    await journal.stop()
    records = read(options.directory)
    assert len(list(options.directory.rglob("*.jsonl"))) > 4
    assert [one["seq"] for one in records] == list(range(1, len(records) + 1))
    assert all(one["prev"] == before["hash"] for before, one in pairwise(records))


async def test_checkpoints_are_signed_while_records_arrive(
    options: JournalOptions, act: Any, read: Read, until: Until
) -> None:
    journal = Journal(replace(options, checkpoint_interval_s=0.0), SilentObserver(), "w0")
    await journal.start()
    await journal.intend(act())
    await until(lambda: any(one["kind"] == "checkpoint" for one in read(options.directory)))
    await journal.stop()


async def test_two_live_processes_cannot_share_a_workers_name(journal: Journal) -> None:
    second = Journal(journal.options, SilentObserver(), "w0")
    with pytest.raises(JournalFault, match="another process"):
        await second.start()


async def test_a_directory_that_cannot_be_made_is_a_clear_fault(
    tmp_path: Path, options: JournalOptions
) -> None:
    (tmp_path / "file").write_bytes(b"")
    journal = Journal(replace(options, directory=tmp_path / "file" / "journal"), SilentObserver(), "w0")
    with pytest.raises(JournalFault, match="file/journal"):
        await journal.start()


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "x" * 64, "w 0"])
def test_a_worker_name_is_a_plain_word(options: JournalOptions, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Journal(options, SilentObserver(), name)


def test_a_short_digest_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        JournalOptions(tmp_path, b"short")


def test_the_signing_key_may_not_stand_among_the_records(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"):
        JournalOptions(tmp_path, b"k" * 32, signing_key_path=tmp_path / "w0" / "key.pem")


def test_the_options_do_not_show_their_key(options: JournalOptions) -> None:
    assert "for the tests" not in repr(options)


async def test_nothing_of_a_write_but_its_digest_is_kept_unless_asked(
    journal: Journal, act: Callable[..., Act], read: Read
) -> None:
    await journal.intend(act(body_sha256="ab" * 32, body_bytes=10))
    record = next(one for one in read(journal.options.directory) if one["kind"] == "intent")
    assert "body" not in record
    assert record["request_sha256"] == "ab" * 32


async def test_every_field_that_is_written_is_documented(
    options: JournalOptions, counts: Any, bad_disk: Any, act: Any, read: Read
) -> None:
    journal = Journal(options, counts, "w0", disk=bad_disk)
    await journal.start()
    (await journal.intend(act(body=b"{}", body_bytes=2, trace_id="ab", user_agent="a", token_id="t"))).close(
        Outcome(Result.ANSWERED, status=200, answer_ids=("b9",), invalidated=("bot",), stream_end="complete")
    )
    bad_disk.fails["sync"] = [errno.EIO]
    await journal.intend(act("left open"))
    await journal.record("admin", {"what": "purge", "subject": "ops"})
    await journal.stop()
    await journal.start()
    await journal.stop()
    written = {name for record in read(options.directory) for name in record}
    assert written <= FIELDS.keys() | STRUCTURE_FIELDS.keys()


async def test_an_intent_that_is_open_at_the_end_is_closed_by_the_next_start(
    journal: Journal, act: Any, read: Read, counts: Any
) -> None:
    await journal.intend(act("open"))
    await journal.stop()
    await journal.start()
    outcomes = [one for one in read(journal.options.directory) if one["kind"] == "outcome"]
    assert [(one["request_id"], one["result"]) for one in outcomes] == [("open", "unknown")]
    assert [one["request_id"] for one in journal.recovered] == ["open"]
    assert counts.of("recovered") == [1]


async def test_one_writer_after_many_does_not_wait_for_company_that_left(
    options: JournalOptions, counts: Any, act: Any
) -> None:
    """Even with an hour allowed, a step in which nobody came ends the wait."""
    journal = Journal(replace(options, max_wait_s=3600.0, deadline_s=20.0), counts, "w0")
    await journal.start()
    await asyncio.gather(*(journal.intend(act(f"many-{number}")) for number in range(30)))
    assert (await journal.intend(act("alone"))).is_durable
    await journal.stop()


def test_the_bounds_that_are_promised_by_default() -> None:
    default = JournalOptions(Path("journal"), b"k" * 16)
    assert (default.max_wait_s, default.deadline_s, default.checkpoint_interval_s) == (0.002, 1.0, 60.0)
    assert (default.on_failure, default.free_text) == ("refuse", False)
    assert min(default.reserve_bytes, default.reserve_inodes) > 0

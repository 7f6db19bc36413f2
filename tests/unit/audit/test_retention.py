"""Retention: what goes leaves a signed tombstone, the chain stays verifiable, holds hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.audit import Journal, JournalOptions, Outcome, Result, SilentObserver, tombstone
from cbk_gateway.audit.reading import segments
from cbk_gateway.audit.retention import KEPT_NEWEST, RetentionOptions, sweep
from cbk_gateway.audit.signing import SigningKey, load_or_make
from cbk_gateway.audit.verify import Report, keys_at, verify

LATER = datetime.now(UTC) + timedelta(days=400)
ALL_OLD = RetentionOptions(compress_after_s=None, max_age_s=86_400.0)


@pytest.fixture
async def sample(options: JournalOptions, act: Any) -> JournalOptions:
    """One chain of many small segments; one tenant appears in a middle one alone."""
    small = replace(options, segment_max_bytes=4000)
    journal = Journal(small, SilentObserver(), "w0")
    await journal.start()
    for number in range(40):
        tenant = "held" if number == 20 else "acme"
        (await journal.intend(act(f"r{number}", tenant=tenant))).close(Outcome(Result.ANSWERED))
    await journal.stop()
    return small


def key_of(options: JournalOptions) -> SigningKey:
    """The journal's own key."""
    return load_or_make(options.key_path)


def numbers(options: JournalOptions) -> list[int]:
    """Segments that are there."""
    return [file.number for file in segments(options.directory / "w0")]


def verified(options: JournalOptions) -> Report:
    """The whole journal, judged by the key's holder."""
    return verify(options.directory, keys_at(options.key_path))


async def test_old_segments_go_and_the_chain_still_verifies(sample: JournalOptions) -> None:
    before = numbers(sample)
    swept = sweep(sample.directory, ALL_OLD, key_of(sample), LATER)
    assert numbers(sample) == before[-KEPT_NEWEST:]
    assert swept.removed == len(before) - KEPT_NEWEST
    assert swept.freed_bytes > 4000
    report = verified(sample)
    assert report.is_good, report.findings


async def test_nothing_young_goes(sample: JournalOptions) -> None:
    before = numbers(sample)
    assert sweep(sample.directory, ALL_OLD, key_of(sample), datetime.now(UTC)).removed == 0
    assert numbers(sample) == before


async def test_a_bound_on_size_removes_the_oldest_first(sample: JournalOptions) -> None:
    before = numbers(sample)
    options = RetentionOptions(compress_after_s=None, max_bytes=20_000)
    sweep(sample.directory, options, key_of(sample), datetime.now(UTC))
    left = numbers(sample)
    assert left == before[-len(left) :]
    assert len(left) < len(before)
    assert verified(sample).is_good


async def test_segments_of_a_held_tenant_stay(sample: JournalOptions) -> None:
    options = replace(ALL_OLD, held_tenants=frozenset({"held"}))
    before = numbers(sample)
    sweep(sample.directory, options, key_of(sample), LATER)
    left = numbers(sample)
    assert len(left) > KEPT_NEWEST
    assert len(left) < len(before)
    content = b"".join(file.path.read_bytes() for file in segments(sample.directory / "w0"))
    assert content.count(b'"tenant":"held"') == 2
    report = verified(sample)
    assert report.is_good, report.findings


async def test_a_second_sweep_finds_what_is_left_consistent(sample: JournalOptions) -> None:
    for _ in range(2):
        sweep(sample.directory, replace(ALL_OLD, held_tenants=frozenset({"held"})), key_of(sample), LATER)
    sweep(sample.directory, ALL_OLD, key_of(sample), LATER)
    assert len(numbers(sample)) == KEPT_NEWEST
    report = verified(sample)
    assert report.is_good, report.findings


async def test_the_chain_goes_on_after_a_sweep(sample: JournalOptions, act: Any) -> None:
    sweep(sample.directory, ALL_OLD, key_of(sample), LATER)
    journal = Journal(sample, SilentObserver(), "w0")
    await journal.start()
    await journal.intend(act("later"))
    await journal.stop()
    report = verified(sample)
    assert report.is_good, report.findings


async def test_a_removal_that_a_crash_cut_short_is_finished(sample: JournalOptions) -> None:
    kept = segments(sample.directory / "w0")[1]
    content = kept.path.read_bytes()
    sweep(sample.directory, ALL_OLD, key_of(sample), LATER)
    kept.path.write_bytes(content)
    report = verified(sample)
    assert report.is_good
    assert [one.kind for one in report.findings] == ["note"]
    sweep(sample.directory, ALL_OLD, key_of(sample), LATER)
    assert not kept.path.exists()


async def test_a_sink_that_is_behind_keeps_its_segments(sample: JournalOptions) -> None:
    before = numbers(sample)
    sweep(sample.directory, ALL_OLD, key_of(sample), LATER, may_remove=lambda file: file.number < 3)
    assert numbers(sample) == before[2:]
    assert verified(sample).is_good


async def test_a_forged_tombstone_covers_nothing(sample: JournalOptions, tmp_path: Path) -> None:
    sweep(sample.directory, ALL_OLD, load_or_make(tmp_path / "thief.pem"), LATER)
    report = verified(sample)
    assert {"bad_signature", "missing_segment"} <= {one.kind for one in report.findings}


async def test_a_removed_tombstone_is_a_missing_segment(sample: JournalOptions) -> None:
    sweep(sample.directory, ALL_OLD, key_of(sample), LATER)
    (sample.directory / "w0" / tombstone.FILE_NAME).unlink()
    assert "missing_segment" in {one.kind for one in verified(sample).findings}


async def test_old_segments_are_compressed_and_the_newest_stay_plain(sample: JournalOptions) -> None:
    swept = sweep(sample.directory, RetentionOptions(compress_after_s=60.0), key_of(sample), LATER)
    files = segments(sample.directory / "w0")
    assert [file.is_compressed for file in files] == [True] * swept.compressed + [False] * KEPT_NEWEST
    assert swept.freed_bytes > 0
    assert verified(sample).is_good


async def test_an_open_intents_segment_stays_plain_and_in_place(options: JournalOptions, act: Any) -> None:
    journal = Journal(replace(options, segment_max_bytes=4000), SilentObserver(), "w0")
    await journal.start()
    await journal.intend(act("open"))
    for number in range(30):
        (await journal.intend(act(f"r{number}"))).close(Outcome(Result.ANSWERED))
    swept = sweep(options.directory, ALL_OLD, key_of(options), LATER)
    assert swept.removed == 0
    assert numbers(options)[0] == 1
    await journal.stop()

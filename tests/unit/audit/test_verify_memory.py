"""Verification streams: four times the journal takes no more memory."""

from __future__ import annotations

import tracemalloc

from cbk_gateway.audit import JournalOptions
from cbk_gateway.audit.disk import Disk
from cbk_gateway.audit.segment import Position, SegmentLog
from cbk_gateway.audit.signing import load_or_make
from cbk_gateway.audit.verify import keys_at, verify

BODY = b'{"time":"2026-11-22T17:00:00.000000Z","kind":"intent","x":"' + b"y" * 400 + b'"}'


def chain_of(options: JournalOptions, worker: str, records: int) -> None:
    """A chain of that many records, in segments of a thousand."""
    log = SegmentLog(options.directory / worker, worker, load_or_make(options.key_path), Position(), Disk())
    log.open_next("started")
    for _ in range(records // 1000):
        log.commit([BODY] * 1000)
        log.rotate()
    log.seal("stopped")


def peak_bytes(options: JournalOptions, records: int) -> int:
    """The most that verifying what is there has in memory at a time."""
    tracemalloc.start()
    try:
        report = verify(options.directory, keys_at(options.key_path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.is_good, report.findings
    assert report.tally.records > records
    return peak


def test_memory_does_not_grow_with_the_journal(options: JournalOptions) -> None:
    chain_of(options, "w0", 2000)
    small = peak_bytes(options, 2000)
    chain_of(options, "w1", 6000)
    assert peak_bytes(options, 8000) < small + 100_000

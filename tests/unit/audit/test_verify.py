"""Tampering: every alteration is reported with its place, and an untouched journal with none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cbk_gateway.audit import Journal, JournalOptions, Outcome, Result, SilentObserver
from cbk_gateway.audit.chain import Head, seal, take_apart
from cbk_gateway.audit.reading import segments
from cbk_gateway.audit.retention import compress
from cbk_gateway.audit.segment import segment_path
from cbk_gateway.audit.signing import load_or_make
from cbk_gateway.audit.verify import Report, VerifyKeys, keys_at, verify

Lines = list[bytes]


@pytest.fixture
async def sample(options: JournalOptions, act: Any) -> JournalOptions:
    """Two runs of a journal with small segments."""
    small = replace(options, segment_max_bytes=9000)
    for run in range(2):
        journal = Journal(small, SilentObserver(), "w0")
        await journal.start()
        for number in range(20):
            (await journal.intend(act(f"r{run}-{number}"))).close(Outcome(Result.ANSWERED, status=200))
        await journal.stop()
    return small


def public_only(options: JournalOptions) -> VerifyKeys:
    """What an auditor has who was given the public key and the directory."""
    return VerifyKeys(keys_at(options.key_path).public)


def files(options: JournalOptions) -> list[Path]:
    """The segments in order."""
    return sorted(options.directory.rglob("*.jsonl"))


def places(report: Report) -> set[tuple[str, int]]:
    """Where problems were found."""
    return {(Path(one.path).name, one.line) for one in report.findings if one.is_problem}


async def test_an_untouched_journal_verifies(sample: JournalOptions) -> None:
    report = verify(sample.directory, keys_at(sample.key_path))
    assert report.is_good
    assert not report.findings
    assert report.tally.segments == len(files(sample)) > 4
    assert report.tally.unsigned == 0


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.long)])
async def test_every_single_byte_flip_is_reported_at_its_line(sample: JournalOptions, step: int) -> None:
    path = files(sample)[1]
    sound = path.read_bytes()
    keys = public_only(sample)
    for position in range(0, len(sound), step):
        altered = bytearray(sound)
        altered[position] ^= 1 << (position % 8)
        path.write_bytes(altered)
        report = verify(sample.directory, keys)
        line = sound[:position].count(b"\n") + 1
        assert (path.name, line) in places(report), (position, report.findings)
        assert report.problems <= 3
    path.write_bytes(sound)
    assert verify(sample.directory, keys).is_good


def _drop(lines: Lines) -> Lines:
    return lines[:4] + lines[5:]


def _swap(lines: Lines) -> Lines:
    return [*lines[:4], lines[5], lines[4], *lines[6:]]


def _swap_far(lines: Lines) -> Lines:
    return [*lines[:4], lines[9], *lines[5:9], lines[4], *lines[10:]]


def _repeat(lines: Lines) -> Lines:
    return [*lines[:5], lines[4], *lines[5:]]


def _cut_lines(lines: Lines) -> Lines:
    return lines[:-3]


def _cut_bytes(lines: Lines) -> Lines:
    return [*lines[:-1], lines[-1][:30]]


def _empty(_: Lines) -> Lines:
    return []


def _behead(lines: Lines) -> Lines:
    return lines[1:]


@pytest.mark.parametrize(
    ("alter", "kind", "line"),
    [
        (_drop, "missing", 5),
        (_swap, "misplaced", 6),
        (_swap_far, "misplaced", 10),
        (_repeat, "misplaced", 6),
        (_cut_lines, "truncated", 0),
        (_cut_bytes, "torn", None),
        (_empty, "truncated", 0),
        (_behead, "truncated", 0),
    ],
)
async def test_each_way_of_tampering_has_its_name_and_place(
    sample: JournalOptions, alter: Callable[[Lines], Lines], kind: str, line: int | None
) -> None:
    path = files(sample)[1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(alter(lines)))
    report = verify(sample.directory, public_only(sample))
    found = [one for one in report.findings if one.kind == kind]
    assert found, report.findings
    assert line is None or line in {one.line for one in found}


async def test_a_missing_segment_is_named(sample: JournalOptions) -> None:
    gone = files(sample)[2]
    gone.unlink()
    report = verify(sample.directory, public_only(sample))
    assert ("missing_segment", gone.name) in {(one.kind, Path(one.path).name) for one in report.findings}


async def test_two_segments_that_changed_places_are_named(sample: JournalOptions) -> None:
    first, second = files(sample)[1:3]
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    report = verify(sample.directory, public_only(sample))
    assert {first.name, second.name} <= {Path(one.path).name for one in report.findings}


async def test_a_line_after_the_seal_is_a_forgery(sample: JournalOptions) -> None:
    path = files(sample)[-1]
    link = take_apart(path.read_bytes().splitlines(keepends=True)[-1])
    assert link is not None
    line, _ = seal(
        b'{"time":"2026-11-22T17:00:00.000000Z","kind":"note"}', Head(link.seq, link.digest), b"guess"
    )
    with path.open("ab") as file:
        file.write(line)
    report = verify(sample.directory, public_only(sample))
    assert [one.kind for one in report.findings] == ["forged"]


async def test_a_chain_made_anew_without_the_key_is_a_forgery(sample: JournalOptions) -> None:
    """Whoever can write the directory can compute every hash, but not sign."""
    head = Head()
    for path in files(sample):
        lines = []
        for line in path.read_bytes().splitlines():
            fields = {name: value for name, value in orjson.loads(line).items() if name not in _CHAIN}
            fields["tenant"] = "somebody-else"
            forged = Ed25519PrivateKey.generate().sign if b'"sig"' in line else None
            sealed, head = seal(orjson.dumps(fields), head, b"guess", forged)
            lines.append(sealed)
        path.write_bytes(b"".join(lines))
    report = verify(sample.directory, public_only(sample))
    assert {one.kind for one in report.findings} == {"bad_signature"}
    assert verify(sample.directory, keys_at(sample.key_path)).problems > report.problems


_CHAIN = {"seq", "prev", "mac", "sig", "hash"}


async def test_a_signature_left_out_is_noticed(sample: JournalOptions) -> None:
    path = files(sample)[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    before = take_apart(lines[-2])
    assert before is not None
    fields = {name: value for name, value in orjson.loads(lines[-1]).items() if name not in _CHAIN}
    lines[-1], _ = seal(orjson.dumps(fields), Head(before.seq, before.digest), b"guess")
    path.write_bytes(b"".join(lines))
    report = verify(sample.directory, public_only(sample))
    assert ("bad_signature", len(lines)) in {(one.kind, one.line) for one in report.findings}


async def test_a_forged_tail_that_nothing_has_signed_yet_shows_to_the_key_holder(
    options: JournalOptions, act: Any
) -> None:
    journal = Journal(options, SilentObserver(), "w0")
    await journal.start()
    (await journal.intend(act("real"))).close(Outcome(Result.ANSWERED))
    await journal.record("admin", {"what": "flush"})
    (path,) = files(options)
    last = take_apart(path.read_bytes().splitlines(keepends=True)[-1])
    assert last is not None
    line, _ = seal(
        b'{"time":"2026-11-22T17:00:00.000000Z","kind":"admin"}', Head(last.seq, last.digest), b"guess"
    )
    with path.open("ab") as file:
        file.write(line)
    assert verify(options.directory, public_only(options)).is_good
    report = verify(options.directory, keys_at(options.key_path))
    assert [(one.kind, one.seq) for one in report.findings] == [("forged", last.seq + 1)]
    await journal.stop()


@pytest.mark.parametrize("kept", [1, 0])
async def test_a_chain_cut_short_at_a_seal_shows_against_its_anchor(
    sample: JournalOptions, kept: int
) -> None:
    """All segments of the second run removed: by itself the first run's end looks like a clean stop."""
    second_run = [path for path in files(sample) if b"r1-" in path.read_bytes()]
    doomed = second_run if kept else files(sample)
    for path in doomed:
        path.unlink()
    report = verify(sample.directory, keys_at(sample.key_path))
    assert not report.is_good
    assert {one.kind for one in report.findings} <= {"truncated", "missing_segment"}


async def test_a_removed_folder_shows_against_its_anchor(sample: JournalOptions) -> None:
    folder = sample.directory / "w0"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    report = verify(sample.directory, keys_at(sample.key_path))
    assert [one.kind for one in report.findings] == ["missing_segment"]


async def test_a_forged_anchor_is_noticed(sample: JournalOptions) -> None:
    keys = keys_at(sample.key_path)
    assert keys.anchors is not None
    path = keys.anchors / "w0.json"
    path.write_bytes(path.read_bytes().replace(b'"segment":', b'"segment":1'))
    report = verify(sample.directory, keys)
    assert [one.kind for one in report.findings] == ["bad_signature"]


async def test_a_chain_signed_with_a_key_not_given_says_so(sample: JournalOptions, tmp_path: Path) -> None:
    other = load_or_make(tmp_path / "other.pem")
    report = verify(sample.directory, VerifyKeys({other.key_id: other.public_key}))
    assert {one.kind for one in report.findings} == {"bad_signature"}


async def test_a_chain_left_by_a_crash_is_reported_until_a_start_closes_it(sample: JournalOptions) -> None:
    path = files(sample)[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert [one.kind for one in verify(sample.directory, public_only(sample)).findings] == ["truncated"]


async def test_a_live_journal_verifies_while_it_is_written(options: JournalOptions, act: Any) -> None:
    journal = Journal(replace(options, segment_max_bytes=20_000), SilentObserver(), "w0")
    await journal.start()

    async def write() -> None:
        for number in range(150):
            (await journal.intend(act(f"r{number}"))).close(Outcome(Result.ANSWERED))

    writing = asyncio.create_task(write())
    while not writing.done():
        report = await asyncio.to_thread(verify, options.directory, public_only(options))
        assert report.is_good, report.findings
        await asyncio.sleep(0)
    await writing
    await journal.stop()
    assert verify(options.directory, keys_at(options.key_path)).is_good


async def test_a_segment_that_was_just_begun_is_no_damage_while_its_process_lives(
    options: JournalOptions, act: Any
) -> None:
    journal = Journal(options, SilentObserver(), "w0")
    await journal.start()
    (await journal.intend(act("r1"))).close(Outcome(Result.ANSWERED))
    begun = segment_path(options.directory / "w0", 2)
    begun.touch()
    report = verify(options.directory, public_only(options))
    assert report.findings == []
    await journal.stop()
    report = verify(options.directory, public_only(options))
    assert {(one.kind, one.path) for one in report.findings} == {("truncated", str(begun))}


async def test_compressed_segments_verify_and_their_damage_shows(sample: JournalOptions) -> None:
    file = segments(sample.directory / "w0")[1]
    compress(file)
    keys = public_only(sample)
    assert verify(sample.directory, keys).is_good
    packed = file.path.with_name(file.path.name + ".gz")
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 0x10
    packed.write_bytes(content)
    report = verify(sample.directory, keys)
    assert packed.name in {Path(one.path).name for one in report.findings if one.is_problem}


async def test_progress_adds_up_to_the_journals_size(sample: JournalOptions) -> None:
    seen: list[int] = []
    report = verify(sample.directory, public_only(sample), progress=seen.append)
    assert sum(seen) == report.tally.bytes == sum(path.stat().st_size for path in files(sample))

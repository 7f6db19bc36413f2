"""After a death: the chain goes on, open intents are closed as unknown, torn ends are cut and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.audit import Journal, JournalOptions, Outcome, Result, SilentObserver
from cbk_gateway.audit.chain import Head, seal
from cbk_gateway.audit.disk import Disk
from cbk_gateway.audit.recovery import examine
from cbk_gateway.audit.segment import Position, SegmentLog
from cbk_gateway.audit.signing import load_or_make
from cbk_gateway.audit.verify import keys_at, verify

Read = Callable[[Path], list[dict[str, Any]]]
INTENT = (
    b'{"time":"2026-11-22T17:00:00.000001Z","kind":"intent",'
    b'"intent":"%b","request_id":"r-%b","tenant":"acme"}'
)
OUTCOME = b'{"time":"2026-11-22T17:00:00.000002Z","kind":"outcome","intent":"%b","result":"answered"}'


def dead_chain(options: JournalOptions, worker: str, bodies: list[list[bytes]]) -> SegmentLog:
    """What a process leaves that dies: one segment per list, the last without its seal."""
    log = SegmentLog(options.directory / worker, worker, load_or_make(options.key_path), Position(), Disk())
    log.open_next("started")
    for number, group in enumerate(bodies):
        if number:
            log.rotate()
        log.commit(group)
        for body in group:
            name = body.split(b'"intent":"')[1].split(b'"')[0].decode()
            if b'"kind":"intent"' in body:
                log.position.open_from[name] = log.position.segment
            else:
                log.position.open_from.pop(name, None)
    log.abandon()
    return log


async def restart(options: JournalOptions, counts: Any = None, worker: str = "w0") -> None:
    """One start and stop, as an operator does it after a crash."""
    journal = Journal(options, counts if counts is not None else SilentObserver(), worker)
    await journal.start()
    await journal.stop()


async def test_open_intents_are_closed_as_unknown(options: JournalOptions, read: Read, counts: Any) -> None:
    dead_chain(options, "w0", [[INTENT % (b"a", b"a"), INTENT % (b"b", b"b"), OUTCOME % b"a"]])
    await restart(options, counts)
    outcomes = [one for one in read(options.directory) if one["kind"] == "outcome" and one["intent"] == "b"]
    assert [(one["result"], one["reason"], one["request_id"], one["tenant"]) for one in outcomes] == [
        ("unknown", "process_died", "r-b", "acme")
    ]
    assert counts.of("recovered") == [1]
    assert verify(options.directory, keys_at(options.key_path)).is_good


async def test_an_intent_left_open_in_an_earlier_segment_is_found(
    options: JournalOptions, read: Read
) -> None:
    dead_chain(
        options,
        "w0",
        [
            [INTENT % (b"old", b"old")],
            [INTENT % (b"x", b"x"), OUTCOME % b"x"],
            [INTENT % (b"y", b"y"), OUTCOME % b"y"],
        ],
    )
    await restart(options)
    unknown = [one["intent"] for one in read(options.directory) if one.get("result") == "unknown"]
    assert unknown == ["old"]


async def test_a_second_restart_closes_nothing_twice(options: JournalOptions, read: Read) -> None:
    dead_chain(options, "w0", [[INTENT % (b"a", b"a")]])
    for _ in range(3):
        await restart(options)
    assert len([one for one in read(options.directory) if one.get("result") == "unknown"]) == 1
    assert verify(options.directory, keys_at(options.key_path)).is_good


async def test_chains_of_workers_that_are_no_more_are_closed_too(options: JournalOptions, read: Read) -> None:
    dead_chain(options, "w7", [[INTENT % (b"a", b"a")]])
    await restart(options, worker="w0")
    assert [one["intent"] for one in read(options.directory) if one.get("result") == "unknown"] == ["a"]
    report = verify(options.directory, keys_at(options.key_path))
    assert report.is_good, report.findings


async def test_chains_of_live_workers_are_left_alone(options: JournalOptions, read: Read, act: Any) -> None:
    alive = Journal(options, SilentObserver(), "w0")
    await alive.start()
    intent = await alive.intend(act("mine"))
    await restart(options, worker="w1")
    assert not [one for one in read(options.directory) if one.get("result") == "unknown"]
    intent.close(Outcome(Result.ANSWERED))
    await alive.stop()


@pytest.mark.parametrize(
    "garbage",
    [
        b'{"time":"2026-11-22T17:00:00.000003Z","kind":"int',
        b"\x00" * 4096,
        b"\n",
        b"{}\n{}\n",
        b"\xff" * 100_000,
        b'{"kind":"intent","intent":"z"}\n',
    ],
)
async def test_a_torn_end_is_cut_off_and_kept_beside(
    options: JournalOptions, read: Read, garbage: bytes
) -> None:
    log = dead_chain(options, "w0", [[INTENT % (b"a", b"a")]])
    path = log.folder / "000000001.jsonl"
    with path.open("ab") as file:
        file.write(garbage)
    await restart(options)
    assert path.with_name("000000001.jsonl.torn").read_bytes() == garbage
    header = next(one for one in read(options.directory) if one.get("segment") == 2)
    assert header["torn_bytes"] == len(garbage)
    report = verify(options.directory, keys_at(options.key_path))
    assert report.is_good
    assert [finding.kind for finding in report.findings] == ["note"]


async def test_a_hole_in_the_last_group_ends_the_chain_there(options: JournalOptions, read: Read) -> None:
    """A power cut may write later pages of the last group and not the earlier ones."""
    log = dead_chain(options, "w0", [[INTENT % (b"a", b"a")]])
    path = log.folder / "000000001.jsonl"
    synced = path.stat().st_size
    key = load_or_make(options.key_path)
    head, lines = log.position.head, []
    for name in (b"x", b"y", b"z"):
        body = INTENT % (name, name)
        line, head = seal(body[:-1] + b',"batch":9}' if name == b"x" else body, head, key.mac_key)
        lines.append(line)
    with path.open("ab") as file:
        file.write(b"\0" * len(lines[0]) + lines[1] + lines[2])
    await restart(options)
    assert path.stat().st_size == synced
    assert [one["intent"] for one in read(options.directory) if one["kind"] == "intent"] == ["a"]
    assert verify(options.directory, keys_at(options.key_path)).is_good


async def test_damage_before_a_later_group_costs_no_record_and_is_not_hidden(
    options: JournalOptions,
) -> None:
    log = dead_chain(options, "w0", [[INTENT % (b"a", b"a")]])
    path = log.folder / "000000001.jsonl"
    key = load_or_make(options.key_path)
    head, lines = log.position.head, []
    for name in (b"x", b"y"):
        line, head = seal((INTENT % (name, name))[:-1] + b',"batch":9}', head, key.mac_key)
        lines.append(line)
    with path.open("ab") as file:
        file.write(lines[0].replace(b"r-x", b"r-q") + lines[1])
    size = path.stat().st_size
    await restart(options)
    assert path.stat().st_size == size
    report = verify(options.directory, keys_at(options.key_path))
    assert [(one.kind, one.line) for one in report.findings] == [("altered", 3)]


async def test_a_segment_whose_header_was_torn_never_was(options: JournalOptions) -> None:
    log = dead_chain(options, "w0", [[INTENT % (b"a", b"a")]])
    (log.folder / "000000002.jsonl").write_bytes(b'{"time":"2026-')
    await restart(options)
    assert verify(options.directory, keys_at(options.key_path)).is_good


def test_the_end_is_found_without_reading_the_whole_segment(options: JournalOptions) -> None:
    """A line longer than one block, and a torn one behind it."""
    log = dead_chain(options, "w0", [[INTENT % (b"a", b"a")]])
    key = load_or_make(options.key_path)
    line, head = seal(b'{"kind":"note","text":"' + b"x" * 200_000 + b'"}', log.position.head, key.mac_key)
    with (log.folder / "000000001.jsonl").open("ab") as file:
        file.write(line + b"y" * 200_000)
    remains = examine(log.folder)
    assert remains.position.head == head == Head(3, head.digest)
    assert remains.torn_bytes == 200_000


def test_an_empty_folder_is_a_chain_that_has_not_begun(tmp_path: Path) -> None:
    remains = examine(tmp_path)
    assert (remains.position.segment, remains.position.head) == (0, Head())


async def test_a_folder_that_cannot_be_recovered_does_not_keep_others_from_starting(
    options: JournalOptions,
) -> None:
    log = dead_chain(options, "w7", [[INTENT % (b"a", b"a")]])
    blocked = log.folder / "000000002.jsonl"
    blocked.mkdir()
    await restart(options, worker="w0")
    blocked.rmdir()


async def test_a_key_is_made_once_and_kept_private(options: JournalOptions) -> None:
    await restart(options)
    path = options.key_path
    first = path.read_bytes()
    await restart(options)
    assert path.read_bytes() == first
    assert path.stat().st_mode & 0o077 == 0
    assert path.with_name(path.name + ".pub").read_bytes().startswith(b"-----BEGIN PUBLIC KEY")


async def test_a_bad_key_file_is_a_clear_fault(options: JournalOptions, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_bytes(b"not a key")
    with pytest.raises(Exception, match=r"bad\.pem"):
        await restart(replace(options, signing_key_path=bad))

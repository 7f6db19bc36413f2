"""Retention: compressing rotated segments, and removing old ones with a signed tombstone in their place.

Decided by plain functions over what is there; done in an order in which a crash loses nothing: tombstone
first, files after. The newest segments of a chain are never touched, and no segment that holds a record
of a tenant under legal hold is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final

import orjson

from cbk_gateway.audit import tombstone
from cbk_gateway.audit.chain import Head, take_apart
from cbk_gateway.audit.reading import COMPRESSED_SUFFIX, SegmentFile, parse, segments, time_of, workers
from cbk_gateway.audit.segment import SUFFIX
from cbk_gateway.audit.signing import SigningKey
from cbk_gateway.audit.tombstone import Tombstone

_LOCK_NAME: Final = ".sweep.lock"
KEPT_NEWEST: Final = 2
"""Segments at the end of each chain that stay plain and in place: the current and the one before."""


@dataclass(frozen=True, slots=True)
class RetentionOptions:
    """How long records stay.

    Attributes:
        compress_after_s: Age in seconds at which a sealed segment is compressed; None never.
        max_age_s: Age in seconds at which a segment is removed; None never.
        max_bytes: Size of all segments of all workers above which the oldest are removed; None no bound.
        held_tenants: Tenants under legal hold.
    """

    compress_after_s: float | None = 86_400.0
    max_age_s: float | None = None
    max_bytes: int | None = None
    held_tenants: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ended:
    """A segment that may be compressed or removed, and what is known of it.

    `last_time` is its successor's beginning, `before` and `after` the chain's ends around it.
    """

    file: SegmentFile
    first_time: str
    last_time: str
    size_bytes: int
    before: Head
    after: Head


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did."""

    compressed: int
    removed: int
    freed_bytes: int


def sweep(
    directory: Path,
    options: RetentionOptions,
    key: SigningKey,
    now: datetime,
    *,
    may_remove: Callable[[SegmentFile], bool] = lambda _: True,
) -> Swept:
    """Remove what is too old or too much, then compress what is old enough. Blocking: call it in a thread.

    Args:
        directory: The journal.
        options: See `RetentionOptions`.
        key: Signs the tombstones.
        now: The time, UTC.
        may_remove: Asked per segment; sinks that have not shipped it yet say no.

    Returns:
        What was done; nothing while another process sweeps the same journal.

    Raises:
        JournalFault: There is no such directory.
        OSError: The disk failed; what was done so far stands and is consistent.
    """
    lock = os.open(directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _sweep(directory, options, key, now, may_remove)
    except BlockingIOError:
        return Swept(0, 0, 0)
    finally:
        os.close(lock)


def _sweep(
    directory: Path,
    options: RetentionOptions,
    key: SigningKey,
    now: datetime,
    may_remove: Callable[[SegmentFile], bool],
) -> Swept:
    folders = workers(directory)
    for folder in folders:
        _finish_removal(folder, key)
    ended = [one for folder in folders for one in _ended(folder)]

    def must_stay(one: Ended) -> bool:
        return not may_remove(one.file) or holds(one.file, options.held_tenants)

    doomed = choose(ended, options, now, must_stay)
    freed = 0
    for run, reason in _runs(doomed):
        freed += _remove(run, reason, key, now)
    gone = {one.file for one, _ in doomed}
    compressed = 0
    for one in ended:
        if one.file not in gone and _is_compressible(one, options, now):
            freed += compress(one.file)
            compressed += 1
    return Swept(compressed, len(doomed), freed)


def choose(
    ended: Iterable[Ended], options: RetentionOptions, now: datetime, must_stay: Callable[[Ended], bool]
) -> list[tuple[Ended, str]]:
    """Which segments go, and why: all that are too old, then the oldest until the rest fits.

    `must_stay` is asked only of segments that would go, because the answer may cost reading them.
    """
    oldest_first = sorted(ended, key=lambda one: one.last_time)
    size = sum(one.size_bytes for one in oldest_first)
    border = _border(now, options.max_age_s)
    chosen: list[tuple[Ended, str]] = []
    for one in oldest_first:
        if border is not None and one.last_time < border:
            reason = "age"
        elif options.max_bytes is not None and size > options.max_bytes:
            reason = "size"
        else:
            continue
        if not must_stay(one):
            size -= one.size_bytes
            chosen.append((one, reason))
    return chosen


def holds(file: SegmentFile, tenants: frozenset[str]) -> bool:
    """Whether a segment has a record of one of these tenants."""
    needles = [b'"tenant":%b' % orjson.dumps(tenant) for tenant in tenants]
    return bool(needles) and any(needle in line for line in file.lines() for needle in needles)


def compress(file: SegmentFile) -> int:
    """Replace a plain segment by its gzip form; returns the bytes saved. Raises OSError."""
    target = file.path.with_name(file.path.name.removesuffix(SUFFIX) + COMPRESSED_SUFFIX)
    draft = target.with_name(f".{target.name}.draft")
    with file.path.open("rb") as plain, draft.open("wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)
        raw.flush()
        os.fsync(raw.fileno())
    before, after = file.path.stat().st_size, draft.stat().st_size
    draft.replace(target)
    _sync_directory(file.path.parent)
    file.path.unlink()
    return before - after


def _ended(folder: Path) -> Iterator[Ended]:
    """The segments of a chain that may go: never the newest, nor one that recovery may have to read.

    A stream may have been open for days, so what counts is where the oldest open intent stands.
    """
    files = segments(folder)
    if len(files) <= KEPT_NEWEST:
        return
    oldest_open = (parse(_first_line(files[-1])) or {}).get("open_from")
    for file, following in pairwise(files[: -KEPT_NEWEST + 1]):
        if isinstance(oldest_open, int) and file.number >= oldest_open:
            return
        one = _examine(file, following)
        if one is not None:
            yield one


def _examine(file: SegmentFile, following: SegmentFile) -> Ended | None:
    """What is known of a segment; None for a damaged one, which stays for verification to speak of.

    Where it ends is read from its successor's header, which is signed and stands at the file's beginning.
    """
    first = _first_line(file)
    opening = take_apart(first)
    if following.number == file.number + 1:
        header = _first_line(following)
        link = take_apart(header)
        after = Head(link.seq - 1, link.prev) if link is not None else None
    else:
        header = first
        for line in file.lines():
            header = line
        link = take_apart(header)
        after = Head(link.seq, link.digest) if link is not None else None
    if opening is None or after is None:
        return None
    return Ended(
        file=file,
        first_time=time_of(first).decode(),
        last_time=time_of(header).decode(),
        size_bytes=file.path.stat().st_size,
        before=Head(opening.seq - 1, opening.prev),
        after=after,
    )


def _first_line(file: SegmentFile) -> bytes:
    return next(file.lines(), b"")


def _is_compressible(one: Ended, options: RetentionOptions, now: datetime) -> bool:
    border = _border(now, options.compress_after_s)
    return border is not None and not one.file.is_compressed and one.last_time < border


def _border(now: datetime, age_s: float | None) -> str | None:
    if age_s is None:
        return None
    return (now - timedelta(seconds=age_s)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _runs(doomed: list[tuple[Ended, str]]) -> Iterator[tuple[list[Ended], str]]:
    """Neighbouring segments of one chain with one reason, each run for one tombstone."""
    ordered = sorted(doomed, key=lambda pair: pair[0].file)
    numbered = enumerate(ordered)
    for (_, reason, _), run in groupby(
        numbered, key=lambda item: (item[1][0].file.worker, item[1][1], item[1][0].file.number - item[0])
    ):
        yield [pair[0] for _, pair in run], reason


def _remove(run: list[Ended], reason: str, key: SigningKey, now: datetime) -> int:
    folder = run[0].file.path.parent
    stone = Tombstone(
        worker=run[0].file.worker,
        first_segment=run[0].file.number,
        last_segment=run[-1].file.number,
        before=run[0].before,
        after=run[-1].after,
        first_time=run[0].first_time,
        last_time=run[-1].last_time,
        reason=reason,
        removed_at=now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        key=key.key_id,
    )
    tombstone.append(folder, stone, key)
    _sync_directory(folder)
    freed = 0
    for one in run:
        freed += one.size_bytes
        with contextlib.suppress(FileNotFoundError):
            one.file.path.unlink()
    return freed


def _finish_removal(folder: Path, key: SigningKey) -> None:
    """Remove what a tombstone covers already: a process died between the two."""
    stones, _ = tombstone.read(folder, [key.public_key])
    for file in segments(folder):
        if any(stone.first_segment <= file.number <= stone.last_segment for stone in stones.values()):
            file.path.unlink()


def _sync_directory(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

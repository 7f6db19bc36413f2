"""Finding and reading segments: plain or compressed, of every worker, line by line in constant memory.

Reads what is there and judges nothing: whether it is genuine is `verify.py`'s business, which of it is
wanted is `search.py`'s.
"""

from __future__ import annotations

import fcntl
import gzip
import heapq
import os
import zlib
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import orjson

from cbk_gateway.audit.options import JournalFault
from cbk_gateway.audit.segment import LOCK_NAME, SUFFIX

COMPRESSED_SUFFIX: Final = ".jsonl.gz"
MAX_LINE_BYTES: Final = 1 << 20
"""No writer makes a longer line; whatever is longer is cut there, so that memory stays bounded."""

UNREADABLE: Final = (OSError, EOFError, zlib.error)
"""What reading a damaged file raises."""


@dataclass(frozen=True, slots=True, order=True)
class SegmentFile:
    """One segment on disk."""

    worker: str
    number: int
    path: Path

    @property
    def is_compressed(self) -> bool:
        """Whether it is a gzip file."""
        return self.path.name.endswith(COMPRESSED_SUFFIX)

    def open(self) -> IO[bytes]:
        """The uncompressed bytes."""
        if self.is_compressed:
            return cast("IO[bytes]", gzip.open(self.path, "rb"))
        return self.path.open("rb")

    def lines(self) -> Iterator[bytes]:
        """The lines with their newlines; the last may lack it."""
        with self.open() as file:
            while line := file.readline(MAX_LINE_BYTES):
                yield line


def workers(directory: Path) -> list[Path]:
    """The workers' folders of a journal, by name.

    Raises:
        JournalFault: There is no such directory.
    """
    if not directory.is_dir():
        message = f"there is no audit journal at {directory}"
        raise JournalFault(message)
    return sorted(path for path in directory.iterdir() if path.is_dir())


def segments(folder: Path) -> list[SegmentFile]:
    """A worker's segments by number; where both forms stand, the plain one, which is being compressed."""
    found: dict[int, SegmentFile] = {}
    for suffix in (COMPRESSED_SUFFIX, SUFFIX):
        for path in folder.glob(f"*{suffix}"):
            stem = path.name.removesuffix(suffix)
            if stem.isdecimal():
                found[int(stem)] = SegmentFile(folder.name, int(stem), path)
    return [found[number] for number in sorted(found)]


def is_live(folder: Path) -> bool:
    """Whether a process holds this worker's folder."""
    try:
        fd = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def parse(line: bytes) -> dict[str, object] | None:
    """A line as a record, or None when it is none."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def raw_lines(
    directory: Path,
    *,
    since: str | None = None,
    newest_first: bool = False,
    without: Container[tuple[str, int]] = (),
) -> Iterator[bytes]:
    """Every line of a journal, all workers merged by time.

    Args:
        directory: The journal.
        since: Leave out segments that ended before this time (RFC 3339, UTC), where that can be told
            from the segments' first lines.
        newest_first: Whole segments are read from their end towards their beginning.
        without: Segments to pass over, by worker and number.
    """
    streams = [
        _worker_lines(
            [file for file in segments(folder) if (file.worker, file.number) not in without],
            since,
            newest_first,
        )
        for folder in workers(directory)
    ]
    yield from heapq.merge(*streams, key=time_of, reverse=newest_first)


def time_of(line: bytes) -> bytes:
    """The time at the front of a line, as text that sorts; empty where there is none."""
    return line[9:36] if line.startswith(b'{"time":"') else b""


def _worker_lines(files: list[SegmentFile], since: str | None, newest_first: bool) -> Iterator[bytes]:
    kept = _from_time(files, since)
    for file in reversed(kept) if newest_first else kept:
        # A damaged segment gives what it has; verification is where damage is reported.
        with suppress(*UNREADABLE):
            if newest_first:
                yield from sorted(file.lines(), key=time_of, reverse=True)
            else:
                yield from file.lines()


def _from_time(files: list[SegmentFile], since: str | None) -> list[SegmentFile]:
    """Drop the segments whose successor began before `since`: their last record is older still."""
    if since is None:
        return files
    first = 0
    for index, file in enumerate(files):
        with suppress(*UNREADABLE), file.open() as content:
            begun = time_of(content.readline(MAX_LINE_BYTES)).decode("ascii", "replace")
            if begun and begun <= since:
                first = index
    return files[first:]


def origin_of(record: Mapping[str, object]) -> tuple[str, int]:
    """Where a record stands: its sequence number, and the intent or request it belongs to."""
    name = record.get("intent") or record.get("request_id") or ""
    seq = record.get("seq")
    return str(name), seq if isinstance(seq, int) else 0

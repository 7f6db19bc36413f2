"""An index beside the journal: which sealed segment holds which tenant, subject, id and request.

SQLite, in a file outside the journal, built and extended by readers; the write path knows nothing of it
and it may be deleted at any time. It says which segments a search may pass over; the segments remain the
truth, and those it does not know are read.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cbk_gateway.audit.chain import take_apart
from cbk_gateway.audit.reading import UNREADABLE, SegmentFile, parse, segments, workers
from cbk_gateway.audit.search import Query, Record

_SCHEMA: Final = """
create table if not exists segment (
    id integer primary key, worker text not null, number integer not null,
    header text not null, first_time text not null, last_time text not null, unique (worker, number)
);
create table if not exists entry (
    key integer not null, segment integer not null, primary key (key, segment)
) without rowid;
"""
_KNOWN: Final = "select worker, number, header from segment"
_NAMED: Final = ("tenant", "subject", "request_id")


class JournalIndex:
    """An open index.

    Args:
        directory: The journal.
        path: The index's file; None for `<directory>.index.sqlite` beside it.
    """

    def __init__(self, directory: Path, path: Path | None = None) -> None:
        self._directory = directory
        self._path = path if path is not None else index_path(directory)
        self._database = sqlite3.connect(self._path)
        self._database.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def extend(self) -> int:
        """Index the sealed segments it does not know yet; returns how many.

        The newest segment of a chain may still grow, so it is left out.
        """
        known = {(worker, number): header for worker, number, header in self._database.execute(_KNOWN)}
        added = 0
        for folder in workers(self._directory):
            for file in segments(folder)[:-1]:
                if known.get((file.worker, file.number)) != _header_of(file):
                    self._add(file)
                    added += 1
        return added

    def without(self, query: Query) -> frozenset[tuple[str, int]]:
        """The segments that hold nothing of what is looked for, by worker and number.

        A segment counts as known only while it is the one that was indexed: a journal may have been begun
        anew under an index that stayed.
        """
        known = {(worker, number): header for worker, number, header in self._database.execute(_KNOWN)}
        empty = known.keys() - self._candidates(query)
        return frozenset(
            (file.worker, file.number)
            for folder in workers(self._directory)
            for file in segments(folder)
            if (file.worker, file.number) in empty and _header_of(file) == known[file.worker, file.number]
        )

    def _candidates(self, query: Query) -> set[tuple[str, int]]:
        text = ["select worker, number from segment where last_time >= ? and first_time < ?"]
        values: list[str | int] = [query.since or "", query.until or "~"]
        for key in query.exact_keys():
            text.append("and id in (select segment from entry where key = ?)")
            values.append(_hashed(key))
        return set(self._database.execute(" ".join(text), values))

    def _add(self, file: SegmentFile) -> None:
        keys: set[int] = set()
        first, last = "", ""
        for line in file.lines():
            fields = parse(line)
            if fields is None:
                continue
            record = Record(fields)
            first = min(first or record.time, record.time)
            last = max(last, record.time)
            keys.update(_hashed(f"{name}\0{fields[name]}") for name in _NAMED if fields.get(name) is not None)
            keys.update(_hashed(f"id\0{one}") for one in record.ids())
        with self._database, closing(self._database.cursor()) as cursor:
            cursor.execute(
                "insert or replace into segment (worker, number, header, first_time, last_time) "
                "values (?, ?, ?, ?, ?)",
                (file.worker, file.number, _header_of(file), first, last),
            )
            segment = cursor.lastrowid
            cursor.executemany("insert into entry values (?, ?)", ((key, segment) for key in sorted(keys)))


def _header_of(file: SegmentFile) -> str:
    """The hash of a segment's first record, which no other segment has; empty where it cannot be read."""
    with suppress(*UNREADABLE):
        link = take_apart(next(file.lines(), b""))
        return link.digest if link is not None else ""
    return ""


def index_path(directory: Path) -> Path:
    """Where the index of a journal is, when there is one."""
    return directory.with_name(directory.name + ".index.sqlite")


def passed_over(directory: Path, query: Query) -> frozenset[tuple[str, int]]:
    """As `JournalIndex.without`; nothing where there is no index, or none that can be read."""
    if not index_path(directory).exists():
        return frozenset()
    try:
        with JournalIndex(directory) as index:
            return index.without(query)
    except sqlite3.Error:
        return frozenset()


def _hashed(key: str) -> int:
    """A key as a 63-bit number: a collision costs one needless segment, never a wrong answer."""
    octets = key.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(octets, digest_size=8).digest(), "big") >> 1

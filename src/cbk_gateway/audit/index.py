"""An index beside the journal: which sealed segment holds which tenant, subject, id and request.

SQLite, in a file outside the journal, built and extended by readers; the write path knows nothing of it
and it may be deleted at any time. It narrows a search down to segments; the segments remain the truth.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cbk_gateway.audit.reading import SegmentFile, parse, segments, workers
from cbk_gateway.audit.search import Query, Record, search_files

_SCHEMA: Final = """
create table if not exists segment (
    id integer primary key, worker text not null, number integer not null,
    first_time text not null, last_time text not null, unique (worker, number)
);
create table if not exists entry (
    key integer not null, segment integer not null, primary key (key, segment)
) without rowid;
"""
_NAMED: Final = ("tenant", "subject", "request_id")


class JournalIndex:
    """An open index.

    Args:
        directory: The journal.
        path: The index's file; None for `<directory>.index.sqlite` beside it.
    """

    def __init__(self, directory: Path, path: Path | None = None) -> None:
        self._directory = directory
        self._path = path if path is not None else directory.with_name(directory.name + ".index.sqlite")
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
        known = set(self._database.execute("select worker, number from segment"))
        added = 0
        for folder in workers(self._directory):
            for file in segments(folder)[:-1]:
                if (file.worker, file.number) not in known:
                    self._add(file)
                    added += 1
        return added

    def search(self, query: Query) -> Iterator[Record]:
        """Matching records, chain by chain: the indexed segments that may hold any, and all others."""
        candidates = self._candidates(query)
        known = set(self._database.execute("select worker, number from segment"))
        files = [
            file
            for folder in workers(self._directory)
            for file in segments(folder)
            if (file.worker, file.number) in candidates or (file.worker, file.number) not in known
        ]
        yield from search_files(files, query)

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
                "insert into segment (worker, number, first_time, last_time) values (?, ?, ?, ?)",
                (file.worker, file.number, first, last),
            )
            segment = cursor.lastrowid
            cursor.executemany("insert into entry values (?, ?)", ((key, segment) for key in sorted(keys)))


def _hashed(key: str) -> int:
    """A key as a 63-bit number: a collision costs one needless segment, never a wrong answer."""
    octets = key.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(octets, digest_size=8).digest(), "big") >> 1

"""Searching a journal: by who, what, when and how it ended; one page, one request, or as it grows.

Plain functions over the segments, in constant memory and bounded by time and by the index beside the
journal (`index.py`), if there is one. Lines are first sifted as bytes, and only what may match is parsed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import orjson

from cbk_gateway.audit.reading import MAX_LINE_BYTES, parse, raw_lines, segments, workers

STRUCTURE: Final = frozenset({"segment", "checkpoint", "seal"})
"""Kinds that speak of the journal itself; left out unless asked for."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for; None matches everything.

    Attributes:
        since: Earliest time, RFC 3339 in UTC (`2026-11-22T17:00:00Z` or a prefix of it).
        until: Latest time, exclusive, likewise.
        tenant: Tenant id.
        subject: Token subject.
        resource: Resource type, as in scopes: `conversation/message`; also matches types below it.
        action: Action.
        object_id: An id in the path, or one that an answer named.
        result: Outcome result, or `refused`.
        request_id: Request id.
        kinds: Kinds of record; empty for all but the journal's own.
        text: Any text that must stand in the line, such as a digest.
    """

    since: str | None = None
    until: str | None = None
    tenant: str | None = None
    subject: str | None = None
    resource: str | None = None
    action: str | None = None
    object_id: str | None = None
    result: str | None = None
    request_id: str | None = None
    kinds: frozenset[str] = frozenset()
    text: str | None = None

    def exact_keys(self) -> list[str]:
        """The exact values that an index can narrow the search by."""
        exact = (
            ("tenant", self.tenant),
            ("subject", self.subject),
            ("id", self.object_id),
            ("request_id", self.request_id),
        )
        return [f"{name}\0{value}" for name, value in exact if value is not None]


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it stands in the journal."""

    fields: Mapping[str, object] = field(repr=False)

    def __repr__(self) -> str:
        return f"<Record {self.time} {self.kind} {self.text('operation')} {self.text('request_id')}>"

    @property
    def time(self) -> str:
        """When it was made."""
        return self.text("time")

    @property
    def kind(self) -> str:
        """What it is: intent, outcome, ..."""
        return self.text("kind")

    @property
    def seq(self) -> int:
        """Its number in its chain."""
        value = self.fields.get("seq")
        return value if isinstance(value, int) else 0

    def text(self, name: str) -> str:
        """A field as text, empty when it is absent."""
        value = self.fields.get(name)
        return "" if value is None else str(value)

    def ids(self) -> list[str]:
        """Ids in the path, then those the answer named."""
        path = self.fields.get("ids")
        named = list(path.values()) if isinstance(path, Mapping) else path if isinstance(path, list) else []
        answer = self.fields.get("answer_ids")
        found: list[str] = []
        for one in [*named, *(answer if isinstance(answer, list) else [])]:
            found.extend(map(str, one)) if isinstance(one, list) else found.append(str(one))
        return found


@dataclass(frozen=True, slots=True)
class Story:
    """One write from intent to verdict; parts are None where they are not in the journal."""

    intent: Record | None
    outcome: Record | None
    verdict: Record | None
    others: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Records, and where the next page begins; None after the last."""

    records: tuple[Record, ...]
    cursor: str | None


def search(
    directory: Path,
    query: Query,
    *,
    newest_first: bool = False,
    without: Container[tuple[str, int]] = (),
) -> Iterator[Record]:
    """All matching records in order of time.

    `without` are the segments that an index (`index.py`) knows to hold none.

    Raises:
        JournalFault: There is no such directory.
    """
    needles = _needles(query)
    for line in raw_lines(directory, since=query.since, newest_first=newest_first, without=without):
        record = match(line, query, needles)
        if record is not None:
            yield record


def page(
    directory: Path,
    query: Query,
    *,
    limit: int = 100,
    cursor: str | None = None,
    without: Container[tuple[str, int]] = (),
) -> Page:
    """One page of matching records, newest first.

    Args:
        directory: The journal.
        query: What is looked for.
        limit: Records on a page, at least 1.
        cursor: From the page before; None for the first.
        without: As in `search`.

    Raises:
        ValueError: The cursor is none of ours.
    """
    found = search(directory, query, newest_first=True, without=without)
    if cursor is not None:
        border = _border(cursor)
        found = (record for record in found if _place(record) < border)
    records = tuple(islice(found, max(1, limit) + 1))
    if len(records) <= limit:
        return Page(records, None)
    kept = records[:-1]
    return Page(kept, "~".join((kept[-1].time, kept[-1].text("hash")[:16])))


def show(directory: Path, request_id: str, *, without: Container[tuple[str, int]] = ()) -> list[Story]:
    """Everything recorded under a request id, each write as one story. `without` as in `search`."""
    stories: dict[str, dict[str, Record]] = {}
    others: list[Record] = []
    for record in search(directory, Query(request_id=request_id), without=without):
        name = record.text("intent")
        if name:
            stories.setdefault(name, {})[record.kind] = record
        else:
            others.append(record)
    told = [
        Story(parts.get("intent"), parts.get("outcome"), parts.get("verdict")) for parts in stories.values()
    ]
    if others:
        told.append(Story(None, None, None, tuple(others)))
    return told


async def follow(directory: Path, query: Query, *, poll_s: float = 0.25) -> AsyncIterator[Record]:
    """Matching records from now on, as they are written; ends when the caller stops asking.

    Args:
        directory: The journal.
        query: What is looked for.
        poll_s: Seconds between looks at the files, which is how late a record may be.
    """
    needles = _needles(query)
    places: dict[Path, int] = {}
    _read_on(directory, places, is_first=True)
    while True:
        for line in _read_on(directory, places, is_first=False):
            record = match(line, query, needles)
            if record is not None:
                yield record
        await asyncio.sleep(poll_s)


def match(line: bytes, query: Query, needles: list[bytes]) -> Record | None:
    """The line as a record when it matches."""
    for needle in needles:
        if needle not in line:
            return None
    fields = parse(line)
    if fields is None:
        return None
    record = Record(fields)
    return record if _fits(record, query) else None


def _needles(query: Query) -> list[bytes]:
    """Byte texts that every matching line holds, so that most others need no parsing."""
    exact = (("tenant", query.tenant), ("subject", query.subject), ("request_id", query.request_id))
    needles = [
        b'"%b":%b' % (name.encode(), orjson.dumps(value)) for name, value in exact if value is not None
    ]
    if query.object_id is not None:
        needles.append(orjson.dumps(query.object_id))
    if query.text is not None:
        needles.append(orjson.dumps(query.text)[1:-1])
    return needles


def _fits(record: Record, query: Query) -> bool:
    text = record.text
    if record.kind not in query.kinds if query.kinds else record.kind in STRUCTURE:
        return False
    if query.since is not None and record.time < query.since:
        return False
    if query.until is not None and record.time >= query.until:
        return False
    for name in ("tenant", "subject", "request_id", "action"):
        wanted = getattr(query, name)
        if wanted is not None and text(name) != wanted:
            return False
    if query.resource is not None and not f"{text('resource')}/".startswith(f"{query.resource}/"):
        return False
    if query.result is not None and query.result not in {text("result"), record.kind}:
        return False
    return query.object_id is None or query.object_id in record.ids()


def _place(record: Record) -> tuple[str, str]:
    return record.time, record.text("hash")[:16]


def _border(cursor: str) -> tuple[str, str]:
    time, separator, digest = cursor.partition("~")
    if not separator or len(digest) != 16:
        message = "the cursor is not one of this journal"
        raise ValueError(message)
    return time, digest


def _read_on(directory: Path, places: dict[Path, int], *, is_first: bool) -> list[bytes]:
    """Whole lines added since the last call; on the first call only the ends are noted."""
    lines: list[bytes] = []
    for folder in workers(directory):
        for file in segments(folder):
            if file.is_compressed:
                continue
            at = places.get(file.path)
            if at is None:
                at = file.path.stat().st_size if is_first else 0
            with file.path.open("rb") as content:
                content.seek(at)
                while (line := content.readline(MAX_LINE_BYTES)).endswith(b"\n"):
                    lines.append(line)
                    at += len(line)
            places[file.path] = at
    return lines

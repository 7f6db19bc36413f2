"""What a dead process left: where its chain ends, a torn last line, intents without an outcome.

Reads, and cuts a torn end off; the records that say so are written by whoever asked. The bytes cut off
are kept beside the segment, because an unfinished line can be evidence too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from cbk_gateway.audit.chain import Head, is_intact, proves_sync, take_apart
from cbk_gateway.audit.segment import SUFFIX, Position, segment_path

ORIGIN_FIELDS: Final = ("intent", "request_id", "tenant", "subject", "operation", "resource", "action", "ids")
"""The fields of an intent that its outcome and verdict repeat, so that each line can be read alone."""

_CHUNK: Final = 1 << 16
_LINE_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Remains:
    """What stands in a worker's folder.

    Attributes:
        position: The chain's end; its `open_from` names the open intents and their segments.
        open_intents: Origin fields of the intents without an outcome, oldest first.
        torn_bytes: Bytes cut off the last segment's end, 0 when it ended with a whole line.
        torn_sha256: Their digest.
        was_sealed: Whether the last process ended its chain itself.
    """

    position: Position
    open_intents: list[dict[str, object]] = field(default_factory=list)
    torn_bytes: int = 0
    torn_sha256: str | None = None
    was_sealed: bool = True

    def details(self) -> dict[str, object]:
        """For the header of the segment that goes on after it."""
        if self.position.segment == 0:
            return {}
        found: dict[str, object] = {"recovers": self.position.segment, "was_sealed": self.was_sealed}
        if self.torn_bytes:
            found["torn_bytes"] = self.torn_bytes
            found["torn_sha256"] = self.torn_sha256
        return found


def segment_numbers(folder: Path) -> list[int]:
    """Numbers of the uncompressed segments in a worker's folder, ascending."""
    stems = (path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def examine(folder: Path) -> Remains:
    """Find the end of a chain and its open intents, cutting a torn end off the last segment.

    Raises:
        OSError: A segment cannot be read, or cut.
    """
    numbers = segment_numbers(folder)
    torn_bytes, torn_sha256 = 0, None
    while numbers:
        path = segment_path(folder, numbers[-1])
        line, end = _last_line(path)
        if line is not None and b'"kind":"seal"' not in line[:64]:
            line, end = _end_of_chain(path)
        size = path.stat().st_size
        if end < size:
            torn_sha256 = _cut(path, end)
            torn_bytes = size - end
        if line is not None:
            break
        # A segment whose very header was torn never began: its number is free again.
        path.unlink()
        numbers.pop()
    else:
        return Remains(Position(), torn_bytes=torn_bytes, torn_sha256=torn_sha256)
    link = take_apart(line)
    if link is None:  # _last_line has looked already
        message = f"the last line of {path} lost its shape while it was read"
        raise OSError(message)
    last = orjson.loads(line)
    sealed = last.get("kind") == "seal"
    position = Position(numbers[-1], Head(link.seq, link.digest))
    open_intents: list[dict[str, object]] = []
    if not (sealed and last.get("open") == 0):
        first = _open_from(path, last)
        open_intents = _find_open(folder, [number for number in numbers if number >= first], position)
    return Remains(position, open_intents, torn_bytes, torn_sha256, sealed)


def _find_open(folder: Path, numbers: list[int], position: Position) -> list[dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for number in numbers:
        for line in _lines(segment_path(folder, number)):
            # Only these two kinds matter, and parsing every line would make a long start longer.
            if b'"kind":"intent"' in line or b'"kind":"outcome"' in line:
                _follow(line, number, found, position)
    return list(found.values())


def _follow(line: bytes, number: int, found: dict[str, dict[str, object]], position: Position) -> None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return
    name = record.get("intent")
    if not isinstance(name, str):
        return
    if record.get("kind") == "intent":
        found[name] = {field_: record.get(field_) for field_ in ORIGIN_FIELDS}
        position.open_from[name] = number
    elif record.get("kind") == "outcome":
        found.pop(name, None)
        position.open_from.pop(name, None)


def _open_from(path: Path, last: dict[str, object]) -> int:
    """The earliest segment that may hold an open intent, as the newest header or seal says."""
    known = last.get("open_from")
    if isinstance(known, int):
        return known
    with path.open("rb") as file:
        header = orjson.loads(file.readline())
    known = header.get("open_from")
    return known if isinstance(known, int) else 1


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(_LINE_MAX):
            yield line


def _last_line(path: Path) -> tuple[bytes | None, int]:
    """The last whole, intact line and the offset of its end; (None, 0) when there is none.

    Read backwards in blocks, so that the length of the segment does not matter.
    """
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            end = _newline_before(file.fileno(), end) + 1
            if end <= 0:
                break
            start = _newline_before(file.fileno(), end - 1) + 1
            line = os.pread(file.fileno(), end - start, start)
            link = take_apart(line)
            if link is not None and is_intact(line, link):
                return line, end
            end = start
    return None, 0


def _end_of_chain(path: Path) -> tuple[bytes | None, int]:
    """The last line that counts in a segment left by a crash, and the offset of its end.

    A power cut may leave holes in what was not synced, and that can only be the last group commit. So a
    break with no later group behind it is where the chain ends. A break with a later group behind it is
    damage of another kind: it stays for verification to speak of, and costs no record after it.
    """
    last: tuple[bytes | None, int] = (None, 0)
    before_break: tuple[bytes | None, int] | None = None
    head: Head | None = None
    offset = 0
    for line in _lines(path):
        offset += len(line)
        link = take_apart(line)
        if link is None or not is_intact(line, link):
            before_break = before_break or last
            continue
        if head is not None and (link.seq, link.prev) != (head.seq + 1, head.digest):
            before_break = before_break or last
        if before_break is not None and proves_sync(line, link):
            before_break = None
        head, last = Head(link.seq, link.digest), (line, offset)
    return last if before_break is None else before_break


def _newline_before(fd: int, end: int) -> int:
    """Offset of the last newline in front of `end`, -1 when there is none."""
    while end > 0:
        start = max(0, end - _CHUNK)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found
        end = start
    return -1


def _cut(path: Path, end: int) -> str:
    """Take everything from `end` off a segment, keeping it in a file of its own. Returns its SHA-256."""
    digest = hashlib.sha256()
    with path.open("r+b") as file, path.with_name(path.name + ".torn").open("ab") as kept:
        file.seek(end)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            kept.write(chunk)
        kept.flush()
        os.fsync(kept.fileno())
        file.truncate(end)
        os.fsync(file.fileno())
    return digest.hexdigest()

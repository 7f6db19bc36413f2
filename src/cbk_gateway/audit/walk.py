"""Walking one chain: from its first record to its last, naming every place where it does not fit.

Each line is judged by itself (does its hash fit its bytes), by its place (number and predecessor) and,
where it carries one, by its signature. After a misfit the walk takes the line it has as the new truth, so
that one alteration gives one finding or two and not a flood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cbk_gateway.audit.chain import Head, Link, is_intact, is_ours, message_of, take_apart
from cbk_gateway.audit.reading import UNREADABLE, SegmentFile, parse
from cbk_gateway.audit.signing import Anchor, is_signed
from cbk_gateway.audit.tombstone import Tombstone

_PROGRESS_BYTES: Final = 1 << 20
_KIND_AT: Final = len('{"time":"2026-11-22T17:00:00.000000Z","kind":"')
_SIGNED_KINDS: Final = (b"segment", b"checkpoint", b"seal")


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a journal is not what was written, or something worth knowing.

    Attributes:
        kind: `altered`, `torn`, `missing`, `misplaced`, `forged`, `truncated`, `missing_segment`,
            `bad_signature`, `unreadable`; or `note`.
        worker: Whose chain.
        path: The file.
        line: Line in it, from 1; 0 where the whole file is meant.
        offset: Byte at which the line begins (in the uncompressed segment).
        seq: Number of the record, 0 where unknown.
        message: One sentence.
    """

    kind: str
    worker: str
    path: str
    line: int = 0
    offset: int = 0
    seq: int = 0
    message: str = ""

    @property
    def is_problem(self) -> bool:
        """Whether it speaks against the journal."""
        return self.kind != "note"


@dataclass(slots=True)
class Tally:
    """Counts of a verification; `unsigned` are the records after their chain's last signature."""

    records: int = 0
    bytes: int = 0
    segments: int = 0
    signatures: int = 0
    unsigned: int = 0


@dataclass(slots=True)
class _Place:
    """The line under judgement."""

    path: str
    line: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What must be known of a segment beyond itself.

    Attributes:
        file: The segment.
        ends_at: The last record that counts, where its successor says so.
        before: Path of the segment before it.
        is_growing: Whether a process is appending to it.
    """

    file: SegmentFile
    ends_at: int | None
    before: str
    is_growing: bool


class ChainWalk:
    """Walks one worker's chain.

    Args:
        worker: Name of the chain: also that of its folder.
        public: Public keys by id.
        mac_key: Key of the `mac` field, or None.
        tally: Counted into.
        progress: Told of bytes read.
    """

    def __init__(
        self,
        worker: str,
        public: Mapping[str, Ed25519PublicKey],
        mac_key: bytes | None,
        tally: Tally,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._worker = worker
        self._public = public
        self._mac_key = mac_key
        self._tally = tally
        self._progress = progress
        self._head = Head()
        self._is_lost = False  # whether the head is unknown after damage
        self._sealed: str | None = None
        self._unsigned = 0
        self._anchor: Anchor | None = None

    def follow(
        self,
        files: list[SegmentFile],
        stones: Mapping[int, Tombstone],
        anchor: Anchor | None,
        *,
        is_live: bool,
    ) -> Iterator[Finding]:
        """Walk all segments in order; `is_live` says that a process is still writing."""
        self._anchor = anchor
        expected = 1
        last = ""
        for index, file in enumerate(files):
            while expected < file.number:
                stone = stones.get(expected)
                if stone is None or stone.worker != self._worker:
                    yield self._finding(
                        "missing_segment",
                        _Place(str(file.path.with_name(f"{expected:09d}.jsonl"))),
                        f"segments {expected} to {file.number - 1} are missing",
                    )
                    self._is_lost = True
                    break
                yield from self._step_over(stone)
                expected = stone.last_segment + 1
            if file.number < expected:
                yield self._finding(
                    "note", _Place(str(file.path)), "a tombstone covers it: its removal stopped"
                )
                continue
            following = files[index + 1] if index + 1 < len(files) else None
            yield from self._segment(
                _Surroundings(file, _ends_at(following), last, is_live and following is None)
            )
            expected, last = file.number + 1, str(file.path)
        yield from self._end(last, expected, stones, is_live=is_live)
        self._tally.unsigned += self._unsigned

    def _step_over(self, stone: Tombstone) -> Iterator[Finding]:
        if not self._is_lost and stone.before != self._head:
            message = "the tombstone does not go on where the chain before it ends"
            yield self._finding("forged", _Place("tombstones"), message)
        self._head, self._is_lost = stone.after, False
        self._sealed = "rotated"

    def _segment(self, around: _Surroundings) -> Iterator[Finding]:
        self._tally.segments += 1
        self._sealed = None
        place = _Place(str(around.file.path))
        lines = around.file.lines()
        unreported = 0
        try:
            line = next(lines, b"")
            while line:
                following = next(lines, b"")
                place.line += 1
                self._tally.records += 1
                self._tally.bytes += len(line)
                unreported += len(line)
                yield from self._line(line, following, place, around)
                place.offset += len(line)
                if self._progress is not None and unreported >= _PROGRESS_BYTES:
                    self._progress(unreported)
                    unreported = 0
                line = following
        except UNREADABLE as exc:
            yield self._finding("unreadable", place, f"the file breaks off or is damaged: {exc}")
            self._is_lost = True
        if self._progress is not None and unreported:
            self._progress(unreported)
        # Of a segment that was just begun, the first record is being written.
        if place.line == 0 and not around.is_growing:
            yield self._finding("truncated", place, "the segment is empty")
            self._is_lost = True

    def _line(
        self,
        line: bytes,
        following: bytes,
        place: _Place,
        around: _Surroundings,
    ) -> Iterator[Finding]:
        link = take_apart(line)
        if link is None and around.ends_at is not None and self._head.seq >= around.ends_at:
            yield self._finding("note", place, "left over from a failed write")
            return
        if link is None:
            yield from self._not_a_record(line, place, is_last=not following, is_growing=around.is_growing)
            return
        if self._sealed is not None:
            yield self._finding("forged", place, "a line stands after the segment's seal", link)
        if not is_intact(line, link):
            yield self._finding("altered", place, "the record's hash does not fit its bytes", link)
            # Its claims are worthless; the next line's own number says how many records stood here.
            self._lose_track()
            return
        if around.ends_at is not None and link.seq > around.ends_at:
            yield self._finding("note", place, "left over from a failed sync; written again later", link)
            return
        yield from self._order(link, take_apart(following), place, around.before)
        yield from self._authorship(line, link, place)
        if place.line == 1:
            yield from self._header(line, place, around.file)
        if line[_KIND_AT : _KIND_AT + 5] == b'seal"':
            self._sealed = str((parse(line) or {}).get("reason"))
        anchored = self._anchor.head if self._anchor is not None else None
        if anchored is not None and link.seq == anchored.seq and link.digest != anchored.digest:
            message = "the record is not the one that was anchored outside the journal"
            yield self._finding("forged", place, message, link)

    def _not_a_record(
        self, line: bytes, place: _Place, *, is_last: bool, is_growing: bool
    ) -> Iterator[Finding]:
        is_torn = is_last and not line.endswith(b"\n")
        if is_torn and is_growing:
            return  # its rest is being written
        if is_torn:
            yield self._finding("torn", place, "the last line is unfinished")
        else:
            yield self._finding("altered", place, "the line is no record")
        self._lose_track()

    def _order(self, link: Link, following: Link | None, place: _Place, before: str) -> Iterator[Finding]:
        due = self._head.seq + 1
        if self._is_lost:
            if link.seq > due and self._head.seq:
                yield self._gap(link, due, place, before)
            self._go_on_at(link)
        elif link.seq == due:
            if link.prev != self._head.digest:
                yield self._finding("forged", place, "the record does not follow the one before it", link)
            self._go_on_at(link)
        elif following is not None and following.seq == due + 1:
            # One line is out of place and the chain goes on behind it.
            yield self._finding("misplaced", place, f"record {link.seq} stands in place of {due}", link)
            self._head = Head(due, following.prev)
        elif link.seq > due:
            yield self._gap(link, due, place, before)
            self._go_on_at(link)
        else:
            yield self._finding("misplaced", place, f"record {link.seq} comes again or too late", link)

    def _gap(self, link: Link, due: int, place: _Place, before: str) -> Finding:
        message = f"records {due} to {link.seq - 1} are missing"
        if place.line == 1 and before:
            return Finding(
                "truncated", self._worker, before, seq=due, message=f"{message} at the segment's end"
            )
        return self._finding("missing", place, message, link)

    def _go_on_at(self, link: Link) -> None:
        self._head, self._is_lost = Head(link.seq, link.digest), False

    def _lose_track(self) -> None:
        self._head, self._is_lost = Head(self._head.seq + 1, ""), True

    def _authorship(self, line: bytes, link: Link, place: _Place) -> Iterator[Finding]:
        if self._mac_key is not None and not is_ours(line, link, self._mac_key):
            yield self._finding("forged", place, "the record was not made by a holder of the key", link)
        if link.sig is None:
            self._unsigned += 1
            if line[_KIND_AT:].split(b'"', 1)[0] in _SIGNED_KINDS:
                yield self._finding("bad_signature", place, "a record of this kind must be signed", link)
            return
        key = self._public.get(str((parse(line) or {}).get("key")))
        if key is None:
            yield self._finding("bad_signature", place, "it is signed with a key not given", link)
        elif not is_signed(key, message_of(line), link.sig):
            yield self._finding("bad_signature", place, "the signature does not fit the record", link)
        else:
            self._tally.signatures += 1
            self._unsigned = 0

    def _header(self, line: bytes, place: _Place, file: SegmentFile) -> Iterator[Finding]:
        header = parse(line) or {}
        if header.get("kind") != "segment":
            yield self._finding("truncated", place, "the segment does not begin with its header")
        elif header.get("worker") != self._worker or header.get("segment") != file.number:
            message = f"it is segment {header.get('segment')} of {header.get('worker')}, not of this place"
            yield self._finding("misplaced", place, message)
        elif header.get("torn_bytes"):
            yield self._finding("note", place, f"{header['torn_bytes']} torn bytes were cut off before it")

    def _end(
        self, last: str, expected: int, stones: Mapping[int, Tombstone], *, is_live: bool
    ) -> Iterator[Finding]:
        while (stone := stones.get(expected)) is not None:
            yield from self._step_over(stone)
            expected = stone.last_segment + 1
            last = last or stone.worker
        anchor = self._anchor
        if anchor is not None and anchor.head.seq > self._head.seq:
            message = (
                f"records {self._head.seq + 1} to {anchor.head.seq}, "
                f"anchored outside the journal at {anchor.time}, are missing"
            )
            yield self._finding("truncated", _Place(last), message)
        if is_live or not last:
            return
        if self._sealed is None:
            message = "the chain ends without its seal: cut off, or left by a crash that no start followed"
            yield self._finding("truncated", _Place(last), message)
        elif self._sealed == "rotated":
            yield self._finding(
                "missing_segment", _Place(last), f"segment {expected} must follow and is missing"
            )

    def _finding(self, kind: str, place: _Place, message: str, link: Link | None = None) -> Finding:
        seq = link.seq if link is not None else 0
        return Finding(kind, self._worker, place.path, place.line, place.offset, seq, message)


def _ends_at(following: SegmentFile | None) -> int | None:
    """The last record that counts in a segment, where its successor says that its sync failed."""
    if following is None:
        return None
    try:
        line = next(following.lines(), b"")
    except UNREADABLE:
        return None
    lost = (parse(line) or {}).get("lost")
    after = lost.get("after_seq") if isinstance(lost, dict) else None
    return after if isinstance(after, int) else None

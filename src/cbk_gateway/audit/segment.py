"""One worker's chain on disk: segments, headers, seals, checkpoints, and what a bad disk does to them.

Used by one thread at a time. Who waits for a record, and for how long, is `writer.py`'s business.

Three rules. State moves on only after a sync has returned: what failed is cut off and never counted. A
segment whose sync failed is lost and never synced again, because the kernel may have dropped the dirty
pages and would report success for nothing; the same records go into a new segment instead. A segment that
is no longer where it was (deleted, replaced) is put back from its open descriptor, and a new one begun.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
import structlog

from cbk_gateway.audit.chain import Head, seal
from cbk_gateway.audit.disk import Disk
from cbk_gateway.audit.options import JournalFault
from cbk_gateway.audit.record import stamp
from cbk_gateway.audit.signing import Anchor, SigningKey, write_anchor

FORMAT: Final = 1
SUFFIX: Final = ".jsonl"
LOCK_NAME: Final = ".lock"
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Position:
    """Where a chain stands: what recovery found, and what writing moves on.

    Attributes:
        segment: Number of the last segment, 0 when there is none.
        head: The chain's end.
        open_from: Per open intent, the segment its record stands in.
    """

    segment: int = 0
    head: Head = field(default_factory=Head)
    open_from: dict[str, int] = field(default_factory=dict)


def segment_path(folder: Path, number: int) -> Path:
    """The file of a worker's segment."""
    return folder / f"{number:09d}{SUFFIX}"


class SegmentLog:
    """The writing end of one worker's chain.

    Args:
        folder: The worker's folder; made when absent.
        worker: Name of the worker in records.
        key: Signs headers, checkpoints and seals, and makes every record's `mac`.
        position: Where the chain stands.
        disk: The operating system.
    """

    def __init__(self, folder: Path, worker: str, key: SigningKey, position: Position, disk: Disk) -> None:
        self.folder = folder
        self.worker = worker
        self.position = position
        self.size = 0
        self.records = 0
        self.losses = 0
        self._key = key
        self._disk = disk
        self._fd: int | None = None
        self._path = folder
        self._opened_at = 0.0
        self._unsigned = 0
        self._signed_at = 0.0
        self._batches = 0

    def __repr__(self) -> str:
        return f"<SegmentLog {self.worker}/{self.position.segment} seq {self.position.head.seq}>"

    @property
    def is_open(self) -> bool:
        """Whether there is a segment to append to."""
        return self._fd is not None

    def open_next(self, reason: str, details: Mapping[str, object] | None = None) -> None:
        """Begin the next segment with a signed header. Raises OSError; then nothing has been begun."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = self.position.segment + 1
        path = segment_path(self.folder, number)
        while path.exists():  # left by a loss that could not be written down
            number += 1
            path = segment_path(self.folder, number)
        fd = self._disk.create(path)
        header = {
            "reason": reason,
            "segment": number,
            "format": FORMAT,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            **(details or {}),
        }
        try:
            line, head = seal(
                self._signed_body("segment", number, header),
                self.position.head,
                self._key.mac_key,
                self._key.sign,
            )
            self._disk.write(fd, line)
            self._disk.sync(fd)
            self._disk.sync_directory(self.folder)
            self._disk.sync_directory(self.folder.parent)
        except OSError:
            self._disk.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        self._fd, self._path = fd, path
        self.position.segment, self.position.head = number, head
        self.size, self.records = len(line), 1
        self._opened_at = time.monotonic()
        self._note_signature()

    def commit(self, bodies: Sequence[bytes]) -> int:
        """Append records, at least one, and sync them; on return they are durable.

        Returns:
            The bytes written.

        Raises:
            OSError: They are not durable, and the chain stands where it stood.
        """
        if self._fd is None:
            self._reopen()
        else:
            self._return_if_moved()
        self._batches += 1
        # Everything in front of this mark was synced before it was written: recovery tells by it what a
        # power cut can have damaged from what it cannot.
        bodies = [b'%b,"batch":%d}' % (bodies[0][:-1], self._batches), *bodies[1:]]
        try:
            return self._append(bodies, signed=False)
        except _SegmentLostError as exc:
            # One more try on fresh pages; a second failure is the caller's to see.
            self.open_next("lost", self._loss(exc))
            return self._append_or_fail(bodies)

    def checkpoint(self) -> None:
        """Sign the chain's end. Raises OSError."""
        if self._fd is None or not self._unsigned:
            return
        self._append_or_fail([self._signed_body("checkpoint", self.position.segment, {})], signed=True)
        self._note_signature()

    def seal(self, reason: str) -> None:
        """End the segment with a signed record, after which nothing may follow in it. Raises OSError."""
        if self._fd is None:
            return
        body = self._signed_body(
            "seal", self.position.segment, {"reason": reason, "records": self.records + 1}
        )
        self._append_or_fail([body], signed=True)
        self._note_signature()
        self._let_go()

    def rotate(self) -> None:
        """Seal this segment and begin the next. Raises OSError."""
        self.seal("rotated")
        self.open_next("rotated")

    def age_s(self) -> float:
        """Seconds since the segment was begun."""
        return time.monotonic() - self._opened_at

    def unsigned_for_s(self) -> float:
        """Seconds that records have been waiting for a signature, 0 when none does."""
        return time.monotonic() - self._signed_at if self._unsigned else 0.0

    def _append_or_fail(self, bodies: Sequence[bytes], *, signed: bool = False) -> int:
        try:
            return self._append(bodies, signed=signed)
        except _SegmentLostError as exc:
            raise exc.cause from exc

    def _append(self, bodies: Sequence[bytes], *, signed: bool) -> int:
        fd = self._fd
        if fd is None:
            raise OSError("no segment is open")
        mac_key, sign = self._key.mac_key, self._key.sign if signed else None
        head, lines = self.position.head, []
        for body in bodies:
            line, head = seal(body, head, mac_key, sign)
            lines.append(line)
        content = b"".join(lines)
        try:
            self._disk.write(fd, content)
        except OSError as exc:
            self._cut_back(fd, exc)
            raise
        try:
            self._disk.sync(fd)
        except OSError as exc:
            self._lose(fd, "sync_failed", exc)
            raise _SegmentLostError("sync_failed", self.position.segment, exc) from exc
        self.position.head = head
        self.size += len(content)
        self.records += len(lines)
        self._unsigned += len(lines)
        return len(content)

    def _cut_back(self, fd: int, cause: OSError) -> None:
        """Take away a half-written batch, so that the segment ends with a whole line."""
        try:
            self._disk.truncate(fd, self.size)
        except OSError:
            self._lose(fd, "write_failed", cause)

    def _lose(self, fd: int, reason: str, cause: OSError) -> None:
        _log.error(
            "audit_segment_lost", path=str(self._path), reason=reason, error=cause.strerror or str(cause)
        )
        # What was not synced is cut off where that still works, so that no line stands in two segments.
        with contextlib.suppress(OSError):
            self._disk.truncate(fd, self.size)
        with contextlib.suppress(OSError):
            self._disk.close(fd)
        self._fd = None
        self.losses += 1

    def _loss(self, lost: _SegmentLostError) -> dict[str, object]:
        return {"lost": {"segment": lost.segment, "reason": lost.reason, "after_seq": self.position.head.seq}}

    def _reopen(self) -> None:
        """Go on after a segment that could be neither used nor replaced when it failed. Raises OSError."""
        position = self.position
        lost = {"segment": position.segment, "reason": "unusable", "after_seq": position.head.seq}
        self.open_next("lost", {"lost": lost})

    def _return_if_moved(self) -> None:
        """Put a deleted or replaced segment back and go on in a new one. Raises OSError."""
        fd = self._fd
        if fd is None or self._disk.is_same(fd, self._path):
            return
        _log.error("audit_segment_missing", path=str(self._path))
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            # Evidence: whatever took our place stays, under another name.
            self._path.replace(self._path.with_name(f"{self._path.name}.foreign-{stamp()}"))
        whole = self._copy_back(fd)
        with contextlib.suppress(OSError):
            self._disk.close(fd)
        self._fd = None
        self.losses += 1
        details = {"lost": {"segment": self.position.segment, "reason": "file_missing", "restored": whole}}
        self.open_next("lost", details)

    def _copy_back(self, fd: int) -> bool:
        copy = self._disk.create(self._path)
        try:
            offset = 0
            while chunk := os.pread(fd, 1 << 20, offset):
                self._disk.write(copy, chunk)
                offset += len(chunk)
            self._disk.sync(copy)
            self._disk.sync_directory(self.folder)
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()  # the next commit begins the copy anew
            raise
        finally:
            self._disk.close(copy)
        return offset == self.size

    def _signed_body(self, kind: str, number: int, details: Mapping[str, object]) -> bytes:
        open_from = self.position.open_from
        return orjson.dumps(
            {
                "time": stamp(),
                "kind": kind,
                "worker": self.worker,
                "segment": number,
                "key": self._key.key_id,
                "open": len(open_from),
                "open_from": min(open_from.values(), default=number),
                **details,
            }
        )

    def _note_signature(self) -> None:
        self._unsigned = 0
        self._signed_at = time.monotonic()
        anchor = Anchor(self.worker, self.position.segment, self.position.head, stamp())
        try:
            write_anchor(self._key, anchor)
        except OSError as exc:
            # The anchor is a second witness; the journal itself stands without it.
            _log.warning("audit_anchor_not_written", worker=self.worker, error=exc.strerror)

    def _let_go(self) -> None:
        if self._fd is not None:
            self._disk.close(self._fd)
            self._fd = None

    def abandon(self) -> None:
        """Close the descriptor without sealing, as a dying process would."""
        with contextlib.suppress(OSError):
            self._let_go()


class _SegmentLostError(Exception):
    def __init__(self, reason: str, segment: int, cause: OSError) -> None:
        super().__init__(reason)
        self.reason = reason
        self.segment = segment
        self.cause = cause


def claim(folder: Path) -> int | None:
    """Take a worker's folder for this process: the lock's descriptor, or None while another process lives.

    The lock goes with the process, however it ends.

    Raises:
        JournalFault: The folder cannot be made or locked at all.
    """
    import fcntl  # noqa: PLC0415 - POSIX only, like the rest of this function

    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as exc:
        message = f"cannot write the audit journal in {folder}: {exc.strerror}"
        raise JournalFault(message) from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd

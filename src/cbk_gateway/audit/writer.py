"""The writer: one thread that makes records durable in groups, and keeps what must not be lost.

Callers put entries in from the event loop; each commit takes all that wait, writes and syncs them once and
tells the loop. Intents and changes wait and are refused when a commit fails; outcomes and notes stay in
memory and go with the next commit that works. Which requests must be journalled is not decided here.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from cbk_gateway.audit.disk import Disk
from cbk_gateway.audit.options import JournalFault, JournalObserver, JournalOptions
from cbk_gateway.audit.record import encode, stamp
from cbk_gateway.audit.segment import SegmentLog
from cbk_gateway.audit.startup import open_log, recover_others

DURABLE: Final = "durable"
"""What an entry's future gets when its record is durable; any other text is the reason why not."""

_TICK_S: Final = 0.25
_SPACE_CHECK_S: Final = 0.2
_SPACE_CHECK_BYTES: Final = 65_536
_BATCH_MAX: Final = 4096
_COMPANY_STEP_S: Final = 0.0005
_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Entry:
    """One record on its way to the disk.

    Attributes:
        body: The record without chain fields; empty for a barrier, which waits for all before it.
        future: Resolved on the loop with `DURABLE` or a reason; None when nobody waits.
        opens: Name of the intent this record opens.
        closes: Name of the intent it closes.
        is_droppable: Whether it may be lost when too many wait.
    """

    body: bytes
    future: Future[str] | None = None
    opens: str | None = None
    closes: str | None = None
    is_droppable: bool = False

    @property
    def is_refusable(self) -> bool:
        """Whether somebody waits who does without what it records when it cannot be written."""
        return self.future is not None and bool(self.body)


@dataclass(slots=True)
class WriterState:
    """What the thread shows to other threads; each field is written by the thread alone.

    Attributes:
        busy_since: Monotonic time at which the commit under way began, None between commits.
        last_sync_at: Monotonic time of the last commit that worked, 0 before the first.
        last_sync_s: How long it took.
        trouble: Why the last commit failed, None when it worked.
        is_short: Whether the reserve of space or inodes is touched.
        segment: Number of the current segment.
        seq: Number of the last durable record.
        recovered: Intents of dead processes that the start closed as `unknown`.
    """

    busy_since: float | None = None
    last_sync_at: float = 0.0
    last_sync_s: float = 0.0
    trouble: str | None = None
    is_short: bool = False
    segment: int = 0
    seq: int = 0
    recovered: list[dict[str, object]] = field(default_factory=list)


class JournalWriter:
    """Runs the thread.

    Args:
        options: The journal's options.
        observer: Told of commits; called from the thread.
        worker: Name of this worker's chain.
        loop: Where futures are resolved.
        disk: The operating system.
    """

    def __init__(
        self,
        options: JournalOptions,
        observer: JournalObserver,
        worker: str,
        loop: AbstractEventLoop,
        disk: Disk,
    ) -> None:
        self.state = WriterState()
        self.pending: deque[Entry] = deque()
        self._options = options
        self._observer = observer
        self._worker = worker
        self._loop = loop
        self._disk = disk
        self._bell = threading.Lock()
        self._bell.acquire()
        self._will_ring = False
        self._stopping = False
        self._kept: list[Entry] = []
        self._last_batch = 0
        self._space_checked_at = 0.0
        self._unwatched_bytes = 0
        self._log: SegmentLog | None = None
        self._lock_fd: int | None = None
        self._thread = threading.Thread(target=self._run, name=f"audit-{worker}", daemon=True)
        self._started: Future[None] = loop.create_future()
        self._stopped: Future[None] = loop.create_future()

    async def start(self) -> None:
        """Recover and open the journal. Raises JournalFault when that cannot be done."""
        self._thread.start()
        await self._started

    def put(self, entry: Entry, *, ring: bool) -> None:
        """Hand a record over. Loop thread only; `ring` wakes the thread soon rather than at its next tick.

        Once for all of a turn of the loop: waking a thread, and sharing the interpreter with it, costs more
        than a record does.
        """
        self.pending.append(entry)
        if ring and not self._will_ring:
            self._will_ring = True
            self._loop.call_soon(self._ring_once)

    def _ring_once(self) -> None:
        self._will_ring = False
        self.ring()

    def withdraw(self, entry: Entry) -> bool:
        """Take a record back before the thread has it in hand. Loop thread only.

        Returns:
            False when the thread has it: it may be durable, become so, or fail.
        """
        try:
            # Entries are compared by identity, in one step that no other thread can interrupt.
            self.pending.remove(entry)
        except ValueError:
            return False
        return True

    def ring(self) -> None:
        """Wake the thread. One caller rings and one waits, so an unlocked bell has been heard already."""
        if self._bell.locked():
            self._bell.release()

    def stop(self) -> Future[None]:
        """Ask the thread to commit what waits, seal and end; the future is done when it has."""
        self._stopping = True
        self.ring()
        return self._stopped

    def _run(self) -> None:
        try:
            self._open()
        except (OSError, JournalFault) as exc:
            fault = exc if isinstance(exc, JournalFault) else self._opening_fault(exc)
            self._release_lock()
            self._tell(_fail, self._started, fault)
            return
        self._tell(_finish, self._started)
        try:
            while not self._stopping:
                self._bell.acquire(timeout=self._patience_s())  # a timeout is as good as the bell
                self._turn()
            self._last_turn()
        finally:
            self._release_lock()
            self._tell(_finish, self._stopped)

    def _open(self) -> None:
        key, self._lock_fd, self._log, closed = open_log(self._options, self._worker, self._disk)
        closed += recover_others(self._options, self._worker, key, self._disk)
        self.state.recovered = closed
        self._show_position(self._log)
        self._observer.segment_opened("started")
        if closed:
            self._observer.recovered(len(closed))

    def _opening_fault(self, exc: OSError) -> JournalFault:
        where = exc.filename or self._options.directory
        return JournalFault(f"cannot open the audit journal at {where}: {exc.strerror or exc}")

    def _patience_s(self) -> float:
        """How long to sleep: outcomes that wait must not wait long."""
        log = self._log
        if self.state.trouble is not None:
            return _TICK_S  # a failing disk is not asked more often than that on its own account
        is_busy = bool(self.pending or self._kept or (log is not None and log.position.open_from))
        return min(self._options.outcome_delay_s, _TICK_S) if is_busy else _TICK_S

    def _turn(self) -> None:
        self.state.busy_since = time.monotonic()
        self._watch_space()
        batch = self._take()
        if batch and self._last_batch > 1 and len(batch) < self._last_batch:
            self._wait_for_company(batch)
        if self.state.trouble is not None and not batch and not self._kept:
            # Nobody may be sending writes to a gateway that is not ready: it must find out by itself.
            self._kept.append(Entry(encode({"time": stamp(), "kind": "admin", "what": "journal_probe"})))
        if batch or self._kept:
            self._last_batch = len(batch)
            self._commit(batch)
        self._chores()
        self.state.busy_since = None

    def _take(self) -> list[Entry]:
        pending = self.pending
        batch: list[Entry] = []
        while pending and len(batch) < _BATCH_MAX:
            batch.append(pending.popleft())
        return batch

    def _wait_for_company(self, batch: list[Entry]) -> None:
        """Let as many join as came last time: one sync for all of them.

        The bound is `max_wait_s`; a step in which nobody came ends it earlier, so that few writers do not
        wait for many.
        """
        until = time.monotonic() + self._options.max_wait_s
        while len(batch) < self._last_batch and not self._stopping:
            left = min(until - time.monotonic(), _COMPANY_STEP_S)
            if left <= 0 or not self._bell.acquire(timeout=left):
                break
            batch.extend(self._take())
        batch.extend(self._take())

    def _commit(self, batch: list[Entry]) -> None:
        began = time.monotonic()
        if self.state.is_short:
            # New writes and changes are refused; the reserve is for the outcomes of those under way.
            refused = [entry for entry in batch if entry.is_refusable]
            batch = [entry for entry in batch if not entry.is_refusable]
            self._settle(refused, "space")
        entries = [*self._kept, *batch]
        try:
            written = self._write(entries)
        except OSError as exc:
            self._fail_commit(batch, exc)
        else:
            self._kept = []
            took_s = time.monotonic() - began
            self.state.last_sync_s, self.state.last_sync_at = took_s, began + took_s
            if self.state.trouble is not None:
                _log.warning("audit_journal_back", worker=self._worker)
            self.state.trouble = None
            self._observer.committed(len(entries), written, took_s)
            self._settle(entries, DURABLE)

    def _write(self, entries: Sequence[Entry]) -> int:
        log = self._log
        bodies = [entry.body for entry in entries if entry.body]
        if log is None or not bodies:
            return 0
        losses = log.losses
        try:
            written = log.commit(bodies)
        finally:
            if log.losses != losses:
                self._observer.segment_opened("lost")
        self._unwatched_bytes += written
        open_from = log.position.open_from
        for entry in entries:
            if entry.opens is not None:
                open_from[entry.opens] = log.position.segment
            elif entry.closes is not None:
                open_from.pop(entry.closes, None)
        self._show_position(log)
        return written

    def _fail_commit(self, batch: list[Entry], exc: OSError) -> None:
        if self.state.trouble != "disk":
            _log.error("audit_commit_failed", worker=self._worker, error=exc.strerror or str(exc))
        self.state.trouble = "disk"
        self._settle([entry for entry in batch if entry.is_refusable], "disk")
        for entry in batch:
            if not entry.is_refusable:
                self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        bound = self._options.notes_max if entry.is_droppable else self._options.outcomes_max
        if len(self._kept) >= bound:
            self._observer.dropped("refused" if entry.is_droppable else "outcome")
            self._settle([entry], "disk")
        else:
            self._kept.append(entry)

    def _watch_space(self) -> None:
        """Look now and then, idle or not, so that readiness tells before a write is refused.

        A burst must not eat the reserve between two looks, so a part of it that was written is one too.
        """
        now, options = time.monotonic(), self._options
        is_early = now - self._space_checked_at < _SPACE_CHECK_S
        if is_early and self._unwatched_bytes <= max(options.reserve_bytes // 8, _SPACE_CHECK_BYTES):
            return
        self._space_checked_at, self._unwatched_bytes = now, 0
        try:
            free = self._disk.free(options.directory)
        except OSError:
            return  # the directory is gone or unreadable: the commit itself will say so
        is_short = free.bytes < options.reserve_bytes or (
            free.inodes is not None and free.inodes < options.reserve_inodes
        )
        if is_short and not self.state.is_short:
            _log.error("audit_space_low", free_bytes=free.bytes, free_inodes=free.inodes)
        self.state.is_short = is_short

    def _chores(self) -> None:
        log, options = self._log, self._options
        if log is None or not log.is_open:
            return
        try:
            if log.size >= options.segment_max_bytes or (
                log.records > 1 and log.age_s() >= options.segment_max_age_s
            ):
                log.rotate()
                self._observer.segment_opened("rotated")
                self._show_position(log)
            elif log.unsigned_for_s() >= options.checkpoint_interval_s:
                log.checkpoint()
                self._show_position(log)
        except OSError as exc:
            _log.error("audit_rotation_failed", worker=self._worker, error=exc.strerror or str(exc))

    def _last_turn(self) -> None:
        while self.pending or self._kept:
            batch = self._take()
            kept = len(self._kept)
            self._commit(batch)
            if not batch and len(self._kept) >= kept:
                break  # the disk does not take them; a start after this one closes their intents
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.seal("stopped")

    def _show_position(self, log: SegmentLog) -> None:
        self.state.segment, self.state.seq = log.position.segment, log.position.head.seq

    def _settle(self, entries: Sequence[Entry], verdict: str) -> None:
        waiting = [entry.future for entry in entries if entry.future is not None]
        if waiting:
            self._tell(_settle_all, waiting, verdict)

    def _tell(self, what: object, *args: object) -> None:
        # The loop may have been closed under us at the end of a process; then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *args)  # type: ignore[arg-type]  # one of three functions below

    def _release_lock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


def _settle_all(waiting: list[Future[str]], verdict: str) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(verdict)


def _finish(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: Future[None], fault: JournalFault) -> None:
    if not future.done():
        future.set_exception(fault)

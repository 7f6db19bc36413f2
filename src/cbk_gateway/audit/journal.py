"""The journal as the pipeline sees it: intents before, outcomes after, notes beside.

The asynchronous face of the writer's thread: deadlines, refusals and bounds on waiting. Nothing here
touches the disk, and nothing here knows HTTP beyond the refusal it raises.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Mapping
from typing import Final

import structlog

from cbk_gateway.audit.act import Act, Outcome, Result
from cbk_gateway.audit.disk import Disk
from cbk_gateway.audit.options import JournalFault, JournalObserver, JournalOptions, OnFailure
from cbk_gateway.audit.record import RecordFormat, clip, named_ids
from cbk_gateway.audit.redaction import Redactor
from cbk_gateway.audit.writer import DURABLE, Entry, JournalWriter
from cbk_gateway.errors import AuditUnavailable

REFUSED: Final = "refused"
NOT_MADE: Final = "not_made"
"""The result of a change whose record came too late."""
STOP_PATIENCE_S: Final = 5.0
_WORKER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_log = structlog.get_logger(__name__)


class Intent:
    """One write that the journal knows of; close it exactly when its last byte has passed.

    Attributes:
        name: Its name in records.
        is_durable: False only where the tenant's policy let the write go ahead without a record on disk.
    """

    __slots__ = ("_is_closed", "_journal", "_origin", "is_durable", "name")

    def __init__(self, journal: Journal, name: str, origin: dict[str, object]) -> None:
        self.name = name
        self.is_durable = False
        self._journal = journal
        self._origin = origin
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open"
        return f"<Intent {self.name} {self._origin.get('operation')} {state}>"

    @property
    def is_closed(self) -> bool:
        """Whether an outcome has been given."""
        return self._is_closed

    def close(self, outcome: Outcome) -> None:
        """Queue the outcome; durable with the next sync. Never blocks or raises; later calls are void."""
        if not self._is_closed:
            self._is_closed = True
            self._journal._queue_outcome(self.name, self._origin, outcome)  # noqa: SLF001 - the journal's own handle

    async def closed_durably(self) -> None:
        """Wait until the outcome is on disk.

        Raises:
            AuditUnavailable: It was not within the deadline; the outcome stays queued.
        """
        if self._is_closed:
            await self._journal.flushed()


class Journal:
    """One worker's audit journal.

    Args:
        options: See `JournalOptions`.
        observer: Told what happens, for metrics.
        worker: Name of this worker's chain: letters, digits, `-` and `_`. No two live processes share one.
        disk: The operating system; given only where it must misbehave.
    """

    def __init__(
        self, options: JournalOptions, observer: JournalObserver, worker: str, *, disk: Disk | None = None
    ) -> None:
        if _WORKER.fullmatch(worker) is None:
            message = f"{worker!r} cannot name a worker's journal: use letters, digits, - and _"
            raise ValueError(message)
        self.options = options
        self.worker = worker
        self.redactor = Redactor(
            options.digest_key,
            secret_paths=options.secret_paths,
            shown_fields=options.shown_fields,
            free_text=options.free_text,
        )
        self._format = RecordFormat(
            self.redactor, max_bytes=options.record_max_bytes, key_version=options.key_version
        )
        self._observer = observer
        self._disk = disk if disk is not None else Disk()
        self._writer: JournalWriter | None = None
        self._run = secrets.token_hex(4)
        self._count = 0
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Journal {self.options.directory}/{self.worker} {self._trouble() or 'healthy'}>"

    async def start(self) -> None:
        """Recover what dead processes left, and begin a segment.

        Raises:
            JournalFault: The directory cannot be used, or a live process uses it under this worker's name.
        """
        if self._writer is not None:
            return
        loop = asyncio.get_running_loop()
        writer = JournalWriter(self.options, self._observer, self.worker, loop, self._disk)
        await writer.start()
        self._writer = writer

    async def stop(self) -> None:
        """Commit what waits, sign, seal. A disk that hangs is left behind after a few seconds."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        done, _ = await asyncio.wait({writer.stop()}, timeout=STOP_PATIENCE_S)
        if not done:
            _log.error("audit_stop_gave_up", worker=self.worker, waiting=len(writer.pending))

    async def intend(self, act: Act) -> Intent:
        """Make the intent of a write durable.

        Returns:
            The open intent, once its record is synced (or, where the policy is `allow`, once that failed).

        Raises:
            AuditUnavailable: It could not be made durable within the deadline; nothing may be sent.
        """
        self._count += 1
        name = f"{self._run}-{self._count:x}"
        route = act.operation.route
        intent = Intent(
            self,
            name,
            {
                "intent": name,
                "request_id": clip(act.request_id, 128),
                "tenant": act.tenant,
                "subject": clip(act.subject, 256),
                "operation": route.audit_name,
                "resource": route.resource,
                "action": route.action,
                "ids": named_ids(act.operation),
            },
        )
        verdict = self._trouble_now()
        if verdict is None:
            began = time.monotonic()
            verdict = await self._put_and_wait(intent, self._format.intent(act, name))
            if verdict == DURABLE:
                intent.is_durable = True
                self._observer.intent_waited(time.monotonic() - began)
                return intent
        if (act.on_failure or self.options.on_failure) is OnFailure.ALLOW:
            self._observer.allowed(verdict)
            return intent
        if verdict == "deadline":
            # Its record may still become durable, and must not look like a write that went out.
            intent.close(Outcome(Result.NOT_SENT, reason="audit_deadline"))
        raise self._refusal(verdict)

    def note(self, kind: str, fields: Mapping[str, object]) -> None:
        """Queue a record that nobody waits for: refusals above all. Never blocks and never raises.

        Too many waiting refusals are dropped and counted; every other kind is kept.
        """
        writer = self._writer
        droppable = kind == REFUSED
        if writer is None or (droppable and len(writer.pending) >= self.options.notes_max):
            self._observer.dropped(REFUSED if droppable else "note")
            return
        writer.put(Entry(self._format.note(kind, fields), is_droppable=droppable), ring=False)

    async def record(self, kind: str, fields: Mapping[str, object]) -> None:
        """Make the record of a change durable before the change is made: what operators do.

        A change that is refused leaves no record, or, where its record was being written when the deadline
        passed, a second one with the same `record_id` that takes it back.

        Raises:
            AuditUnavailable: It could not be made durable within the deadline; nothing may be changed.
        """
        verdict, writer = self._trouble_now(), self._writer
        if verdict is None and writer is not None:
            self._count += 1
            named = {**fields, "record_id": f"{self._run}-{self._count:x}"}
            entry = Entry(self._format.note(kind, named), asyncio.get_running_loop().create_future())
            verdict = await self._put_change(writer, entry, kind, named)
        if verdict != DURABLE:
            raise self._refusal(verdict or "stopped")

    async def flushed(self) -> None:
        """Wait until everything handed over before is on disk.

        Raises:
            AuditUnavailable: It was not within the deadline; it stays queued.
        """
        writer = self._writer
        if writer is None:
            raise self._refusal("stopped")
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        writer.put(Entry(b"", future), ring=True)
        verdict = await self._within_deadline(future)
        if verdict != DURABLE:
            raise self._refusal(verdict)

    @property
    def is_healthy(self) -> bool:
        """Whether a write would be journalled now, as far as is known."""
        return self._trouble() is None

    @property
    def trouble(self) -> str | None:
        """Why not: "stopped", "stalled", "space" or "disk"; None when healthy."""
        return self._trouble()

    @property
    def last_sync_s(self) -> float:
        """How long the last commit took, in seconds."""
        return self._writer.state.last_sync_s if self._writer is not None else 0.0

    @property
    def last_sync_age_s(self) -> float | None:
        """Seconds since the last commit that worked; None before the first."""
        at = self._writer.state.last_sync_at if self._writer is not None else 0.0
        return time.monotonic() - at if at else None

    @property
    def waiting(self) -> int:
        """Records that wait for their sync."""
        return len(self._writer.pending) if self._writer is not None else 0

    @property
    def position(self) -> tuple[int, int]:
        """Number of the current segment and of the last durable record."""
        state = self._writer.state if self._writer is not None else None
        return (state.segment, state.seq) if state is not None else (0, 0)

    @property
    def recovered(self) -> tuple[Mapping[str, object], ...]:
        """Intents of dead processes that this start closed as `unknown`: what a resolver may look into."""
        return tuple(self._writer.state.recovered) if self._writer is not None else ()

    def _trouble(self) -> str | None:
        writer = self._writer
        if writer is None:
            return "stopped"
        busy_since = writer.state.busy_since
        if busy_since is not None and time.monotonic() - busy_since > self.options.deadline_s:
            return "stalled"
        return writer.state.trouble or ("space" if writer.state.is_short else None)

    def _trouble_now(self) -> str | None:
        """Trouble in which another try is useless: a failed commit is worth one, a hanging disk is not."""
        trouble = self._trouble()
        if trouble in {"stopped", "stalled"}:
            return trouble
        return "overloaded" if self._waiting >= self.options.pending_max else None

    async def _put_and_wait(self, intent: Intent, body: bytes) -> str:
        writer = self._writer
        if writer is None:
            return "stopped"
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting += 1
        writer.put(Entry(body, future, opens=intent.name), ring=True)
        try:
            return await self._within_deadline(future)
        except asyncio.CancelledError:
            # The caller left before anything was sent; its record may still become durable.
            intent.close(Outcome(Result.NOT_SENT, reason="cancelled"))
            raise
        finally:
            self._waiting -= 1

    async def _put_change(
        self, writer: JournalWriter, entry: Entry, kind: str, fields: Mapping[str, object]
    ) -> str:
        writer.put(entry, ring=True)
        verdict = "cancelled"
        try:
            if entry.future is not None:
                verdict = await self._within_deadline(entry.future)
        finally:
            if verdict in {"cancelled", "deadline"} and not writer.withdraw(entry):
                # The thread has it in hand: it may become durable any moment.
                self.note(kind, {**fields, "result": NOT_MADE, "reason": f"audit_{verdict}"})
        return verdict

    async def _within_deadline(self, future: asyncio.Future[str]) -> str:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self.options.deadline_s, _expire, future)
        try:
            return await future
        finally:
            timer.cancel()

    def _queue_outcome(self, name: str, origin: dict[str, object], outcome: Outcome) -> None:
        entry = Entry(self._format.outcome(origin, outcome), closes=name)
        writer = self._writer
        if writer is None or len(writer.pending) >= self.options.outcomes_max:
            self._observer.dropped("outcome")
        else:
            writer.put(entry, ring=False)

    def _refusal(self, reason: str) -> AuditUnavailable:
        self._observer.refused(reason)
        return AuditUnavailable(
            "The request was not sent, because it could not be recorded.", reason=f"audit_{reason}"
        )


def _expire(future: asyncio.Future[str]) -> None:
    if not future.done():
        future.set_result("deadline")


__all__ = ["Intent", "Journal", "JournalFault"]

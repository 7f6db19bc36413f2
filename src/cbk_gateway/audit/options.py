"""How a journal is set up and what it tells its operators: options, observer, and its own failure.

Values and a protocol only. Where options come from (files, environment) is the composition root's
business; nothing here opens, reads or decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

MIB: Final = 1024 * 1024


class OnFailure(StrEnum):
    """What becomes of a write whose intent cannot be made durable in time."""

    REFUSE = "refuse"
    ALLOW = "allow"


class JournalFault(Exception):  # noqa: N818 - named like the other packages' faults
    """The journal cannot be opened, read or written; the message names the path and the remedy."""


@dataclass(frozen=True, slots=True)
class JournalOptions:
    """Everything a journal needs to know.

    Attributes:
        directory: Where the journal lives; each worker writes below a folder of its own.
        digest_key: Master secret of the per-tenant keyed digests, at least 16 bytes. Losing it makes
            digests of old records unsearchable; sharing it makes low-entropy values guessable.
        signing_key_path: Ed25519 private key (PEM, PKCS 8), made on first start when the file is absent.
            It must not stand inside `directory`. None: `<directory>.signing.pem` beside it.
        max_wait_s: Longest time an intent waits for company before its sync, in seconds. 0 never waits.
        deadline_s: An intent that is not durable after this many seconds is refused (or let through,
            with `on_failure`); also the bound on a hanging disk.
        outcome_delay_s: Longest time an outcome waits in memory for a sync of its own, in seconds.
        segment_max_bytes: A segment is sealed when it reaches this size.
        segment_max_age_s: A segment with records in it is sealed at this age, in seconds.
        checkpoint_interval_s: Longest time between signatures while records arrive, in seconds.
        reserve_bytes: Free bytes below which no intent is taken; outcomes still are, that is what the
            reserve is for.
        reserve_inodes: Likewise for inodes; file systems that count none are exempt.
        on_failure: Default for acts that do not say it themselves.
        pending_max: Intents that may wait for their sync at a time; more are refused at once.
        notes_max: Notes that may wait in memory; further notes of refusals are dropped and counted.
        outcomes_max: Outcomes kept in memory while the disk fails; beyond it they are dropped, counted,
            and their intents are closed as `unknown` by the next start.
        record_max_bytes: Bound of one line. Optional parts give way first, the body before all.
        secret_paths: Further body fields, dotted, whose values are replaced by digests: `config.pin`.
        shown_fields: Further body fields whose values may be shown, for every type.
        free_text: Whether texts of conversations may be kept in redacted bodies. Off by default.
        key_version: Name of the digest key in force, written beside digests so that a rotation shows.
    """

    directory: Path
    digest_key: bytes = field(repr=False)
    signing_key_path: Path | None = None
    max_wait_s: float = 0.002
    deadline_s: float = 1.0
    outcome_delay_s: float = 0.05
    segment_max_bytes: int = 64 * MIB
    segment_max_age_s: float = 3600.0
    checkpoint_interval_s: float = 60.0
    reserve_bytes: int = 64 * MIB
    reserve_inodes: int = 1000
    on_failure: OnFailure = OnFailure.REFUSE
    pending_max: int = 10_000
    notes_max: int = 10_000
    outcomes_max: int = 100_000
    record_max_bytes: int = 16_384
    secret_paths: frozenset[str] = frozenset()
    shown_fields: frozenset[str] = frozenset()
    free_text: bool = False
    key_version: str = "1"

    def __post_init__(self) -> None:
        """Refuse what would make the journal meaningless.

        Raises:
            ValueError: The digest key is short, or the signing key stands among the records it signs.
        """
        if len(self.digest_key) < 16:
            message = "the audit digest key needs at least 16 bytes"
            raise ValueError(message)
        if self.key_path.resolve().is_relative_to(self.directory.resolve()):
            message = f"the audit signing key {self.key_path} must not stand inside {self.directory}"
            raise ValueError(message)

    @property
    def key_path(self) -> Path:
        """Where the private key is."""
        if self.signing_key_path is not None:
            return self.signing_key_path
        return self.directory.with_name(self.directory.name + ".signing.pem")


class JournalObserver(Protocol):
    """What the journal reports; every text argument is from a bounded set. Called from two threads."""

    def committed(self, records: int, size_bytes: int, sync_s: float) -> None:
        """One group commit ended well: `sync_s` is the time of write and sync together."""

    def intent_waited(self, wait_s: float) -> None:
        """An intent became durable after this time."""

    def refused(self, reason: str) -> None:
        """A write was refused because its intent could not be made durable."""

    def allowed(self, reason: str) -> None:
        """A write went ahead without a durable intent, as configured."""

    def dropped(self, kind: str) -> None:
        """A record was lost in memory: `refused` notes when too many wait, outcomes of a dead disk."""

    def segment_opened(self, reason: str) -> None:
        """A new segment began: `started`, `rotated` or `lost`."""

    def recovered(self, open_intents: int) -> None:
        """That many intents of a dead process were closed as `unknown`."""


class SilentObserver:
    """An observer that counts nothing."""

    def committed(self, records: int, size_bytes: int, sync_s: float) -> None:
        """See `JournalObserver`."""

    def intent_waited(self, wait_s: float) -> None:
        """See `JournalObserver`."""

    def refused(self, reason: str) -> None:
        """See `JournalObserver`."""

    def allowed(self, reason: str) -> None:
        """See `JournalObserver`."""

    def dropped(self, kind: str) -> None:
        """See `JournalObserver`."""

    def segment_opened(self, reason: str) -> None:
        """See `JournalObserver`."""

    def recovered(self, open_intents: int) -> None:
        """See `JournalObserver`."""

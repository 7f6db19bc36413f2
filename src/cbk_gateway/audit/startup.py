"""Opening a chain after whoever wrote it before: claim, examine, say so, close what was left open.

Runs on the writer's thread, before the first commit. The dead are told from the living by the lock each
writer holds on its folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from cbk_gateway.audit.act import Result
from cbk_gateway.audit.disk import Disk
from cbk_gateway.audit.options import JournalFault, JournalOptions
from cbk_gateway.audit.record import encode, stamp
from cbk_gateway.audit.recovery import Remains, examine
from cbk_gateway.audit.segment import SegmentLog, claim
from cbk_gateway.audit.signing import SigningKey, load_or_make

_log = structlog.get_logger(__name__)


def open_log(
    options: JournalOptions, worker: str, disk: Disk
) -> tuple[SigningKey, int, SegmentLog, list[dict[str, object]]]:
    """Claim this worker's folder, recover its chain and begin a segment.

    Returns:
        The signing key, the lock's descriptor, the chain, and the intents closed as unknown.

    Raises:
        JournalFault: The folder is another live process's, or cannot be used.
        OSError: The disk failed.
    """
    key = load_or_make(options.key_path)
    folder = options.directory / worker
    lock = claim(folder)
    if lock is None:
        message = f"another process is writing the audit journal in {folder}: give each worker its own name"
        raise JournalFault(message)
    try:
        remains = examine(folder)
        log = SegmentLog(folder, worker, key, remains.position, disk)
        log.open_next("started", remains.details())
        closed = _close_open(log, remains, "process_died")
    except BaseException:
        os.close(lock)
        raise
    return key, lock, log, closed


def recover_others(
    options: JournalOptions, worker: str, key: SigningKey, disk: Disk
) -> list[dict[str, object]]:
    """Close what dead workers of other names left open, so that fewer workers than before lose nothing.

    A folder that cannot be recovered is logged and left: it must not keep this worker from starting.
    """
    closed: list[dict[str, object]] = []
    for folder in sorted(options.directory.iterdir()):
        if folder.name == worker or not folder.is_dir():
            continue
        try:
            lock = claim(folder)
            if lock is None:
                continue
            try:
                closed += _recover_folder(folder, key, disk)
            finally:
                os.close(lock)
        except (OSError, JournalFault) as exc:
            _log.error("audit_recovery_failed", folder=str(folder), error=str(exc))
    return closed


def _recover_folder(folder: Path, key: SigningKey, disk: Disk) -> list[dict[str, object]]:
    remains = examine(folder)
    if remains.position.segment == 0 or (remains.was_sealed and not remains.open_intents):
        return []
    log = SegmentLog(folder, folder.name, key, remains.position, disk)
    log.open_next("recovered", remains.details())
    closed = _close_open(log, remains, "process_died")
    log.seal("recovered")
    return closed


def _close_open(log: SegmentLog, remains: Remains, reason: str) -> list[dict[str, object]]:
    if not remains.open_intents:
        return []
    ending = {"result": Result.UNKNOWN.value, "reason": reason}
    bodies = [
        encode({"time": stamp(), "kind": "outcome", **origin, **ending}) for origin in remains.open_intents
    ]
    log.commit(bodies)
    log.position.open_from.clear()
    _log.warning("audit_intents_recovered", worker=log.worker, closed_as_unknown=len(bodies))
    return remains.open_intents

"""Quota counters on disk, against a store that forgets. One small JSON file per worker.

Files of workers that are gone are merged and removed at start. A file that cannot be read is worth nothing
and harms nothing. Rates need no such notes: they refill within seconds.

What it promises. Each file is written whole under another name, forced to the disk, and renamed: after a
crash of worker, store and machine together, what was counted until the last note (every 20 seconds) is
counted still. Without a directory, the same holds as long as one worker of the gateway outlives the store.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson
import structlog

_log = structlog.get_logger(__name__)

_OLD_AFTER_S: Final = 300.0
_KEPT: Final = dt.timedelta(days=40)
_MOST_BYTES: Final = 16_000_000


class Checkpoint:
    """Reads and writes one worker's notes. Methods block: call them in a thread.

    Args:
        directory: Where the notes are; None for nowhere.
        worker_id: This worker's name.
    """

    def __init__(self, directory: Path | None, worker_id: str) -> None:
        self._directory = directory
        self._worker_id = worker_id
        self._merged: frozenset[Path] = frozenset()

    def load(self) -> dict[str, int]:
        """The highest noted count of each counter, over all workers' notes."""
        merged: dict[str, int] = {}
        if self._directory is None or not self._directory.is_dir():
            return merged
        self._merged = frozenset(self._directory.glob("quotas-*.json"))
        oldest = (dt.datetime.now(tz=dt.UTC) - _KEPT).date().isoformat()
        for path in self._merged:
            for key, used in _read(path).items():
                # A key ends in its period, `2026-11` or `2026-11-22`, and such names sort as dates do.
                if key.rpartition(":")[2] >= oldest[:7]:
                    merged[key] = max(used, merged.get(key, 0))
        return merged

    def save(self, noted: Mapping[str, int], earlier: Mapping[str, int]) -> None:
        """Note counters down, with those of an earlier run; replaces the file whole."""
        if self._directory is None:
            return
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._directory / f"quotas-{self._worker_id}.json"
            draft = path.with_suffix(".new")
            with draft.open("wb") as file:
                file.write(orjson.dumps({**earlier, **noted}))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            self._remove_merged(path)
        except OSError as exc:
            _log.warning("quota_checkpoint_failed", error=str(exc))

    def _remove_merged(self, own: Path) -> None:
        """Remove notes that nobody renews and whose content is in ours."""
        for path in self._merged:
            with contextlib.suppress(OSError):
                if path != own and time.time() - path.stat().st_mtime > _OLD_AFTER_S:
                    path.unlink()


def _read(path: Path) -> dict[str, int]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        document = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as exc:
        _log.warning("quota_checkpoint_unreadable", file=path.name, error=str(exc))
        return {}
    if not isinstance(document, dict):
        return {}
    return {key: used for key, used in document.items() if isinstance(used, int) and used >= 0}

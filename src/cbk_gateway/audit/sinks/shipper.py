"""The shipper: reads a journal on from where it was, gives a sink its batches, remembers how far it came.

The position moves only after the sink has taken a batch, and is on disk before the next one is read. What
a sink does with a batch is its own business; here are order, memory, and patience with a dead one.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import orjson
import structlog

from cbk_gateway.audit.options import JournalFault
from cbk_gateway.audit.reading import MAX_LINE_BYTES, UNREADABLE, SegmentFile, segments, workers

_log = structlog.get_logger(__name__)


class SinkFault(Exception):  # noqa: N818 - named like the other packages' faults
    """A sink did not take a batch; it will be offered again."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive lines of one chain.

    Attributes:
        worker: Whose chain.
        segment: The segment they stand in.
        offset: Byte in it (uncompressed) at which they begin.
        lines: The lines with their newlines.
    """

    worker: str
    segment: int
    offset: int
    lines: tuple[bytes, ...] = field(repr=False)

    @property
    def id(self) -> str:
        """A name that is the same when the batch is sent again with the same bounds."""
        return f"{self.worker}-{self.segment}-{self.offset}-{len(self.lines)}"


class Sink(Protocol):
    """Somewhere records go. `name` is used for its position file, log and metrics."""

    name: str

    async def send(self, batch: Batch) -> None:
        """Deliver a batch; on return the receiver has it. Raises SinkFault otherwise."""

    async def close(self) -> None:
        """Give up connections."""


@dataclass(frozen=True, slots=True)
class ShipperOptions:
    """How a shipper works.

    Attributes:
        batch_records: Most records in a batch.
        batch_bytes: Size above which a batch takes no further record.
        poll_s: Seconds between looks at a journal that has nothing new.
        send_timeout_s: Longest time for one batch.
        backoff_s: First pause after a failure; doubled each time.
        backoff_max_s: Longest pause.
        workers: The chains to ship; empty for all. Each chain belongs to one shipper per sink.
    """

    batch_records: int = 500
    batch_bytes: int = 1 << 20
    poll_s: float = 0.5
    send_timeout_s: float = 10.0
    backoff_s: float = 0.5
    backoff_max_s: float = 60.0
    workers: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Place:
    segment: int = 0
    offset: int = 0


class Shipper:
    """Feeds one sink from a journal.

    Args:
        directory: The journal.
        sink: Where to.
        positions: Folder of position files, outside the journal.
        options: See `ShipperOptions`.
        jitter: Gives a number in [0, 1) for the pauses.
    """

    def __init__(
        self,
        directory: Path,
        sink: Sink,
        positions: Path,
        options: ShipperOptions | None = None,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._directory = directory
        self._sink = sink
        self._path = positions / f"{sink.name}.json"
        self._options = options if options is not None else ShipperOptions()
        self._jitter = jitter
        self._places = self._load()
        self.sent = 0
        self.failures = 0

    def __repr__(self) -> str:
        return f"<Shipper to {self._sink.name}, {self.sent} records, {self.failures} failures in a row>"

    async def run(self) -> None:
        """Ship until cancelled. A sink that fails is offered the same batch again, ever more slowly."""
        options = self._options
        try:
            while True:
                try:
                    moved = await self.ship_once()
                except SinkFault as fault:
                    if self.failures == 0:
                        _log.warning("audit_sink_failed", sink=self._sink.name, error=str(fault))
                    self.failures += 1
                    await asyncio.sleep(self.pause_s())
                    continue
                if self.failures:
                    _log.warning("audit_sink_back", sink=self._sink.name)
                    self.failures = 0
                if not moved:
                    await asyncio.sleep(options.poll_s)
        finally:
            await self._sink.close()

    async def ship_once(self) -> int:
        """Send what is there now, one batch per chain at most; returns the records sent.

        Raises:
            SinkFault: The sink did not take a batch; the position stands before it.
        """
        moved = 0
        for folder in self._folders():
            batch, after = await asyncio.to_thread(self._next_batch, folder)
            if batch is not None:
                await self._send(batch)
                moved += len(batch.lines)
                self.sent += len(batch.lines)
            if after != self._places.get(folder.name):
                self._places[folder.name] = after
                await asyncio.to_thread(self._save)
        return moved

    def has_shipped(self, file: SegmentFile) -> bool:
        """Whether all of a segment has been taken: retention may remove it."""
        place = self._places.get(file.worker, _Place())
        return place.segment > file.number

    def pause_s(self) -> float:
        """The pause before the next try, full jitter over a doubling bound."""
        bound = min(self._options.backoff_max_s, self._options.backoff_s * 2.0 ** min(self.failures - 1, 20))
        return bound * self._jitter()

    def lag(self) -> dict[str, int]:
        """Segments not wholly shipped yet, per chain."""
        return {
            folder.name: sum(not self.has_shipped(file) for file in segments(folder))
            for folder in self._folders()
        }

    async def _send(self, batch: Batch) -> None:
        try:
            async with asyncio.timeout(self._options.send_timeout_s):
                await self._sink.send(batch)
        except TimeoutError:
            message = f"no answer within {self._options.send_timeout_s} s"
            raise SinkFault(message) from None

    def _folders(self) -> list[Path]:
        try:
            found = workers(self._directory)
        except JournalFault:
            return []
        chosen = self._options.workers
        return [folder for folder in found if not chosen or folder.name in chosen]

    def _next_batch(self, folder: Path) -> tuple[Batch | None, _Place]:
        place = self._places.get(folder.name, _Place())
        files = [file for file in segments(folder) if file.number >= place.segment]
        for index, file in enumerate(files):
            offset = place.offset if file.number == place.segment else 0
            lines = _read_lines(file, offset, self._options)
            if lines:
                batch = Batch(folder.name, file.number, offset, tuple(lines))
                return batch, _Place(file.number, offset + sum(map(len, lines)))
            if index + 1 == len(files):
                return None, _Place(file.number, offset)
        return None, place

    def _load(self) -> dict[str, _Place]:
        try:
            found = orjson.loads(self._path.read_bytes())
            return {str(name): _Place(int(at[0]), int(at[1])) for name, at in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            # Better to send everything again than to lose something.
            _log.error("audit_position_unreadable", path=str(self._path))
            return {}

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        places = {name: (place.segment, place.offset) for name, place in self._places.items()}
        draft = self._path.with_name(f".{self._path.name}.draft")
        with draft.open("wb") as file:
            file.write(orjson.dumps(places))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)


def _read_lines(file: SegmentFile, offset: int, options: ShipperOptions) -> Sequence[bytes]:
    """Whole lines from an offset on, within the bounds of a batch."""
    lines: list[bytes] = []
    size = 0
    with suppress(*UNREADABLE), file.open() as content:
        content.seek(offset)
        while len(lines) < options.batch_records and size < options.batch_bytes:
            line = content.readline(MAX_LINE_BYTES)
            if not line.endswith(b"\n"):
                break
            lines.append(line)
            size += len(line)
    return lines

"""Records into a Redis stream: one entry per record, in order, the line as it stands in the journal.

A stream is good for fan-out and no ground truth: it may be trimmed and a fail-over may lose its end. The
journal stays what counts.
"""

from __future__ import annotations

from typing import Final

from cbk_gateway.audit.reading import parse
from cbk_gateway.audit.sinks.shipper import Batch, SinkFault
from cbk_gateway.store import Store, StoreFault

_CHUNK: Final = 200


class RedisStreamSink:
    """Appends to a stream.

    Args:
        store: The store; not closed here.
        stream: Key of the stream.
        max_entries: Approximate bound of the stream (`MAXLEN ~`); 0 for none.
    """

    name = "redis"

    def __init__(
        self, store: Store, stream: str = "cbkgw:{audit}:records", max_entries: int = 1_000_000
    ) -> None:
        self._store = store
        self._stream = stream
        self._max_entries = max_entries

    async def send(self, batch: Batch) -> None:
        """Append a batch. Raises SinkFault when the store does not take it."""
        for start in range(0, len(batch.lines), _CHUNK):
            for line in batch.lines[start : start + _CHUNK]:
                await self._add(batch.worker, line)

    async def close(self) -> None:
        """Nothing of its own is open."""

    async def _add(self, worker: str, line: bytes) -> None:
        seq = (parse(line) or {}).get("seq")
        arguments: list[str | bytes] = ["XADD", self._stream]
        if self._max_entries:
            arguments += ["MAXLEN", "~", str(self._max_entries)]
        arguments += ["*", "worker", worker, "seq", str(seq), "record", line.rstrip(b"\n")]
        try:
            await self._store.call(lambda client: client.execute_command(*arguments))
        except StoreFault as exc:
            message = f"the store does not take records: {exc}"
            raise SinkFault(message) from exc

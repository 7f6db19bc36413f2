"""The entries of the hot path: found by the bytes of a request, bounded in number and bytes, counted.

Which requests come often enough to have one is told here too. Whether an entry may be made or used is
`hotpath.py`'s question. Heads hold tokens, so they are never shown.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from cbk_gateway.hot_entry import HotEntry
from cbk_gateway.telemetry import Metrics

MAX_ENTRIES: Final = 4096
MAX_BYTES: Final = 32 * 1024**2
MAX_HEAD_BYTES: Final = 8 * 1024
_MAX_SEEN: Final = 8192


class HotEntries:
    """The entries of one worker. The least used leave first, and their counts with them to the metrics.

    Attributes:
        find: The entry of a head, or None.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._entries: OrderedDict[bytes, HotEntry] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._size_bytes = 0
        # Of entries that have left.
        self._given = self._refused = 0
        self.find: Callable[[bytes], HotEntry | None] = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, head: bytes) -> bool:
        return head in self._entries

    def __repr__(self) -> str:
        return f"<HotEntries {len(self)}, {self._size_bytes} bytes>"

    @property
    def given(self) -> int:
        """Answers given from entries."""
        return self._given + sum(entry.given for entry in self._entries.values())

    @property
    def refused(self) -> int:
        """Refusals of the limiter given from entries."""
        return self._refused + sum(entry.refused for entry in self._entries.values())

    def is_repeated(self, head: bytes) -> bool:
        """Whether these bytes came before: a head that is never repeated must not push others out."""
        if len(head) > MAX_HEAD_BYTES:
            return False
        name = hash(head)
        if name in self._seen:
            del self._seen[name]
            return True
        self._seen[name] = None
        if len(self._seen) > _MAX_SEEN:
            self._seen.popitem(last=False)
        return False

    def keep(self, head: bytes, entry: HotEntry) -> None:
        """Keep an entry for a head that has none."""
        self._entries[head] = entry
        self._size_bytes += _size(head, entry)
        while len(self._entries) > MAX_ENTRIES or self._size_bytes > MAX_BYTES:
            self.forget(next(iter(self._entries)))

    def touch(self, head: bytes) -> None:
        """It was used."""
        self._entries.move_to_end(head)

    def forget(self, head: bytes) -> None:
        """Forget one, if there is one."""
        entry = self._entries.pop(head, None)
        if entry is not None:
            entry.tell(self._metrics)
            self._given += entry.given
            self._refused += entry.refused
            self._size_bytes -= _size(head, entry)

    def clear(self) -> None:
        """Forget all."""
        for head in tuple(self._entries):
            self.forget(head)
        self._seen.clear()

    def tell(self) -> None:
        """Tell the metrics of what was only counted so far."""
        for entry in self._entries.values():
            entry.tell(self._metrics)


def _size(head: bytes, entry: HotEntry) -> int:
    return len(head) + entry.prepared.size_bytes

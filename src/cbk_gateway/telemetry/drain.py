"""Log lines on their way out: a bounded queue and the one thread that writes it.

A log's reader may be slow or stuck, and a write to a full pipe blocks; so the event loop never writes.
When the queue is full, lines are dropped and counted. Lines come in lots, and waking a thread for each would
cost more than the line: the thread lingers for a moment before it writes, unless somebody is in a hurry.
What the lines say is no business of this module.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import IO, Final

_BATCH: Final = 256
_LINGER_S: Final = 0.02


class LogDrain:
    """Writes lines to a stream from a thread of its own.

    Args:
        stream: A text stream such as `sys.stderr`; its binary buffer is used when it has one.
        capacity: Lines kept while the stream is slow.

    Attributes:
        drops: Lines lost so far, because the queue was full or the stream refused them.
    """

    def __init__(self, stream: IO[str], capacity: int = 10_000) -> None:
        self._stream = stream
        self._capacity = capacity
        self._lines: deque[bytes | threading.Event] = deque()
        self._is_needed = threading.Event()
        self._hurry = threading.Event()
        self.drops = 0
        self._thread = threading.Thread(target=self._run, name="log-drain", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Queue a line, without its end. Never waits."""
        if len(self._lines) >= self._capacity:
            self.drops += 1
            return
        self._lines.append(line)
        if not self._is_needed.is_set():
            self._is_needed.set()

    def put_urgent(self, line: bytes) -> None:
        """Queue a line that says what an operator must hear though the process may be about to die."""
        self.put(line)
        self._hurry.set()

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Wait until all lines queued before are written. False when that took too long."""
        written = threading.Event()
        self._append(written)
        return written.wait(timeout_s)

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is queued and end the thread; lines put later are dropped."""
        self.flush(timeout_s)
        self._append(_End())
        self._thread.join(timeout_s)

    def reborn(self) -> LogDrain:
        """A drain of the same stream, for a process that was forked off and has no thread yet."""
        return LogDrain(self._stream, self._capacity)

    def _append(self, mark: threading.Event) -> None:
        self._lines.append(mark)
        self._hurry.set()
        self._is_needed.set()

    def _run(self) -> None:
        while True:
            self._is_needed.wait()
            self._hurry.wait(_LINGER_S)
            # Before looking: whatever is queued from here on is seen below, or wakes this thread again.
            self._hurry.clear()
            self._is_needed.clear()
            while self._lines:
                if self._write_some():
                    return

    def _write_some(self) -> bool:
        """Write a batch; returns whether it was the last one."""
        batch: list[bytes] = []
        item: bytes | threading.Event = b""
        while self._lines and len(batch) < _BATCH:
            item = self._lines.popleft()
            if not isinstance(item, bytes):
                break
            batch.append(item)
        if batch:
            self._write(batch)
        if isinstance(item, threading.Event):
            item.set()
        return isinstance(item, _End)

    def _write(self, batch: list[bytes]) -> None:
        text = b"\n".join(batch) + b"\n"
        try:
            binary = getattr(self._stream, "buffer", None)
            if binary is not None:
                binary.write(text)
                binary.flush()
            else:
                self._stream.write(text.decode())
                self._stream.flush()
        except (OSError, ValueError):
            # The reader is gone or the stream is closed: there is nowhere left to say so but the count.
            self.drops += len(batch)


class _End(threading.Event):
    """The last item of a queue."""

"""Log lines on their way out: a bounded queue and the one thread that writes it.

A log's reader may be slow or stuck, and a write to a full pipe blocks; so the event loop never writes.
When the queue is full, lines are dropped and counted. What the lines say is no business of this module.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import IO, Final

_BATCH: Final = 256


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
        self._lines: queue.Queue[bytes | threading.Event] = queue.Queue(capacity)
        self.drops = 0
        self._thread = threading.Thread(target=self._run, name="log-drain", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Queue a line, without its end. Never waits."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.drops += 1

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Wait until all lines queued before are written. False when that took too long."""
        written = threading.Event()
        try:
            self._lines.put(written, timeout=timeout_s)
        except queue.Full:
            return False
        return written.wait(timeout_s)

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is queued and end the thread; lines put later are dropped."""
        self.flush(timeout_s)
        with contextlib.suppress(queue.Full):
            self._lines.put(_End(), timeout=timeout_s)
        self._thread.join(timeout_s)

    def reborn(self) -> LogDrain:
        """A drain of the same stream, for a process that was forked off and has no thread yet."""
        return LogDrain(self._stream, self._capacity)

    def _run(self) -> None:
        while True:
            batch: list[bytes] = []
            item = self._lines.get()
            while isinstance(item, bytes):
                batch.append(item)
                if len(batch) >= _BATCH:
                    break
                try:
                    item = self._lines.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._write(batch)
            if isinstance(item, threading.Event):
                item.set()
            if isinstance(item, _End):
                return

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

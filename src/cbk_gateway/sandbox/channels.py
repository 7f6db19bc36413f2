"""Publish and subscribe: named channels with a short history and any number of listeners.

In memory only. Names are whatever the caller passes; keeping credentials apart is the caller's part.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cbk_gateway.sandbox.answers import JsonObject

HISTORY: Final = 100
#: Heads of the channels that the sandbox itself publishes on.
EVENT_CHANNEL: Final = "event-log"
TASK_CHANNEL: Final = "task"
#: A listener that reads slower than this many messages behind loses the oldest of them.
BACKLOG: Final = 1_000


class Channels:
    """All channels."""

    def __init__(self) -> None:
        self._history: dict[str, deque[JsonObject]] = {}
        self._listeners: dict[str, set[asyncio.Queue[JsonObject]]] = {}

    def publish(self, name: str, message: JsonObject) -> None:
        """Hand a message to all listeners and remember it."""
        self._history.setdefault(name, deque(maxlen=HISTORY)).append(message)
        for queue in self._listeners.get(name, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(message)

    @contextmanager
    def listen(self, name: str, history: int = 0) -> Iterator[asyncio.Queue[JsonObject]]:
        """A queue of the messages from now on, led by the last `history` ones."""
        queue: asyncio.Queue[JsonObject] = asyncio.Queue(maxsize=BACKLOG)
        kept = self._history.get(name, ())
        for message in list(kept)[-history:] if history > 0 else ():
            queue.put_nowait(message)
        self._listeners.setdefault(name, set()).add(queue)
        try:
            yield queue
        finally:
            listeners = self._listeners[name]
            listeners.discard(queue)
            if not listeners:
                del self._listeners[name]

    def listeners(self, name: str) -> int:
        """How many listen to a channel now."""
        return len(self._listeners.get(name, ()))

    def clear(self) -> None:
        """Forget all history; listeners stay."""
        self._history.clear()

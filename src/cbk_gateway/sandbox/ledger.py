"""What an account has used and what happened in it: token counts, message counts, events.

Counts and bounded lists in memory. It neither charges nor refuses; the API's limits are planted as faults.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cbk_gateway.sandbox.answers import JsonObject

KEPT: Final = 1_000


@dataclass(slots=True)
class Usage:
    """Running totals of one account, bot or conversation."""

    tokens: int = 0
    conversations: int = 0
    messages: int = 0

    def shape(self) -> JsonObject:
        """The totals as the API shows them."""
        return {"tokens": self.tokens, "conversations": self.conversations, "messages": self.messages}


@dataclass(slots=True)
class Book:
    """The entries of one account, newest last."""

    usage: Usage = field(default_factory=Usage)
    parts: dict[str, Usage] = field(default_factory=dict)
    entries: deque[JsonObject] = field(default_factory=lambda: deque(maxlen=KEPT))
    events: deque[JsonObject] = field(default_factory=lambda: deque(maxlen=KEPT))


class Ledger:
    """The books of all accounts.

    Args:
        now_ms: Milliseconds since the epoch.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._books: dict[str, Book] = {}
        self._count = 0

    def book(self, owner: str) -> Book:
        """The book of an account, empty when new."""
        return self._books.setdefault(owner, Book())

    def spend(self, owner: str, kind: str, count: int, **parts: str | None) -> None:
        """Count usage of a kind: `token`, `conversation` or `message`.

        The parts are ids to count it under as well, such as `botId` and `conversationId`.
        """
        book = self.book(owner)
        named = {name: part for name, part in parts.items() if part}
        usages = [book.usage, *(book.parts.setdefault(part, Usage()) for part in named.values())]
        for usage in usages:
            setattr(usage, f"{kind}s", getattr(usage, f"{kind}s") + count)
        book.entries.append(self._entry("usage", {"type": kind, "count": count, **named}))

    def note(self, owner: str, event: str, **ids: str | None) -> JsonObject:
        """Log an event and return it as the API shows it."""
        entry = self._entry("event", {"type": event, **{name: value for name, value in ids.items() if value}})
        self.book(owner).events.append(entry)
        return entry

    def clear(self) -> None:
        """Forget everything."""
        self._books.clear()

    def _entry(self, prefix: str, fields: JsonObject) -> JsonObject:
        self._count += 1
        now = self._now_ms()
        return {"id": f"{prefix}_{now:011x}{self._count:06x}", **fields, "createdAt": now, "updatedAt": now}

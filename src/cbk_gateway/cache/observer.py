"""What the cache tells whoever counts: plain values, bounded words.

An implementation that counts is plugged in from outside; the one here does nothing. It must not block.
"""

from __future__ import annotations

from typing import Protocol


class CacheObserver(Protocol):
    """Events of the cache. Every `str` argument is from a bounded set."""

    def hit(self, tier: str) -> None:
        """An answer from memory: tier "l1", "l2", "shared" or "stale"."""

    def missed(self, reason: str) -> None:
        """A request that will fetch: "miss", "stale" or "handover"."""

    def passed(self, reason: str) -> None:
        """A request forwarded without being remembered."""

    def collapsed(self) -> None:
        """A request answered by another's fetch."""

    def stored(self, size_bytes: int) -> None:
        """An answer was kept."""

    def unstored(self, reason: str) -> None:
        """An answer was not kept."""

    def invalidated(self, cause: str) -> None:
        """Types of an account became old: "write", "purge", "feed", "recovery"."""

    def stale_served(self, kind: str) -> None:
        """An answer past its lifetime was served: "revalidate" or "error"."""

    def evicted(self, tier: str, count: int) -> None:
        """Entries gave way to others."""

    def memory(self, entries: int, size_bytes: int) -> None:
        """Size of the worker's own tier after a change."""

    def feed_lag(self, seconds: float) -> None:
        """How long the invalidation feed took to bring this worker's own beat back."""

    def feed_live(self, *, is_live: bool) -> None:
        """Whether the worker's own tier may be served from."""

    def write_waited(self, seconds: float) -> None:
        """How long a write's answer waited for the other workers."""


class SilentObserver:
    """Counts nothing."""

    def hit(self, tier: str) -> None:
        """Ignore it."""

    def missed(self, reason: str) -> None:
        """Ignore it."""

    def passed(self, reason: str) -> None:
        """Ignore it."""

    def collapsed(self) -> None:
        """Ignore it."""

    def stored(self, size_bytes: int) -> None:
        """Ignore it."""

    def unstored(self, reason: str) -> None:
        """Ignore it."""

    def invalidated(self, cause: str) -> None:
        """Ignore it."""

    def stale_served(self, kind: str) -> None:
        """Ignore it."""

    def evicted(self, tier: str, count: int) -> None:
        """Ignore it."""

    def memory(self, entries: int, size_bytes: int) -> None:
        """Ignore it."""

    def feed_lag(self, seconds: float) -> None:
        """Ignore it."""

    def feed_live(self, *, is_live: bool) -> None:
        """Ignore it."""

    def write_waited(self, seconds: float) -> None:
        """Ignore it."""

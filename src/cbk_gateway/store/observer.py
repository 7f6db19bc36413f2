"""What the store reports of itself, as plain values. What counts the events is not known here."""

from __future__ import annotations

from typing import Protocol

from cbk_gateway.store.fault import StoreTrouble


class StoreObserver(Protocol):
    """Receives events, on the event loop; calls must return at once."""

    def answered(self, seconds: float) -> None:
        """A call got its answer after this long, waiting for a connection included."""

    def failed(self, trouble: StoreTrouble) -> None:
        """A call got none."""

    def sent(self, commands: int) -> None:
        """So many commands left in one pipeline: all that was asked of one server in a turn of the loop."""

    def available(self, *, is_available: bool) -> None:
        """Calls go out from now on, or do not."""


class SilentObserver:
    """Reports to nobody."""

    def answered(self, seconds: float) -> None:
        """Ignored."""

    def failed(self, trouble: StoreTrouble) -> None:
        """Ignored."""

    def sent(self, commands: int) -> None:
        """Ignored."""

    def available(self, *, is_available: bool) -> None:
        """Ignored."""

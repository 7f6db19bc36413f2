"""What this package tells the outside about itself: events with bounded labels, counted by whoever plugs in.

No metric, log or trace is made here. Every method is called from the event loop and must return at once.
"""

from __future__ import annotations

from typing import Protocol


class IdentityObserver(Protocol):
    """Receives the events of the identity package. `issuer` is always a configured name."""

    def token_verified(self, issuer: str, algorithm: str) -> None:
        """A token seen for the first time was accepted."""

    def token_remembered(self, issuer: str) -> None:
        """A remembered token was accepted by the asynchronous path; the fast path reports nothing."""

    def token_refused(self, reason: str) -> None:
        """A request was refused; `reason` is one of `Reason`."""

    def keys_fetched(self, issuer: str, outcome: str) -> None:
        """A key set was asked for; `outcome` is `fetched` or one of `key_fetch.FetchReason`."""

    def keys_in_force(self, issuer: str, count: int) -> None:
        """The number of usable keys of an issuer changed."""

    def revocation_applied(self, kind: str) -> None:
        """A revocation took effect in this process; `kind` is one of `RevocationKind`."""

    def revocations_confirmed(self, count: int, is_confirmed: bool) -> None:
        """The list of revocations was confirmed by the store, or could not be."""


class SilentObserver:
    """An observer that counts nothing."""

    def token_verified(self, issuer: str, algorithm: str) -> None:
        """Nothing happens."""

    def token_remembered(self, issuer: str) -> None:
        """Nothing happens."""

    def token_refused(self, reason: str) -> None:
        """Nothing happens."""

    def keys_fetched(self, issuer: str, outcome: str) -> None:
        """Nothing happens."""

    def keys_in_force(self, issuer: str, count: int) -> None:
        """Nothing happens."""

    def revocation_applied(self, kind: str) -> None:
        """Nothing happens."""

    def revocations_confirmed(self, count: int, is_confirmed: bool) -> None:
        """Nothing happens."""

"""The events this package reports, as plain values. What counts them is the app's business."""

from __future__ import annotations

from typing import Protocol

from cbk_gateway.operation import CostClass
from cbk_gateway.upstream.outcomes import Cause, Outcome


class UpstreamObserver(Protocol):
    """Receives events. Every argument is from a bounded set or a number; calls must return at once."""

    def connection_opened(self, connect_s: float) -> None:
        """A connection is ready, TLS included, after `connect_s` seconds."""

    def connection_closed(self) -> None:
        """A connection that was opened is gone."""

    def connection_failed(self, cause: Cause) -> None:
        """No connection could be had."""

    def answered(self, cost_class: CostClass, status: int, first_byte_s: float, attempts: int) -> None:
        """The head of an answer arrived `first_byte_s` seconds after its attempt began."""

    def faulted(self, cost_class: CostClass, cause: Cause, outcome: Outcome, attempts: int) -> None:
        """A call ended without an answer."""

    def retried(self, cause: Cause, *, paid: bool) -> None:
        """An attempt is repeated; `paid` when it took from the retry budget."""

    def breaker_changed(self, scope: str, state: str) -> None:
        """A breaker went to `closed`, `open` or `half_open`; `scope` is `upstream` or `account`."""

    def concurrency_changed(self, bound: float) -> None:
        """The bound on short calls moved."""

    def queued(self, waited_s: float, *, admitted: bool) -> None:
        """A call waited for its turn and got it, or was refused."""

    def stream_ended(self, ending: str) -> None:
        """A relayed stream ended: `complete`, `truncated`, `client_abort` or `deadline`."""

    def shielded(self, decision: str) -> None:
        """The duplicate shield decided: `proceed`, `attach`, `replay`, `resolve` or `refuse`."""

    def reachable(self, *, is_reachable: bool) -> None:
        """The upstream did, or did not, answer a probe."""


class SilentObserver:
    """Reports to nobody."""

    def connection_opened(self, connect_s: float) -> None:
        """Ignored."""

    def connection_closed(self) -> None:
        """Ignored."""

    def connection_failed(self, cause: Cause) -> None:
        """Ignored."""

    def answered(self, cost_class: CostClass, status: int, first_byte_s: float, attempts: int) -> None:
        """Ignored."""

    def faulted(self, cost_class: CostClass, cause: Cause, outcome: Outcome, attempts: int) -> None:
        """Ignored."""

    def retried(self, cause: Cause, *, paid: bool) -> None:
        """Ignored."""

    def breaker_changed(self, scope: str, state: str) -> None:
        """Ignored."""

    def concurrency_changed(self, bound: float) -> None:
        """Ignored."""

    def queued(self, waited_s: float, *, admitted: bool) -> None:
        """Ignored."""

    def stream_ended(self, ending: str) -> None:
        """Ignored."""

    def shielded(self, decision: str) -> None:
        """Ignored."""

    def reachable(self, *, is_reachable: bool) -> None:
        """Ignored."""

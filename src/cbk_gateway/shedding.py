"""What is refused while the event loop runs late, and in which order: streams, writes, forwarded reads.

A loop that runs late makes every step of every request late. What costs most and lasts longest is refused
first, so that the rest stays quick; what memory answers is never refused. The decision is pure; how late the
loop runs is measured by `telemetry.watch_loop_lag`, ten times a second.

A single pause refuses nobody: a kind is refused once the loop was late at several looks running, and until
it has not been late for a second.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cbk_gateway.errors import ServiceUnavailable
from cbk_gateway.operation import Effect, Operation

LOOK_EVERY_S: Final = 0.1
LATE_LOOKS: Final = 3
CALM_LOOKS: Final = 10


class Kind(StrEnum):
    """What may be refused, in the order in which it is."""

    STREAM = "stream"
    WRITE = "write"
    READ = "read"


class Overloaded(ServiceUnavailable):
    """503: the gateway runs late, and this is what it can spare. Nothing was sent; it may be tried again."""

    default_reason = "overloaded"


@dataclass(frozen=True, slots=True)
class SheddingOptions:
    """From which lag of the loop, in seconds, each kind is refused; None: never.

    Raises:
        ValueError: What can be spared less would be refused earlier.
    """

    streams_s: float | None = 0.5
    writes_s: float | None = 1.0
    reads_s: float | None = 2.0

    def __post_init__(self) -> None:
        lags = [lag for _, lag in self.thresholds]
        if lags != sorted(lags):
            raise ValueError("streams are refused before writes, and writes before reads")

    @property
    def thresholds(self) -> tuple[tuple[Kind, float], ...]:
        """The kinds that may be refused."""
        pairs = ((Kind.STREAM, self.streams_s), (Kind.WRITE, self.writes_s), (Kind.READ, self.reads_s))
        return tuple((kind, lag) for kind, lag in pairs if lag is not None)


def refused_kinds(
    lags: Sequence[float], before: frozenset[Kind], options: SheddingOptions
) -> frozenset[Kind]:
    """What is refused after these lags, the last one being the newest.

    Args:
        lags: Seconds; the last `CALM_LOOKS` of them count.
        before: What was refused until now.
        options: The thresholds.
    """
    recent, latest = lags[-CALM_LOOKS:], lags[-LATE_LOOKS:]
    is_known = len(latest) == LATE_LOOKS
    return frozenset(
        kind
        for kind, threshold in options.thresholds
        if (is_known and min(latest) >= threshold) or (kind in before and max(recent) >= threshold)
    )


def kind_of(operation: Operation, *, is_streamed: bool) -> Kind:
    """The kind of a request; a write whose answer is asked for as events is a stream."""
    if operation.effect is Effect.STREAM or (operation.is_write and is_streamed):
        return Kind.STREAM
    return Kind.WRITE if operation.is_write else Kind.READ


class Shedding:
    """The present state of one worker.

    Args:
        options: The thresholds.
        count: Told of each request that is refused.

    Attributes:
        refused: What is refused now; empty nearly always, which is all that a request has to look at.
    """

    def __init__(
        self, options: SheddingOptions | None = None, count: Callable[[str], None] | None = None
    ) -> None:
        self._options = options or SheddingOptions()
        self._count = count
        self._lags: deque[float] = deque(maxlen=CALM_LOOKS)
        self.refused: frozenset[Kind] = frozenset()

    def __repr__(self) -> str:
        return f"<Shedding {', '.join(sorted(self.refused)) or 'nothing'}>"

    def observe(self, lag_s: float) -> None:
        """The loop was so late at the latest look."""
        self._lags.append(lag_s)
        if self.refused or lag_s > 0:
            self.refused = refused_kinds(tuple(self._lags), self.refused, self._options)

    def admit(self, kind: Kind) -> None:
        """Let a request pass that is about to cost something.

        Raises:
            Overloaded: It is one of those that are refused now.
        """
        if kind not in self.refused:
            return
        if self._count is not None:
            self._count(kind)
        wait_s = max(1, math.ceil(2 * max(self._lags)))
        raise Overloaded(
            "The gateway is overloaded; try again a little later.", headers={"Retry-After": str(wait_s)}
        )

"""The `Server-Timing` header (W3C Server Timing, section 2): where a request's time went.

Only the arithmetic of the header; who may see it and when it is sent is the pipeline's business.
"""

from __future__ import annotations

from typing import Final

_READY_US: Final = 256


def gateway_share(total_s: float, upstream_s: float | None) -> float:
    """The gateway's own seconds of a request; never negative, though two clocks readings may disagree."""
    if upstream_s is None:
        return total_s
    return max(0.0, total_s - upstream_s)


def server_timing(total_s: float, upstream_s: float | None, cache: str = "none") -> str:
    """The header's value.

    Args:
        total_s: Seconds from the request's head to this header being written.
        upstream_s: Seconds spent waiting for the upstream, None when it was not asked.
        cache: How the cache dealt with it: the metrics' word; "none" is not shown.
    """
    own = f"gateway;dur={gateway_share(total_s, upstream_s) * 1000:.3f}"
    parts = [f"total;dur={total_s * 1000:.3f}", own]
    if upstream_s is not None:
        parts.insert(1, f"upstream;dur={upstream_s * 1000:.3f}")
    if cache != "none":
        parts.append(f"cache;desc={cache}")
    return ", ".join(parts)


class ReadyTimings:
    """`server_timing` of requests that the upstream was not asked for, in whole microseconds.

    Args:
        cache: How the cache dealt with them, as there.

    Attributes:
        ready: The values of 0, 1, 2 and so on microseconds, for the times that nearly every request takes.
    """

    __slots__ = ("_cache", "ready")

    def __init__(self, cache: str = "none") -> None:
        self._cache = cache
        self.ready = tuple(self._make(micros) for micros in range(_READY_US))

    def of(self, total_s: float) -> bytes:
        """The value for a request that took so many seconds."""
        micros = int(total_s * 1e6)
        return self.ready[micros] if micros < _READY_US else self._make(micros)

    def _make(self, micros: int) -> bytes:
        return server_timing(micros / 1e6, None, self._cache).encode()

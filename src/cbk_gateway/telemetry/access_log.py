"""The line per request: sampled, but never left out for errors and slow requests."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cbk_gateway.telemetry.logs import write_line
from cbk_gateway.telemetry.redaction import redact_text

_LOGGER: Final = "cbk_gateway.access"


@dataclass(frozen=True, slots=True)
class AccessLogOptions:
    """How much of the traffic is logged.

    Attributes:
        sample: Share of ordinary requests that get a line, 0 to 1. Default 1; lower it when lines cost
            more than they tell, at some thousand requests per second.
        slow_s: Requests that took at least this many seconds always get a line. Streams are measured to
            their first byte. Default 2.
        is_enabled: Whether there is an access log at all. Default true.
    """

    sample: float = 1.0
    slow_s: float = 2.0
    is_enabled: bool = True


@dataclass(slots=True)  # frozen ones take three times as long to make
class AccessEntry:
    """What a line says of a request. `path` is the route's template, which holds no ids.

    Durations in seconds; `upstream_s` is None when the upstream was not asked, `first_byte_s` for what is
    not a stream. `status` 499 says that the
    client left before the answer.
    """

    request_id: str
    method: str
    path: str
    status: int
    total_s: float
    upstream_s: float | None = None
    tenant: str | None = None
    cache: str = "none"
    client: str | None = None
    reason: str | None = None
    received_bytes: int = 0
    sent_bytes: int = 0
    trace_id: str | None = None
    first_byte_s: float | None = None


def is_always_logged(status: int, total_s: float, slow_s: float) -> bool:
    """Whether a request is logged whatever the sample: a failure of a server, or slow.

    Refusals and other client errors (4xx) are sampled like successes: a client in a loop must not be able
    to fill the disk. 499 and 5xx are for operators.
    """
    return status >= 499 or total_s >= slow_s


class AccessLog:
    """Decides which requests get a line, and writes it.

    Args:
        options: How much is logged.
        draw: Gives numbers from 0 up to but not including 1.
    """

    __slots__ = ("_draw", "options")

    def __init__(
        self, options: AccessLogOptions | None = None, draw: Callable[[], float] = random.random
    ) -> None:
        self.options = options if options is not None else AccessLogOptions()
        self._draw = draw

    def wants(self, status: int, total_s: float) -> bool:
        """Whether to write a line for this request; ask before building the entry."""
        options = self.options
        if not options.is_enabled:
            return False
        if is_always_logged(status, total_s, options.slow_s):
            return True
        return options.sample >= 1.0 or self._draw() < options.sample

    def write(self, entry: AccessEntry) -> None:
        """Write the line: level `warning` for failures of a server, `info` for the rest."""
        # Whatever a client chose may look like a credential; the rest are words of ours.
        fields: dict[str, object] = {"request_id": redact_text(entry.request_id)}
        if entry.tenant is not None:
            fields["tenant"] = entry.tenant
        fields["method"] = entry.method
        fields["path"] = entry.path
        fields["status"] = entry.status
        fields["cache"] = entry.cache
        fields["total_ms"] = round(entry.total_s * 1000, 3)
        if entry.upstream_s is not None:
            fields["upstream_ms"] = round(entry.upstream_s * 1000, 3)
        if entry.first_byte_s is not None:
            fields["first_byte_ms"] = round(entry.first_byte_s * 1000, 3)
        fields["received_bytes"] = entry.received_bytes
        fields["sent_bytes"] = entry.sent_bytes
        if entry.client is not None:
            fields["client"] = redact_text(entry.client)
        if entry.reason is not None:
            fields["reason"] = entry.reason
        if entry.trace_id is not None:
            fields["trace_id"] = entry.trace_id
        write_line("warning" if entry.status >= 500 else "info", _LOGGER, "request", fields)

"""The options of telemetry, as `app` hands them over."""

from __future__ import annotations

from dataclasses import dataclass, field

from cbk_gateway.telemetry.access_log import AccessLogOptions
from cbk_gateway.telemetry.logs import Form
from cbk_gateway.telemetry.tracing import TracingOptions


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """What is counted, logged and traced.

    Attributes:
        tenant_cap: Tenants shown by name in metrics; all others are `other`. Default 200. Each costs some
            tens of series in use; a Prometheus of moderate size takes a few thousand.
        labels_off: Labels left out of every metric, of `labels.SWITCHABLE`. Default none. Switching off
            `tenant` or `action` empties the panels and alerts that need them.
        log_level: Least level logged. Default info.
        log_form: "json", "console", or "auto" for console in a terminal. Default auto.
        access_log: The line per request.
        tracing: Spans.
        is_server_timing_shown: Whether answers carry `Server-Timing`. Default true. It tells clients how
            long the upstream took, which not everybody wants to publish.
        lag_interval_s: Seconds between two looks at the event loop's lag. Default 1.
    """

    tenant_cap: int = 200
    labels_off: frozenset[str] = frozenset()
    log_level: str = "info"
    log_form: Form = "auto"
    access_log: AccessLogOptions = field(default_factory=AccessLogOptions)
    tracing: TracingOptions = field(default_factory=TracingOptions)
    is_server_timing_shown: bool = True
    lag_interval_s: float = 1.0

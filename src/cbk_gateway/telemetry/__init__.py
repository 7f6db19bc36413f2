"""What the gateway tells its operators: metrics, logs, traces, and the ids that tie them together.

    metrics.py, traffic.py             the events of requests
    observers.py, caller_events.py,
    process_events.py                  the events of everything else
    catalogue.py                       every metric there is
    ledger.py                          the sum over workers
    logs.py, access_log.py             log lines
    request_id.py, timing.py           what answers carry
    traceparent.py, tracing.py         traces
    runtime.py                         what a process knows of itself

A floor below the domain packages: it imports none of them.
"""

from cbk_gateway.telemetry.access_log import AccessEntry, AccessLog, AccessLogOptions
from cbk_gateway.telemetry.documentation import metrics_markdown, metrics_table
from cbk_gateway.telemetry.ledger import Ledger
from cbk_gateway.telemetry.logs import change_level, configure_logging, current_level, flush_logs
from cbk_gateway.telemetry.metrics import Metrics
from cbk_gateway.telemetry.options import TelemetryOptions
from cbk_gateway.telemetry.request_id import current_request_id, new_request_id, request_id_for
from cbk_gateway.telemetry.runtime import report_process, watch_loop_lag
from cbk_gateway.telemetry.timing import server_timing
from cbk_gateway.telemetry.traceparent import TraceContext, current_trace_id, forwarded, parse_traceparent
from cbk_gateway.telemetry.tracing import Tracer, TracingOptions, TracingUnavailable, open_tracer
from cbk_gateway.telemetry.traffic import RequestCells

__all__ = [
    "AccessEntry",
    "AccessLog",
    "AccessLogOptions",
    "Ledger",
    "Metrics",
    "RequestCells",
    "TelemetryOptions",
    "TraceContext",
    "Tracer",
    "TracingOptions",
    "TracingUnavailable",
    "change_level",
    "configure_logging",
    "current_level",
    "current_request_id",
    "current_trace_id",
    "flush_logs",
    "forwarded",
    "metrics_markdown",
    "metrics_table",
    "new_request_id",
    "open_tracer",
    "parse_traceparent",
    "report_process",
    "request_id_for",
    "server_timing",
    "watch_loop_lag",
]

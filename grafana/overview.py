"""The first dashboard an operator on call opens: is it serving, how fast, what is in its way."""

from __future__ import annotations

from grafana.blocks import BLUE, GREEN, RED, YELLOW, Dashboard, Panel, Query, Variable, quantiles, row
from grafana.expressions import IT, RT, I, narrowed, rate, total

_ERRORS = narrowed(RT, 'status=~"5.."')

_GLANCE = (
    row("At a glance"),
    Panel(
        "stat",
        "Requests per second",
        "All requests answered, refusals included.",
        (Query(total("cbk_gateway_requests_total", RT)),),
        unit="reqps",
        empty="no request yet",
        steps=((None, BLUE),),
        width=4,
        height=4,
    ),
    Panel(
        "stat",
        "Error ratio",
        "Share of answers 5xx, whether of the gateway or the upstream. The objective allows 0.1 %.",
        (
            Query(
                f"sum(rate(cbk_gateway_requests_total{_ERRORS}[$__rate_interval])) "
                f"/ sum(rate(cbk_gateway_requests_total{RT}[$__rate_interval]))"
            ),
        ),
        unit="percentunit",
        empty="no errors",
        steps=((None, GREEN), (0.001, YELLOW), (0.0144, RED)),
        alerts=("ErrorBudgetBurn", "ErrorBudgetBurnSlow"),
        width=4,
        height=4,
    ),
    Panel(
        "stat",
        "Gateway's own time, p99",
        "The gateway's share of a request, over all requests.",
        quantiles("cbk_gateway_gateway_duration_seconds", I, shares=(0.99,)),
        unit="s",
        empty="no request yet",
        steps=((None, GREEN), (0.01, YELLOW), (0.025, RED)),
        alerts=("LatencyBudgetBurn",),
        width=4,
        height=4,
    ),
    Panel(
        "stat",
        "Upstream",
        "Whether the upstream answers the gateway's probes.",
        (Query(f"min(cbk_gateway_upstream_reachable{I})"),),
        empty="not probed yet",
        words=(("0", "away", RED), ("1", "reachable", GREEN)),
        alerts=("UpstreamDown",),
        width=4,
        height=4,
    ),
    Panel(
        "stat",
        "Store",
        "Whether every worker can use Redis or Valkey.",
        (Query(f"min(cbk_gateway_store_available{I})"),),
        empty="not asked yet",
        words=(("0", "away", RED), ("1", "available", GREEN)),
        alerts=("StoreUnavailable",),
        width=4,
        height=4,
    ),
    Panel(
        "stat",
        "Journal",
        "Whether writes can be recorded; while they cannot, they are refused.",
        (Query(f"min(cbk_gateway_audit_healthy{I})"),),
        empty="not started yet",
        words=(("0", "failing", RED), ("1", "healthy", GREEN)),
        alerts=("JournalFailing",),
        width=4,
        height=4,
    ),
)

_TRAFFIC = (
    row("Traffic and errors"),
    Panel(
        "timeseries",
        "Requests by status",
        "499 is a client that left before its answer.",
        (Query(rate("cbk_gateway_requests_total", "status", RT), "{{status}}"),),
        unit="reqps",
        empty="no request yet",
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "Requests by cache",
        "How the cache dealt with them; none is for what is not cacheable.",
        (Query(rate("cbk_gateway_requests_total", "cache", RT), "{{cache}}"),),
        unit="reqps",
        empty="no request yet",
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "Refusals by reason",
        "Requests the gateway answered with an error of its own.",
        (Query(rate("cbk_gateway_refusals_total", "reason, status", IT), "{{status}} {{reason}}"),),
        unit="reqps",
        empty="nothing refused yet",
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "Busiest operations",
        "The ten operations with most requests.",
        (
            Query(
                f"topk(10, {rate('cbk_gateway_requests_total', 'resource, action', RT)})",
                "{{resource}}:{{action}}",
            ),
        ),
        unit="reqps",
        empty="no request yet",
        width=12,
    ),
    Panel(
        "timeseries",
        "Bytes in and out",
        "Bodies only.",
        (
            Query(total("cbk_gateway_request_body_bytes_total", IT), "received"),
            Query(total("cbk_gateway_response_body_bytes_total", IT), "sent"),
        ),
        unit="Bps",
        empty="no body yet",
        width=12,
    ),
)

_LATENCY = (
    row("Latency, three ways"),
    Panel(
        "timeseries",
        "Total",
        "From the request's head to the answer's last byte. Streams last as long as they are open.",
        quantiles("cbk_gateway_request_duration_seconds", I, "effect"),
        unit="s",
        empty="no request yet",
    ),
    Panel(
        "timeseries",
        "Upstream's part",
        "Waiting for the upstream.",
        quantiles("cbk_gateway_upstream_duration_seconds", I, "effect"),
        unit="s",
        empty="the upstream was not asked lately",
    ),
    Panel(
        "timeseries",
        "Gateway's part",
        "Total less upstream. The objective: 99 % within 25 ms.",
        quantiles("cbk_gateway_gateway_duration_seconds", I, "effect"),
        unit="s",
        empty="no request yet",
        steps=((None, GREEN), (0.025, RED)),
        alerts=("LatencyBudgetBurn",),
    ),
)

_STREAMS = (
    row("Streams"),
    Panel(
        "timeseries",
        "Streams open",
        "Event streams of completions and subscriptions.",
        (Query(f"sum(cbk_gateway_streams_open{IT})", "open"),),
        empty="no stream yet",
        width=6,
    ),
    Panel(
        "timeseries",
        "First byte of a stream",
        "How long clients wait for the first token.",
        quantiles("cbk_gateway_stream_first_byte_seconds", I),
        unit="s",
        empty="no stream lately",
        width=6,
    ),
    Panel(
        "timeseries",
        "Streams ended",
        "By how they ended, as the client saw it.",
        (Query(rate("cbk_gateway_stream_endings_total", "ending"), "{{ending}}"),),
        unit="ops",
        empty="no stream ended yet",
        width=6,
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "How long streams last",
        "From their first byte to their end.",
        quantiles("cbk_gateway_stream_duration_seconds", I),
        unit="s",
        empty="no stream ended lately",
        width=6,
    ),
)

_SATURATION = (
    row("Saturation"),
    Panel(
        "timeseries",
        "Under way",
        "Requests being served and client connections open.",
        (
            Query(f"sum(cbk_gateway_requests_in_flight{I})", "requests"),
            Query(f"sum(cbk_gateway_client_connections{I})", "connections"),
        ),
    ),
    Panel(
        "timeseries",
        "Processor time",
        "Cores in use by worker. A worker at 1 has nothing left.",
        (
            Query(
                f"sum by (worker) (rate(cbk_gateway_cpu_seconds_total{I}[$__rate_interval]))",
                "worker {{worker}}",
            ),
        ),
        empty="seen by fewer than two scrapes",
        steps=((None, GREEN), (0.9, RED)),
    ),
    Panel(
        "timeseries",
        "Event loop lag",
        "How late a worker's loop runs what is due. Everything a worker does waits that long.",
        quantiles("cbk_gateway_event_loop_lag_seconds", I),
        unit="s",
        empty="not measured yet",
        steps=((None, GREEN), (0.1, RED)),
        alerts=("EventLoopLagging",),
    ),
    Panel(
        "timeseries",
        "Resident memory",
        "By worker. It should be level after an hour of traffic.",
        (Query(f"cbk_gateway_resident_memory_bytes{I}", "worker {{worker}}"),),
        unit="bytes",
        alerts=("MemoryGrowing",),
    ),
    Panel(
        "timeseries",
        "Workers",
        "Workers that serve, are draining, or were started again within the hour.",
        (
            Query(f"sum(cbk_gateway_worker_up{I})", "up"),
            Query(f"sum(cbk_gateway_draining{I})", "draining"),
            Query(
                f"sum by (reason) (increase(cbk_gateway_worker_restarts_total{I}[1h]))",
                "restarted: {{reason}}",
            ),
        ),
        empty="no worker was started again",
        alerts=("GatewayDown", "WorkerDown", "WorkersRestarting"),
    ),
    Panel(
        "timeseries",
        "Open files",
        "File descriptors by worker.",
        (Query(f"cbk_gateway_open_files{I}", "worker {{worker}}"),),
    ),
    Panel(
        "timeseries",
        "Requests shed",
        "Refused with 503 because an event loop ran late: streams first, then writes, then other reads.",
        (Query(rate("cbk_gateway_requests_shed_total", "kind"), "{{kind}}"),),
        unit="reqps",
        empty="seen by fewer than two scrapes",
    ),
    Panel(
        "timeseries",
        "Answered from their bytes",
        "Requests that took the short way. `differed` must be 0: the long way said otherwise.",
        (Query(rate("cbk_gateway_hot_path_answers_total", "kind"), "{{kind}}"),),
        unit="reqps",
        empty="seen by fewer than two scrapes",
    ),
)

_CONFIGURATION = (
    row("Configuration and build"),
    Panel(
        "table",
        "Builds running",
        "More than one version is normal during a rolling upgrade only.",
        (Query(f"cbk_gateway_build_info{I}"),),
        width=10,
        height=6,
        columns=(("instance", "instance"), ("version", "version"), ("python", "Python"), ("Value", "up")),
    ),
    Panel(
        "timeseries",
        "Age",
        "Since the oldest worker started, and since the configuration in force was applied.",
        (
            Query(
                f"time() - min by (instance) (cbk_gateway_start_timestamp_seconds{I})", "started {{instance}}"
            ),
            Query(
                f"time() - max by (instance) (cbk_gateway_config_applied_timestamp_seconds{I})",
                "configured {{instance}}",
            ),
        ),
        unit="s",
        empty="not configured since the start",
        width=4,
        height=6,
    ),
    Panel(
        "timeseries",
        "Configurations offered",
        "Refused ones leave everything as it was.",
        (
            Query(
                f"sum by (result) (increase(cbk_gateway_config_reloads_total{I}[$__rate_interval]))",
                "{{result}}",
            ),
        ),
        width=5,
        height=6,
        alerts=("ConfigurationRefused",),
    ),
    Panel(
        "timeseries",
        "Log lines dropped",
        "The log's reader is too slow.",
        (Query(total("cbk_gateway_log_lines_dropped_total"), "dropped"),),
        unit="ops",
        width=5,
        height=6,
        alerts=("LogLinesDropped",),
    ),
)

OVERVIEW = Dashboard(
    "cbkgw-overview",
    "CBK gateway: overview",
    "Traffic, errors, latency in three parts, and saturation of the gateway.",
    (*_GLANCE, *_TRAFFIC, *_LATENCY, *_STREAMS, *_SATURATION, *_CONFIGURATION),
    (
        Variable("tenant", "tenant", "cbk_gateway_requests_total"),
        Variable("resource", "resource", "cbk_gateway_requests_total"),
        Variable("instance", "instance", "cbk_gateway_build_info"),
    ),
)

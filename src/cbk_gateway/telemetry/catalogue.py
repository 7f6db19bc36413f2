"""Every metric of the gateway, in one table.

The instruments, the exposition, the documentation and the checks of dashboards and alerts are all made
from `CATALOGUE`; a metric that is not here does not exist. Labels must be bounded: by the grammar of
operations, by configuration under the tenant cap, or by a closed set of words. Nothing a client can invent
may become a label.
"""

from __future__ import annotations

from typing import Final

from cbk_gateway.telemetry.buckets import GROUP, LATENCY, OVERHEAD, SPAN
from cbk_gateway.telemetry.catalogue_outside import IDENTITY, STORE, TENANCY, UPSTREAM
from cbk_gateway.telemetry.spec import Merge, MetricSpec, counter, gauge, histogram

EFFECTS: Final = ("read", "write", "stream")
HOT_KINDS: Final = ("hit", "forward", "refusal", "verified", "differed")
STREAM_ENDINGS: Final = ("complete", "truncated", "client_abort", "deadline", "revoked", "drained")
"""As the client saw it: the upstream's own end, a break, the client leaving, the longest life of a stream,
a token or tenant that may not go on, and the gateway stopping."""
WRITE_OUTCOMES: Final = ("answered", "not_sent", "unknown", "aborted_by_client")
JOURNAL_TROUBLES: Final = ("stopped", "stalled", "overloaded", "deadline", "disk", "space")

TRAFFIC: Final = (
    counter(
        "traffic",
        "requests_total",
        "Requests answered, whoever answered them. `status` is the exact code (499: the client left), "
        "`cache` is hit, miss, stale, bypass, collapsed (waited for another's fill) or none (not cacheable).",
        "tenant",
        "resource",
        "action",
        "status",
        "cache",
    ),
    histogram(
        "traffic",
        "request_duration_seconds",
        "From the request's head being read to the answer's last byte being handed to the socket.",
        LATENCY,
        "effect",
        "cache",
    ),
    histogram(
        "traffic",
        "upstream_duration_seconds",
        "The part of a request spent waiting for the upstream: connection, sending, its answer.",
        LATENCY,
        "effect",
        effect=EFFECTS,
    ),
    histogram(
        "traffic",
        "gateway_duration_seconds",
        "The part of a request that is the gateway's own: total less upstream.",
        OVERHEAD,
        "effect",
        "cache",
    ),
    counter(
        "traffic",
        "refusals_total",
        "Requests the gateway answered with an error of its own, by its reason.",
        "reason",
        "status",
        "tenant",
    ),
    counter(
        "traffic",
        "hot_path_answers_total",
        "Requests answered from their bytes: hit (from memory), forward (by the upstream), refusal; verified "
        "and differed (a defect) only where every answer is compared with the full path's.",
        "kind",
        kind=HOT_KINDS,
    ),
    gauge("traffic", "requests_in_flight", "Requests being served now, streams included."),
    gauge("traffic", "client_connections", "Client connections open on the data port."),
    counter("traffic", "request_body_bytes_total", "Bytes of request bodies received.", "tenant"),
    counter("traffic", "response_body_bytes_total", "Bytes of answer bodies sent.", "tenant"),
    gauge("streams", "streams_open", "Event streams open now.", "tenant"),
    counter(
        "streams",
        "stream_endings_total",
        "Streams ended, by who ended them and how, as the client saw it.",
        "ending",
        ending=STREAM_ENDINGS,
    ),
    histogram(
        "streams",
        "stream_first_byte_seconds",
        "From the request's head being read to the first byte of a stream being handed to the socket.",
        LATENCY,
    ),
    histogram("streams", "stream_duration_seconds", "For how long streams were open.", SPAN),
    counter("streams", "model_tokens_total", "Model tokens used, as the upstream reported them.", "tenant"),
)

LIMITS: Final = (
    counter(
        "limits",
        "limit_decisions_total",
        "Decisions of the limiter: admitted, or refused by rate, quota or concurrency, or because the store "
        "was away (unavailable); `policy` names the limit that refused.",
        "tenant",
        "outcome",
        "policy",
    ),
    counter("limits", "limit_store_calls_total", "Round trips to the store for decisions of the limiter."),
    counter(
        "limits",
        "limit_shadow_refusals_total",
        "Refusals a shadow policy would have made.",
        "tenant",
        "policy",
    ),
    counter(
        "limits",
        "quota_marks_total",
        "Times that a calendar quota passed a mark: 80 or 100 percent.",
        "tenant",
        "quota",
        "percent",
    ),
    gauge(
        "limits",
        "quota_use_ratio",
        "Share of a calendar quota used up when last looked at.",
        "tenant",
        "quota",
        merge=Merge.MAX,
    ),
    gauge(
        "limits",
        "limit_rate_per_second",
        "A tenant's rate as configured, in tokens per second.",
        "tenant",
        "policy",
        merge=Merge.MAX,
    ),
    gauge(
        "limits",
        "limit_use_ratio",
        "Share of a rate's burst in use when last looked at; at 1 requests are refused.",
        "tenant",
        "policy",
        merge=Merge.MAX,
    ),
    histogram("limits", "limit_wait_seconds", "How long requests waited for a token of their rate.", LATENCY),
    gauge(
        "limits",
        "limiter_mode",
        "Workers whose limiter is ruled by this: store, or local while the store is away.",
        "mode",
        mode=("store", "local"),
    ),
)

CACHES: Final = (
    counter(
        "cache",
        "cache_hits_total",
        "Answers found, by where: l1 is in process, l2 the store, shared serves all accounts.",
        "tier",
    ),
    counter("cache", "cache_misses_total", "Answers not found or not usable, by why.", "reason"),
    counter("cache", "cache_passes_total", "Requests forwarded without being remembered, by why.", "reason"),
    counter("cache", "cache_collapsed_total", "Requests answered by another's fetch."),
    counter("cache", "cache_stores_total", "Answers that were stored, or why they were not.", "result"),
    counter("cache", "cache_stored_bytes_total", "Bytes of answers stored."),
    counter("cache", "cache_invalidations_total", "Invalidations, by cause.", "cause"),
    counter("cache", "cache_stale_served_total", "Answers served past their lifetime, by why.", "kind"),
    counter("cache", "cache_evictions_total", "Answers that gave way to others.", "tier"),
    gauge("cache", "cache_entries", "Answers remembered in process."),
    gauge("cache", "cache_size_bytes", "Bytes remembered in process."),
    gauge(
        "cache",
        "cache_feed_lag_seconds",
        "How long the invalidation feed last took to arrive, at the worker that is worst off.",
        merge=Merge.MAX,
    ),
    gauge(
        "cache",
        "cache_feed_live",
        "1 while the invalidation feed of every worker is live, so that answers may come from memory.",
        merge=Merge.MIN,
    ),
    histogram(
        "cache", "cache_write_wait_seconds", "How long a write's answer waited for other workers.", LATENCY
    ),
)

AUDIT: Final = (
    counter("audit", "audit_records_total", "Records made durable."),
    counter("audit", "audit_journal_bytes_total", "Bytes written to the journal."),
    histogram("audit", "audit_sync_seconds", "Duration of one write and disk sync of the journal.", OVERHEAD),
    histogram("audit", "audit_group_records", "Records made durable by one disk sync.", GROUP),
    histogram(
        "audit",
        "audit_intent_wait_seconds",
        "How long writes waited for their intent to be durable.",
        LATENCY,
    ),
    counter(
        "audit",
        "audit_refused_writes_total",
        "Writes refused for want of a durable intent.",
        "reason",
        reason=JOURNAL_TROUBLES,
    ),
    counter(
        "audit",
        "audit_unjournalled_writes_total",
        "Writes that went ahead without a durable intent, as their tenant's policy allows.",
        "reason",
        reason=JOURNAL_TROUBLES,
    ),
    counter(
        "audit",
        "audit_dropped_records_total",
        "Records lost before they were durable.",
        "kind",
        kind=("refused", "outcome", "note"),
    ),
    counter("audit", "audit_segments_total", "Segments begun: started, rotated or lost.", "reason"),
    counter(
        "audit",
        "audit_recovered_intents_total",
        "Intents of dead processes found without an outcome and closed as unknown.",
    ),
    counter(
        "audit",
        "audit_outcomes_total",
        "Outcomes of writes. `unknown`: nobody can say whether the upstream did it.",
        "outcome",
        outcome=WRITE_OUTCOMES,
    ),
    gauge("audit", "audit_open_intents", "Writes under way: intents that have no outcome yet."),
    gauge("audit", "audit_queue_records", "Records waiting for the journal's writer."),
    gauge("audit", "audit_last_sync_age_seconds", "Age of the journal's last disk sync.", merge=Merge.MAX),
    gauge(
        "audit",
        "audit_healthy",
        "1 while every worker can make intents durable; 0 means that writes are refused.",
        merge=Merge.MIN,
    ),
)

RUNTIME: Final = (
    gauge(
        "runtime", "build_info", "Always 1; the labels say what is running.", "version", "python",
        merge=Merge.MAX,
    ),
    gauge(
        "runtime", "start_timestamp_seconds", "When the oldest worker started, in epoch seconds.",
        merge=Merge.MIN,
    ),
    gauge("runtime", "worker_up", "1 for each worker that serves.", "worker", merge=Merge.MAX),
    counter("runtime", "worker_restarts_total", "Workers started again, by why.", "reason"),
    histogram("runtime", "event_loop_lag_seconds", "How late the event loop runs what is due.", OVERHEAD),
    counter(
        "runtime",
        "requests_shed_total",
        "Requests refused because the event loop ran late, by what they were; read: one to be forwarded.",
        "kind",
        kind=("stream", "write", "read"),
    ),
    gauge("runtime", "resident_memory_bytes", "Resident memory of the process.", "worker"),
    counter("runtime", "cpu_seconds_total", "Processor time used, user and system.", "worker"),
    gauge("runtime", "open_files", "Open file descriptors of the process.", "worker"),
    counter(
        "runtime",
        "config_reloads_total",
        "Configurations offered at run time.",
        "result",
        result=("applied", "refused", "unchanged"),
    ),
    gauge(
        "runtime", "config_applied_timestamp_seconds", "When the configuration in force was applied.",
        merge=Merge.MAX,
    ),
    counter("runtime", "log_lines_dropped_total", "Log lines dropped because the log's reader was too slow."),
    gauge("runtime", "draining", "Workers that finish their requests and take no new ones."),
)  # fmt: skip

CATALOGUE: Final[tuple[MetricSpec, ...]] = (
    *TRAFFIC, *LIMITS, *CACHES, *AUDIT, *UPSTREAM, *STORE, *IDENTITY, *TENANCY, *RUNTIME,
)  # fmt: skip
"""All of them, in the order of the documentation."""

"""The part of the catalogue about what the gateway leans on: upstream, store, issuers, tenants' keys."""

from __future__ import annotations

from typing import Final

from cbk_gateway.telemetry.buckets import LATENCY, OVERHEAD
from cbk_gateway.telemetry.spec import Merge, counter, gauge, histogram

UPSTREAM: Final = (
    counter(
        "upstream", "upstream_answers_total", "Answers of the upstream, by exact code.", "cost", "status"
    ),
    counter(
        "upstream",
        "upstream_faults_total",
        "Calls that ended without an answer. `unknown`: the upstream may have done the work.",
        "cost",
        "cause",
        "outcome",
    ),
    histogram(
        "upstream",
        "upstream_first_byte_seconds",
        "From the beginning of an attempt to the head of its answer.",
        LATENCY,
        "cost",
    ),
    counter("upstream", "upstream_attempts_total", "Attempts against the upstream, repeated ones included."),
    counter(
        "upstream",
        "upstream_retries_total",
        "Attempts repeated; `paid` took from the budget.",
        "cause",
        "paid",
    ),
    gauge("upstream", "upstream_connections", "Connections to the upstream, busy and idle."),
    histogram("upstream", "upstream_connect_seconds", "Time to open a connection, TLS included.", LATENCY),
    counter("upstream", "upstream_connect_failures_total", "Connections that could not be had.", "cause"),
    gauge(
        "upstream",
        "upstream_breaker_state",
        "0 closed, 1 probing, 2 open: of the worker that is worst off.",
        "scope",
        scope=("upstream",),
        merge=Merge.MAX,
    ),
    counter(
        "upstream",
        "upstream_breaker_changes_total",
        "Changes of breakers: the upstream's own and those of accounts.",
        "scope",
        "state",
    ),
    gauge("upstream", "upstream_concurrency_bound", "How many short calls may be under way at once."),
    histogram(
        "upstream",
        "upstream_queue_seconds",
        "How long calls waited for their turn, and whether they got it.",
        LATENCY,
        "admitted",
    ),
    counter(
        "upstream",
        "upstream_stream_endings_total",
        "Relayed streams ended, as seen from the upstream's side.",
        "ending",
    ),
    counter(
        "upstream",
        "upstream_shield_decisions_total",
        "Decisions of the shield against duplicates.",
        "decision",
    ),
    gauge(
        "upstream",
        "upstream_reachable",
        "1 while the upstream answers calls, or the probes of readiness; 0 while it takes no connection.",
        merge=Merge.MIN,
    ),
)

STORE: Final = (
    histogram(
        "store", "store_call_seconds", "Duration of calls to Redis or Valkey that were answered.", OVERHEAD
    ),
    counter("store", "store_pipelines_total", "Pipelines sent: the calls of one turn of the event loop."),
    counter("store", "store_errors_total", "Calls to the store that got no answer, by trouble.", "trouble"),
    gauge("store", "store_available", "1 while every worker can use the store.", merge=Merge.MIN),
)

IDENTITY: Final = (
    counter(
        "identity",
        "identity_verifications_total",
        "Tokens looked at: verified, remembered, or the reason for which they were refused.",
        "issuer",
        "result",
    ),
    counter("identity", "identity_key_fetches_total", "Fetches of signing keys.", "issuer", "outcome"),
    gauge("identity", "identity_keys", "Usable signing keys.", "issuer", merge=Merge.MIN),
    counter("identity", "identity_revocations_total", "Revocations taken in force.", "kind"),
    gauge("identity", "identity_revocations_listed", "Revocations in force.", merge=Merge.MAX),
    gauge(
        "identity",
        "identity_revocations_confirmed",
        "1 while every worker knows its list of revocations to be complete.",
        merge=Merge.MIN,
    ),
)

TENANCY: Final = (
    gauge("tenancy", "tenants", "Tenants configured.", merge=Merge.MAX),
    gauge(
        "tenancy", "tenants_version", "Version of the tenants in force, of the last worker.", merge=Merge.MIN
    ),
    gauge(
        "tenancy",
        "tenant_source_healthy",
        "1 while this source of tenants and keys can be read.",
        "source",
        merge=Merge.MIN,
    ),
    counter(
        "tenancy",
        "tenant_key_refusals_total",
        "Answers 401 of the upstream to a tenant's current or next key.",
        "tenant",
        "which",
    ),
    gauge(
        "tenancy",
        "tenant_key_healthy",
        "0 while the upstream refuses the tenant's current key.",
        "tenant",
        merge=Merge.MIN,
    ),
    counter("tenancy", "tenant_next_key_ready_total", "Next keys found fit to be promoted.", "tenant"),
    counter(
        "tenancy",
        "tenant_rotations_total",
        "Next keys promoted or dropped, by an operator or by the gateway itself.",
        "tenant",
        "outcome",
        "by",
    ),
    counter(
        "tenancy",
        "tenant_foreign_objects_total",
        "Requests for objects that are not the tenant's own, and whether they were refused.",
        "tenant",
        "refused",
    ),
    gauge(
        "tenancy",
        "key_expiry_timestamp_seconds",
        "When a key or certificate stops working, in epoch seconds, as far as it is known.",
        "kind",
        "name",
        merge=Merge.MIN,
    ),
)

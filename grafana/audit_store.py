"""Whether writes are recorded, whether the store answers, who is let in."""

from __future__ import annotations

from grafana.blocks import GREEN, RED, YELLOW, Dashboard, Panel, Query, Variable, quantiles, row
from grafana.expressions import I, rate, total

_JOURNAL = (
    row("Journal"),
    Panel(
        "stat",
        "Journal",
        "Whether every worker can make intents durable.",
        (Query(f"min(cbk_gateway_audit_healthy{I})"),),
        empty="not started yet",
        words=(("0", "failing", RED), ("1", "healthy", GREEN)),
        alerts=("JournalFailing",),
        width=6,
        height=5,
    ),
    Panel(
        "stat",
        "Writes under way",
        "Intents that have no outcome yet.",
        (Query(f"sum(cbk_gateway_audit_open_intents{I})"),),
        width=6,
        height=5,
    ),
    Panel(
        "stat",
        "Age of the last sync",
        "Grows while nothing is written; writes need it to move.",
        (Query(f"max(cbk_gateway_audit_last_sync_age_seconds{I})"),),
        unit="s",
        empty="nothing written yet",
        width=6,
        height=5,
    ),
    Panel(
        "stat",
        "Intents found open",
        "Of processes that died: closed as unknown when the journal was opened again. Last 24 hours.",
        (Query(f"sum(increase(cbk_gateway_audit_recovered_intents_total{I}[24h]))"),),
        steps=((None, GREEN), (1, RED)),
        alerts=("IntentsWithoutOutcome",),
        width=6,
        height=5,
    ),
    Panel(
        "timeseries",
        "Records made durable",
        "And the bytes they take.",
        (Query(total("cbk_gateway_audit_records_total"), "records"),),
        unit="ops",
    ),
    Panel(
        "timeseries",
        "Outcomes of writes",
        "`unknown` is what nobody can say: look these up in the journal.",
        (Query(rate("cbk_gateway_audit_outcomes_total", "outcome"), "{{outcome}}"),),
        unit="ops",
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "Writes refused or unjournalled",
        "By why the intent could not be made durable, and what the tenant's policy says.",
        (
            Query(rate("cbk_gateway_audit_refused_writes_total", "reason"), "refused: {{reason}}"),
            Query(rate("cbk_gateway_audit_unjournalled_writes_total", "reason"), "let through: {{reason}}"),
        ),
        unit="ops",
        alerts=("JournalFailing", "WritesNotJournalled"),
    ),
    Panel(
        "timeseries",
        "Wait for the intent",
        "What the journal adds to a write.",
        quantiles("cbk_gateway_audit_intent_wait_seconds", I),
        unit="s",
        empty="no write lately",
    ),
    Panel(
        "timeseries",
        "Disk sync",
        "One write and sync of the disk.",
        quantiles("cbk_gateway_audit_sync_seconds", I),
        unit="s",
        empty="no write lately",
        steps=((None, GREEN), (0.05, YELLOW), (0.25, RED)),
        alerts=("JournalSlow",),
    ),
    Panel(
        "timeseries",
        "Records per sync",
        "Grows with load: writes share a sync.",
        quantiles("cbk_gateway_audit_group_records", I),
        empty="no write lately",
    ),
    Panel(
        "timeseries",
        "Queue of the writer",
        "Records waiting.",
        (Query(f"sum by (instance) (cbk_gateway_audit_queue_records{I})", "{{instance}}"),),
        empty="not started yet",
    ),
    Panel(
        "timeseries",
        "Records lost",
        "Before they were durable. An outcome lost leaves an intent open until the next start.",
        (Query(rate("cbk_gateway_audit_dropped_records_total", "kind"), "{{kind}}"),),
        unit="ops",
        alerts=("IntentsWithoutOutcome",),
    ),
    Panel(
        "timeseries",
        "Journal's growth",
        "Bytes per second, and segments begun in the hour.",
        (
            Query(total("cbk_gateway_audit_journal_bytes_total"), "bytes per second"),
            Query(
                f"sum by (reason) (increase(cbk_gateway_audit_segments_total{I}[1h]))", "segments {{reason}}"
            ),
        ),
        empty="no segment begun",
    ),
)

_STORE = (
    row("Store"),
    Panel(
        "timeseries",
        "Availability",
        "0 while any worker cannot use the store.",
        (Query(f"min by (instance) (cbk_gateway_store_available{I})", "{{instance}}"),),
        empty="not asked yet",
        steps=((None, RED), (1, GREEN)),
        top=1,
        alerts=("StoreUnavailable",),
    ),
    Panel(
        "timeseries",
        "Calls",
        "Time of calls that were answered.",
        quantiles("cbk_gateway_store_call_seconds", I),
        unit="s",
        empty="no call lately",
        steps=((None, GREEN), (0.05, RED)),
    ),
    Panel(
        "timeseries",
        "Calls per second",
        "Answered calls, the pipelines in which they left, and round trips for decisions of limits.",
        (
            Query(total("cbk_gateway_store_call_seconds_count"), "all"),
            Query(total("cbk_gateway_store_pipelines_total"), "pipelines"),
            Query(total("cbk_gateway_limit_store_calls_total"), "for limits"),
        ),
        unit="ops",
    ),
    Panel(
        "timeseries",
        "Calls without an answer",
        "`open` was not even asked, because the store failed just before.",
        (Query(rate("cbk_gateway_store_errors_total", "trouble"), "{{trouble}}"),),
        unit="ops",
        empty="every call was answered",
        alerts=("StoreUnavailable",),
    ),
    Panel(
        "timeseries",
        "Waiting for a token",
        "Requests that waited for their rate instead of being refused.",
        quantiles("cbk_gateway_limit_wait_seconds", I),
        unit="s",
        empty="no request had to wait lately",
    ),
    Panel(
        "timeseries",
        "Round trips per request",
        "To the store, of all kinds.",
        (
            Query(
                f"{total('cbk_gateway_store_call_seconds_count')} / {total('cbk_gateway_requests_total')}",
                "calls per request",
            ),
        ),
        empty="no request lately",
    ),
)

_IDENTITY = (
    row("Identity"),
    Panel(
        "timeseries",
        "Tokens looked at",
        "Verified, remembered from before, or why refused.",
        (Query(rate("cbk_gateway_identity_verifications_total", "result"), "{{result}}"),),
        unit="ops",
        empty="no token yet",
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "Signing keys",
        "Usable keys by issuer. Without one, its tokens are refused.",
        (Query(f"min by (issuer) (cbk_gateway_identity_keys{I})", "{{issuer}}"),),
        empty="no issuer publishes its keys",
        steps=((None, RED), (1, GREEN)),
        alerts=("SigningKeysMissing",),
    ),
    Panel(
        "timeseries",
        "Fetches of keys",
        "By issuer and outcome.",
        (
            Query(
                f"sum by (issuer, outcome) "
                f"(increase(cbk_gateway_identity_key_fetches_total{I}[$__rate_interval]))",
                "{{issuer}} {{outcome}}",
            ),
        ),
        empty="no issuer publishes its keys",
        alerts=("SigningKeysMissing",),
    ),
    Panel(
        "timeseries",
        "Revocations",
        "In force, and whether every worker knows its list to be complete (1).",
        (
            Query(f"max(cbk_gateway_identity_revocations_listed{I})", "in force"),
            Query(f"min(cbk_gateway_identity_revocations_confirmed{I})", "list confirmed"),
        ),
        empty="not read yet",
        alerts=("RevocationsUnconfirmed",),
        width=12,
    ),
    Panel(
        "timeseries",
        "Revocations taken in force",
        "By kind.",
        (
            Query(
                f"sum by (kind) (increase(cbk_gateway_identity_revocations_total{I}[$__rate_interval]))",
                "{{kind}}",
            ),
        ),
        empty="nothing revoked",
        width=12,
    ),
)

AUDIT_STORE = Dashboard(
    "cbkgw-audit-store",
    "CBK gateway: audit and store",
    "Whether writes are recorded, whether the store answers, who is let in.",
    (*_JOURNAL, *_STORE, *_IDENTITY),
    (Variable("instance", "instance", "cbk_gateway_build_info"),),
)

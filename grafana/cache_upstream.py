"""What the cache spares the upstream, and how the upstream fares."""

from __future__ import annotations

from grafana.blocks import BLUE, GREEN, RED, YELLOW, Dashboard, Panel, Query, Variable, quantiles, row
from grafana.expressions import RT, I, narrowed, rate, total

_FOUND = narrowed(RT, 'cache=~"hit|stale|collapsed"')
_ASKED = narrowed(RT, 'cache!~"none|bypass"')
_FAILED = narrowed(I, 'status=~"5.."')


_CACHE_GLANCE = (
    row("Cache"),
    Panel(
        "stat",
        "Hit ratio",
        "Share of cacheable requests answered without asking the upstream.",
        (
            Query(
                f"sum(rate(cbk_gateway_requests_total{_FOUND}[$__rate_interval])) "
                f"/ sum(rate(cbk_gateway_requests_total{_ASKED}[$__rate_interval]))"
            ),
        ),
        unit="percentunit",
        empty="no hits, or no cacheable request, lately",
        steps=((None, BLUE),),
        top=1,
        width=6,
        height=5,
    ),
    Panel(
        "stat",
        "Invalidation feed",
        "While it is lost, workers do not answer from their own memory; the store still serves.",
        (Query(f"min(cbk_gateway_cache_feed_live{I})"),),
        empty="not subscribed yet",
        words=(("0", "lost", RED), ("1", "live", GREEN)),
        alerts=("CacheFeedLate",),
        width=6,
        height=5,
    ),
    Panel(
        "stat",
        "Answers in memory",
        "In the workers' own tiers.",
        (Query(f"sum(cbk_gateway_cache_entries{I})"),),
        empty="nothing remembered yet",
        steps=((None, BLUE),),
        width=6,
        height=5,
    ),
    Panel(
        "stat",
        "Memory of answers",
        "In the workers' own tiers.",
        (Query(f"sum(cbk_gateway_cache_size_bytes{I})"),),
        unit="bytes",
        empty="nothing remembered yet",
        steps=((None, BLUE),),
        width=6,
        height=5,
    ),
)

_CACHE = (
    Panel(
        "timeseries",
        "Hits by tier",
        "l1 is the worker's memory, l2 the store, shared what is the same for all accounts.",
        (
            Query(rate("cbk_gateway_cache_hits_total", "tier"), "{{tier}}"),
            Query(total("cbk_gateway_cache_collapsed_total"), "collapsed"),
        ),
        unit="reqps",
        empty="no hit yet",
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "Misses and passes",
        "Misses fetch and remember; passes are never remembered.",
        (
            Query(rate("cbk_gateway_cache_misses_total", "reason"), "miss: {{reason}}"),
            Query(rate("cbk_gateway_cache_passes_total", "reason"), "pass: {{reason}}"),
        ),
        unit="reqps",
        empty="no miss yet",
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "Fills",
        "Stored, or why not. `moved` is a write that came in between.",
        (Query(rate("cbk_gateway_cache_stores_total", "result"), "{{result}}"),),
        unit="ops",
        empty="no fill yet",
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "Invalidations",
        "By cause.",
        (Query(rate("cbk_gateway_cache_invalidations_total", "cause"), "{{cause}}"),),
        unit="ops",
        empty="nothing invalidated yet",
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "Feed lag",
        "How long invalidations take to arrive, at the worker that is worst off.",
        (Query(f"max by (instance) (cbk_gateway_cache_feed_lag_seconds{I})", "{{instance}}"),),
        unit="s",
        empty="not subscribed yet",
        steps=((None, GREEN), (2, RED)),
        alerts=("CacheFeedLate",),
    ),
    Panel(
        "timeseries",
        "Writes waiting for workers",
        "How long a write's answer is held until no worker can serve from before it.",
        quantiles("cbk_gateway_cache_write_wait_seconds", I),
        unit="s",
        empty="no write lately",
    ),
    Panel(
        "timeseries",
        "Bytes stored",
        "Answers written to the store.",
        (Query(total("cbk_gateway_cache_stored_bytes_total"), "stored"),),
        unit="Bps",
    ),
    Panel(
        "timeseries",
        "Stale answers",
        "Served past their lifetime, while being fetched anew or because the upstream failed.",
        (Query(rate("cbk_gateway_cache_stale_served_total", "kind"), "{{kind}}"),),
        unit="reqps",
        empty="no stale answer served",
    ),
    Panel(
        "timeseries",
        "Evictions",
        "Answers that gave way to others: the memory allowed is too small when this is high.",
        (Query(rate("cbk_gateway_cache_evictions_total", "tier"), "{{tier}}"),),
        unit="ops",
        empty="nothing evicted",
    ),
)

_UPSTREAM = (
    row("Upstream"),
    Panel(
        "timeseries",
        "Answers by status",
        "Of attempts, so retried ones count each time.",
        (Query(rate("cbk_gateway_upstream_answers_total", "status"), "{{status}}"),),
        unit="reqps",
        empty="no answer yet",
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "Calls without an answer",
        "`unknown` means that the upstream may have done the work.",
        (Query(rate("cbk_gateway_upstream_faults_total", "cause, outcome"), "{{cause}} ({{outcome}})"),),
        unit="reqps",
        empty="every call was answered",
        alerts=("UpstreamOutcomesUnknown",),
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "Share of failures",
        "Answers 5xx and calls without an answer, of all calls.",
        (
            Query(
                f"(sum(rate(cbk_gateway_upstream_answers_total{_FAILED}[$__rate_interval])) or vector(0)) "
                f"/ sum(rate(cbk_gateway_upstream_answers_total{I}[$__rate_interval]))",
                "5xx",
            ),
        ),
        unit="percentunit",
        empty="no answer yet",
        steps=((None, GREEN), (0.05, YELLOW), (0.2, RED)),
        top=1,
        alerts=("UpstreamDown",),
    ),
    Panel(
        "timeseries",
        "First byte",
        "From the beginning of an attempt to the head of its answer, by class of cost.",
        quantiles("cbk_gateway_upstream_first_byte_seconds", I, "cost"),
        unit="s",
        empty="no answer lately",
    ),
    Panel(
        "timeseries",
        "Breaker",
        "0 closed, 1 probing, 2 open: while open, nothing is sent.",
        (Query(f"max by (scope) (cbk_gateway_upstream_breaker_state{I})", "{{scope}}"),),
        steps=((None, GREEN), (1, YELLOW), (2, RED)),
        top=2,
        alerts=("UpstreamBreakerOpen",),
    ),
    Panel(
        "timeseries",
        "Changes of breakers",
        "Of the upstream's own and of accounts'.",
        (
            Query(
                f"sum by (scope, state) "
                f"(increase(cbk_gateway_upstream_breaker_changes_total{I}[$__rate_interval]))",
                "{{scope}} {{state}}",
            ),
        ),
        empty="no breaker has changed",
    ),
    Panel(
        "timeseries",
        "Attempts and retries",
        "Retries paid from the budget, and those that cost nothing because nothing was sent.",
        (
            Query(total("cbk_gateway_upstream_attempts_total"), "attempts"),
            Query(
                rate("cbk_gateway_upstream_retries_total", "cause, paid"), "retry: {{cause}}, paid: {{paid}}"
            ),
        ),
        unit="reqps",
        empty="nothing was tried again",
    ),
    Panel(
        "timeseries",
        "Waiting for a turn",
        "How long calls wait for a place, by whether they got it; the bound moves with the upstream's speed.",
        quantiles("cbk_gateway_upstream_queue_seconds", I, "admitted"),
        unit="s",
        empty="no call had to wait lately",
    ),
    Panel(
        "timeseries",
        "Concurrency bound",
        "How many short calls may be under way at once, over all workers.",
        (Query(f"sum by (instance) (cbk_gateway_upstream_concurrency_bound{I})", "{{instance}}"),),
        empty="the bound has not moved",
    ),
)

_CONNECTIONS = (
    row("Connections and streams"),
    Panel(
        "timeseries",
        "Connections",
        "Open to the upstream, busy and idle.",
        (Query(f"sum by (instance) (cbk_gateway_upstream_connections{I})", "{{instance}}"),),
        width=6,
    ),
    Panel(
        "timeseries",
        "Time to connect",
        "TLS included.",
        quantiles("cbk_gateway_upstream_connect_seconds", I),
        unit="s",
        empty="no connection opened lately",
        width=6,
    ),
    Panel(
        "timeseries",
        "Connections refused",
        "By cause.",
        (Query(rate("cbk_gateway_upstream_connect_failures_total", "cause"), "{{cause}}"),),
        unit="ops",
        empty="every connection could be had",
        alerts=("UpstreamDown",),
        width=6,
    ),
    Panel(
        "timeseries",
        "Relayed streams ended",
        "As seen from the upstream's side.",
        (Query(rate("cbk_gateway_upstream_stream_endings_total", "ending"), "{{ending}}"),),
        unit="ops",
        empty="no stream ended yet",
        width=6,
    ),
    Panel(
        "timeseries",
        "Shield against duplicates",
        "What it did with writes that came twice.",
        (Query(rate("cbk_gateway_upstream_shield_decisions_total", "decision"), "{{decision}}"),),
        unit="ops",
        empty="no write has asked it yet",
        width=24,
        height=6,
    ),
)

CACHE_UPSTREAM = Dashboard(
    "cbkgw-cache-upstream",
    "CBK gateway: cache and upstream",
    "What the cache spares the upstream, and how the upstream fares.",
    (*_CACHE_GLANCE, *_CACHE, *_UPSTREAM, *_CONNECTIONS),
    (
        Variable("tenant", "tenant", "cbk_gateway_requests_total"),
        Variable("resource", "resource", "cbk_gateway_requests_total"),
        Variable("instance", "instance", "cbk_gateway_build_info"),
    ),
)

"""Who uses how much: tenants against their limits and quotas."""

from __future__ import annotations

from grafana.blocks import GREEN, RED, YELLOW, Dashboard, Panel, Query, Variable, row
from grafana.expressions import IT, RT, I, narrowed, rate

_REFUSED = narrowed(IT, 'outcome!="admitted"')
_ADMITTED = narrowed(IT, 'outcome="admitted"')


_TALKERS = (
    row("Top talkers"),
    Panel(
        "bargauge",
        "Requests per second",
        "The ten tenants with most requests.",
        (
            Query(
                f"topk(10, {rate('cbk_gateway_requests_total', 'tenant', RT)})",
                "{{tenant}}",
                is_instant=True,
            ),
        ),
        unit="reqps",
        empty="no request yet",
    ),
    Panel(
        "bargauge",
        "Model tokens, last hour",
        "The ten tenants that used most model tokens.",
        (
            Query(
                f"topk(10, sum by (tenant) (increase(cbk_gateway_model_tokens_total{IT}[1h])))",
                "{{tenant}}",
                is_instant=True,
            ),
        ),
        empty="no model has run yet",
    ),
    Panel(
        "bargauge",
        "Bytes sent, last hour",
        "The ten tenants that were sent most.",
        (
            Query(
                f"topk(10, sum by (tenant) (increase(cbk_gateway_response_body_bytes_total{IT}[1h])))",
                "{{tenant}}",
                is_instant=True,
            ),
        ),
        unit="bytes",
        empty="no body yet",
    ),
)

_LIMITS = (
    row("Limits"),
    Panel(
        "timeseries",
        "Admitted per second",
        "Compare with the rates beside it. A request may cost more than one token.",
        (Query(rate("cbk_gateway_limit_decisions_total", "tenant", _ADMITTED), "{{tenant}}"),),
        unit="reqps",
        empty="nothing admitted yet",
    ),
    Panel(
        "table",
        "Rates configured",
        "Tokens per second by tenant and policy.",
        (Query(f"max by (tenant, policy) (cbk_gateway_limit_rate_per_second{IT})"),),
        empty="no rate configured",
        columns=(("tenant", "tenant"), ("policy", "policy"), ("Value", "tokens per second")),
    ),
    Panel(
        "bargauge",
        "Share of burst in use",
        "At 100 % the next request is refused.",
        (
            Query(
                f"topk(20, max by (tenant, policy) (cbk_gateway_limit_use_ratio{IT}))",
                "{{tenant}} {{policy}}",
                is_instant=True,
            ),
        ),
        unit="percentunit",
        empty="no rate looked at yet",
        steps=((None, GREEN), (0.8, YELLOW), (1, RED)),
        top=1,
    ),
    Panel(
        "timeseries",
        "Refused by limits",
        "By tenant, kind and policy. `unavailable` means that the store was away and the policy says deny.",
        (
            Query(
                rate("cbk_gateway_limit_decisions_total", "tenant, outcome, policy", _REFUSED),
                "{{tenant}} {{outcome}} {{policy}}",
            ),
        ),
        unit="reqps",
        empty="nothing refused yet",
        width=12,
        is_stacked=True,
    ),
    Panel(
        "timeseries",
        "Shadow refusals",
        "What limits that only watch would have refused.",
        (
            Query(
                rate("cbk_gateway_limit_shadow_refusals_total", "tenant, policy", IT),
                "{{tenant}} {{policy}}",
            ),
        ),
        unit="reqps",
        empty="no shadow policy has refused",
        width=6,
    ),
    Panel(
        "timeseries",
        "Limiter's mode",
        "Workers ruled by the store, and by themselves while it is away. Local counting divides limits among "
        "workers, so it errs on the side of refusing.",
        (Query(f"sum by (mode) (cbk_gateway_limiter_mode{I})", "{{mode}}"),),
        width=6,
        alerts=("LimiterDegraded",),
    ),
)

_QUOTAS = (
    row("Quotas"),
    Panel(
        "bargauge",
        "Quota used",
        "Share of the calendar quota.",
        (
            Query(
                f"sort_desc(max by (tenant, quota) (cbk_gateway_quota_use_ratio{IT}))",
                "{{tenant}} {{quota}}",
                is_instant=True,
            ),
        ),
        unit="percentunit",
        empty="no quota configured, or none near its end",
        steps=((None, GREEN), (0.8, YELLOW), (0.9, RED)),
        top=1,
        alerts=("QuotaNearlyUsed",),
        width=12,
    ),
    Panel(
        "timeseries",
        "Marks passed",
        "Quotas that passed 80 or 100 percent.",
        (
            Query(
                f"sum by (tenant, quota, percent) "
                f"(increase(cbk_gateway_quota_marks_total{IT}[$__rate_interval]))",
                "{{tenant}} {{quota}} {{percent}} %",
            ),
        ),
        empty="no quota has passed a mark",
        width=12,
    ),
)

_KEYS = (
    row("Refusals, keys and objects"),
    Panel(
        "timeseries",
        "Refusals by tenant",
        "All reasons together; tenant `none` is callers nobody knows.",
        (Query(rate("cbk_gateway_refusals_total", "tenant, status", IT), "{{tenant}} {{status}}"),),
        unit="reqps",
        empty="nothing refused yet",
        width=6,
    ),
    Panel(
        "timeseries",
        "Keys in rotation",
        "Next keys accepted often enough to be promoted, and those promoted or dropped, by whom.",
        (
            Query(
                f"sum by (tenant) (increase(cbk_gateway_tenant_next_key_ready_total{IT}[$__rate_interval]))",
                "{{tenant}} ready",
            ),
            Query(
                "sum by (tenant, outcome, by) "
                f"(increase(cbk_gateway_tenant_rotations_total{IT}[$__rate_interval]))",
                "{{tenant}} {{outcome}} by {{by}}",
            ),
        ),
        empty="no key is being rotated",
        width=6,
    ),
    Panel(
        "timeseries",
        "Keys the upstream refuses",
        "Answers 401 to the current or the next key of a tenant.",
        (Query(rate("cbk_gateway_tenant_key_refusals_total", "tenant, which", IT), "{{tenant}} {{which}}"),),
        unit="ops",
        empty="no key was refused",
        width=6,
        alerts=("TenantKeyRefused",),
    ),
    Panel(
        "table",
        "Keys that expire",
        "As far as the gateway knows; the nearest first.",
        (Query(f"sort(min by (kind, name) (cbk_gateway_key_expiry_timestamp_seconds{I}) - time())"),),
        unit="s",
        empty="no key with a known end",
        width=6,
        columns=(("kind", "kind"), ("name", "name"), ("Value", "left")),
        alerts=("KeyExpiring",),
    ),
    Panel(
        "timeseries",
        "Objects of others asked for",
        "By tenant, and whether the request was refused.",
        (
            Query(
                rate("cbk_gateway_tenant_foreign_objects_total", "tenant, refused", IT),
                "{{tenant}} refused: {{refused}}",
            ),
        ),
        unit="ops",
        empty="nobody asked for another's object",
    ),
    Panel(
        "timeseries",
        "Tenants configured",
        "By gateway, and the version in force: it differs between gateways while a change is on its way.",
        (
            Query(f"max by (instance) (cbk_gateway_tenants{I})", "tenants {{instance}}"),
            Query(f"min by (instance) (cbk_gateway_tenants_version{I})", "version {{instance}}"),
        ),
        empty="not loaded yet",
    ),
    Panel(
        "timeseries",
        "Sources of tenants and keys",
        "0 while a source cannot be read; what was known stays in force.",
        (Query(f"min by (source) (cbk_gateway_tenant_source_healthy{I})", "{{source}}"),),
        empty="no source has failed",
        steps=((None, RED), (1, GREEN)),
        alerts=("TenantSourceBroken",),
    ),
)

TENANTS = Dashboard(
    "cbkgw-tenants",
    "CBK gateway: tenants",
    "Use against limits and quotas, top talkers, refusals, keys.",
    (*_TALKERS, *_LIMITS, *_QUOTAS, *_KEYS),
    (
        Variable("tenant", "tenant", "cbk_gateway_requests_total"),
        Variable("resource", "resource", "cbk_gateway_requests_total"),
        Variable("instance", "instance", "cbk_gateway_build_info"),
    ),
)

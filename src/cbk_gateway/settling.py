"""After the answer: grants settled, refusals recorded, everything counted. Never fails a request."""

from __future__ import annotations

from typing import Final

from cbk_gateway.errors import Refusal
from cbk_gateway.exchange import Exchange
from cbk_gateway.limits import Usage
from cbk_gateway.limits.usage import UsageReader
from cbk_gateway.operation import Effect
from cbk_gateway.parts import Parts
from cbk_gateway.telemetry import AccessEntry
from cbk_gateway.upstream import Outcome, UpstreamFault

_RECORDED_REFUSALS: Final = frozenset({401, 403, 404, 409, 429, 503})


def settle(parts: Parts, x: Exchange, reader: UsageReader | None, *, was_sent: bool = True) -> None:
    """Correct what was taken from the limits by what was used; give it back when nothing was sent."""
    if x.grant is None:
        return
    if not was_sent:
        parts.background.spawn(x.grant.refund())
        return
    tokens = reader.tokens if reader is not None else None
    if x.grant.reserved or x.grant.slots:
        # Plain rates have nothing to correct, and most requests have plain rates.
        parts.background.spawn(x.grant.settle(Usage(tokens, x.answer_bytes)))
    if tokens and x.tenant is not None:
        parts.metrics.model_tokens(x.tenant.id, tokens)


def settle_fault(parts: Parts, x: Exchange, fault: UpstreamFault | None, reader: UsageReader | None) -> None:
    """Settle after the upstream was asked, whatever came of it."""
    settle(parts, x, reader, was_sent=fault is None or fault.outcome is not Outcome.NOT_SENT)
    if reader is not None and reader.failure is not None:
        # A failure inside a 200: the breaker would take it for a success.
        parts.upstream.report_failure(x.account, reader.failure)


def note_refusal(parts: Parts, x: Exchange, refusal: Refusal) -> None:
    """Count a refusal; record it when it kept a write from happening."""
    tenant = x.principal.tenant if x.principal is not None else None
    parts.metrics.refusal(refusal.reason, refusal.status, tenant)
    operation = x.operation
    is_write = operation.is_write if operation is not None else x.request.method == "POST"
    if not is_write or refusal.status not in _RECORDED_REFUSALS or operation is None or parts.journal is None:
        return
    principal = x.principal
    parts.journal.note(
        "refused",
        {
            "request_id": x.request_id,
            **({"trace_id": x.trace_id} if x.trace_id is not None else {}),
            "tenant": tenant,
            "subject": principal.subject if principal is not None else None,
            "token_id": principal.token_id if principal is not None else None,
            "client_address": x.client_address(parts.trusted_proxies),
            "operation": operation.route.audit_name,
            "ids": list(operation.ids),
            "status": refusal.status,
            "reason": refusal.reason,
        },
    )


def count(parts: Parts, x: Exchange) -> None:
    """Count the request and write its access line. Called once, after its last byte.

    A grant that no path has settled (the client left, a refusal further in) is settled here: what it
    holds must not outlive the request. Settling twice counts once.
    """
    if x.grant is not None and (x.grant.reserved or x.grant.slots):
        parts.background.spawn(x.grant.settle(Usage(None, x.answer_bytes)))
    total_s = x.elapsed_s
    tenant = x.tenant.id if x.tenant is not None else None
    effect = x.operation.effect if x.operation is not None else Effect.READ
    parts.metrics.request(
        tenant,
        x.resource,
        x.action,
        x.status,
        x.cache_label,
        total_s,
        x.upstream_s,
        effect=effect,
        request_id=x.request_id,
    )
    parts.metrics.bodies(tenant, x.body.size if x.body is not None else 0, x.answer_bytes)
    access = parts.access
    # A stream is slow when its first byte is: how long it lasts is its client's choice.
    if access is None or not access.wants(x.status, total_s if x.first_byte_s is None else x.first_byte_s):
        return
    access.write(
        AccessEntry(
            request_id=x.request_id,
            method=x.request.method,
            path=x.operation.route.template if x.operation is not None else "-",
            status=x.status,
            total_s=total_s,
            upstream_s=x.upstream_s,
            tenant=tenant,
            cache=x.cache_label,
            client=x.client_address(parts.trusted_proxies),
            reason=x.refusal_reason,
            received_bytes=x.body.size if x.body is not None else 0,
            sent_bytes=x.answer_bytes,
            trace_id=x.trace_id,
            first_byte_s=x.first_byte_s,
        )
    )

"""What the journal is told of a write before it happens, and the body that then goes upstream.

Values only: when a write may go ahead is decided by the journal, how it ended is told in `writes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cbk_gateway import forwarding, request_body
from cbk_gateway.audit import Act, Intent, OnFailure
from cbk_gateway.audit import tag as tags
from cbk_gateway.exchange import Exchange
from cbk_gateway.parties import Tenant
from cbk_gateway.parts import Parts
from cbk_gateway.request_body import TakenBody
from cbk_gateway.upstream import Answer

_REQUEST_ID_FIELDS: Final = ("x-vercel-id", "cf-ray", "x-amzn-requestid")
"""Where edges name a request; the API itself does not."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A body as it goes upstream: the client's own, or, with a tag in it, that of a create."""

    body: TakenBody | None
    tag: str | None = None


def outgoing(parts: Parts, x: Exchange) -> Sent:
    """The body to send. It is the client's, byte by byte, unless creates are tagged and this one can be."""
    operation, _, _ = forwarding.settled(x)
    body = x.body
    if not parts.tags_creates or body is None or not body.whole or not tags.is_taggable(operation):
        return Sent(body)
    tag = tags.fresh()
    changed = tags.tagged(body.whole, tag)
    return Sent(body) if changed is None else Sent(TakenBody(changed, len(changed), None), tag)


async def intend(parts: Parts, x: Exchange, tag: str | None) -> Intent | None:
    """Make the intent durable, or refuse the write; None where there is no journal.

    Raises:
        AuditUnavailable: It could not be made durable; nothing may be sent.
    """
    return await parts.journal.intend(act_of(parts, x, tag)) if parts.journal is not None else None


def act_of(parts: Parts, x: Exchange, tag: str | None) -> Act:
    """Who does what, and how."""
    operation, principal, tenant = forwarding.settled(x)
    body = x.body
    # For a write the choice of the key is no draw: it is the one that will be sent.
    credential = parts.credentials.credential_for(tenant, operation)
    return Act(
        request_id=x.request_id,
        tenant=tenant.id,
        subject=principal.subject,
        token_id=principal.token_id,
        issuer=principal.issuer,
        scopes=principal.scopes,
        client_address=x.client_address(parts.trusted_proxies),
        user_agent=x.header("User-Agent"),
        run_as=tenant.run_as or x.asked_run_as,
        operation=operation,
        account=x.account,
        key_fingerprint=credential.key.stable_fingerprint(parts.fingerprint_key),
        key_version=credential.which.value,
        body_sha256=body.sha256 if body is not None and body.whole is not None else None,
        body_bytes=body.length if body is not None else 0,
        tag=tag,
        body=body.whole if body is not None and _keeps_body(tenant, x) else None,
        content_type=_content_type(x) or None,
        trace_id=x.trace.trace_id,
        on_failure=OnFailure(tenant.audit_on_failure),
    )


def keeps_answer(x: Exchange, answer: Answer) -> bool:
    """Whether a redacted form of the answer's body is to be kept."""
    _, _, tenant = forwarding.settled(x)
    return tenant.audit_bodies and request_body.is_json_media(forwarding.content_type_of(answer))


def upstream_request_id(answer: Answer | None) -> str | None:
    """The request id that the upstream or its edge gave, where one did."""
    if answer is None:
        return None
    given = {name.lower(): value for name, value in answer.headers}
    return next((given[name] for name in _REQUEST_ID_FIELDS if name in given), None)


def _keeps_body(tenant: Tenant, x: Exchange) -> bool:
    return tenant.audit_bodies and request_body.is_json_media(_content_type(x))


def _content_type(x: Exchange) -> str:
    return x.header("Content-Type") or ""

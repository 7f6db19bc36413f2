"""Whether a tenant's principal may do what it asks, and why.

Pure: values in, a refusal or an explanation out. What the tenant may do bounds what its token may do; a
token without scopes may do nothing. How scopes match is `scopes.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cbk_gateway.errors import NotAuthenticated, NotAuthorized, Refusal
from cbk_gateway.operation import Operation
from cbk_gateway.parties import Principal, Tenant
from cbk_gateway.tenancy.headers import is_run_as_header
from cbk_gateway.tenancy.scopes import Verdict, needed_scope, scope_set


@dataclass(frozen=True, slots=True)
class Explanation:
    """Who may do an operation, and why.

    Attributes:
        allowed: Whether it would pass this step.
        operation: The scope's name of it: `bot:fetch`.
        effect: "read", "write" or "stream".
        needed_scope: The narrowest scope that allows it.
        tenant: Id of the tenant asked about.
        subject: The token's subject, or None when no token is looked at.
        tenant_rule: The tenant's rule that decided, or None when none matches.
        token_rule: The token's rule that decided, or None.
        status: The refusal's HTTP status, or None when allowed.
        reason: The refusal's reason word, or None.
        because: One plain sentence.
    """

    allowed: bool
    operation: str
    effect: str
    needed_scope: str
    tenant: str
    subject: str | None
    tenant_rule: str | None
    token_rule: str | None
    status: int | None
    reason: str | None
    because: str


def authorise(
    principal: Principal,
    tenant: Tenant,
    operation: Operation,
    run_as_headers: Sequence[tuple[str, str]] = (),
) -> None:
    """Let the operation pass, or refuse it. Once per request; touches nothing.

    Of `run_as_headers` those count for which `headers.is_run_as_header` holds.

    Raises:
        NotAuthorized: The tenant is disabled or another's, sends run-as headers it may not, or lacks a scope.
        NotAuthenticated: The token is older than the tenant accepts.
    """
    refusal = _standing(principal, tenant)
    if refusal is not None:
        raise refusal
    if run_as_headers and any(is_run_as_header(name) for name, _ in run_as_headers):
        _refuse_run_as(tenant)
    verdict = scope_set(tenant.scopes).allows(operation)
    if not verdict.allowed:
        raise _lacking("tenant", verdict, operation)
    verdict = scope_set(principal.scopes).allows(operation)
    if not verdict.allowed:
        raise _lacking("token", verdict, operation)


def explain(principal: Principal | None, tenant: Tenant, operation: Operation) -> Explanation:
    """What `authorise` would say, and which rules decide. With no principal, the tenant's own bounds."""
    of_tenant = scope_set(tenant.scopes).allows(operation)
    of_token = scope_set(principal.scopes).allows(operation) if principal is not None else None
    refusal = _standing(principal, tenant)
    if refusal is None and not of_tenant.allowed:
        refusal = _lacking("tenant", of_tenant, operation)
    if refusal is None and of_token is not None and not of_token.allowed:
        refusal = _lacking("token", of_token, operation)
    return Explanation(
        allowed=refusal is None,
        operation=operation.scope,
        effect=str(operation.effect),
        needed_scope=needed_scope(operation),
        tenant=tenant.id,
        subject=principal.subject if principal is not None else None,
        tenant_rule=of_tenant.rule,
        token_rule=of_token.rule if of_token is not None else None,
        status=refusal.status if refusal is not None else None,
        reason=refusal.reason if refusal is not None else None,
        because=refusal.message if refusal is not None else _why(of_tenant, of_token),
    )


def _standing(principal: Principal | None, tenant: Tenant) -> Refusal | None:
    """What bars the tenant or the token whatever is asked."""
    if principal is not None and principal.tenant != tenant.id:
        return NotAuthorized("The token belongs to another tenant.", reason="other_tenant")
    if tenant.disabled:
        return NotAuthorized("This tenant is disabled.", reason="tenant_disabled")
    if principal is not None and principal.issued_at < tenant.token_not_before:
        return NotAuthenticated(
            "The token was issued before its tenant's tokens were revoked.", reason="revoked"
        )
    return None


def _refuse_run_as(tenant: Tenant) -> None:
    if tenant.run_as is not None or not tenant.may_run_as:
        raise NotAuthorized("This tenant may not choose the account it acts as.", reason="run_as")


def _lacking(whose: str, verdict: Verdict, operation: Operation) -> NotAuthorized:
    needed = needed_scope(operation)
    details = {"requiredScope": needed}
    if verdict.rule is not None:
        return NotAuthorized(
            f"The {whose}'s scope {verdict.rule} denies this.", reason="denied", details=details
        )
    return NotAuthorized(f"The {whose} lacks the scope {needed}.", reason="scope", details=details)


def _why(of_tenant: Verdict, of_token: Verdict | None) -> str:
    if of_token is None:
        return f"The tenant's scope {of_tenant.rule} allows this."
    return f"The tenant's scope {of_tenant.rule} and the token's scope {of_token.rule} allow this."

"""What an operation is, who may do it, which limits and cache rules apply, and what it invalidates.

One answer for the command line and the operators' port. Nothing is decided here: every line is asked of
the package that decides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from cbk_gateway.operation import ALL_TYPES, Operation, understand
from cbk_gateway.parties import Principal, Tenant
from cbk_gateway.settings.cache import CacheSettings
from cbk_gateway.tenancy import Explanation, covers, explain

EVERYBODY: Final = "*"
"""In place of a tenant's id: who of all may do it."""


def explained(
    method: str,
    target: str,
    tenant: Tenant | None,
    cache: CacheSettings,
    *,
    scopes: Sequence[str] | None = None,
    everybody: Iterable[Tenant] = (),
) -> dict[str, object]:
    """A plain document about one request.

    Args:
        method: Its method.
        target: Its path, with the query.
        tenant: Whose rights and limits to look at.
        cache: What is remembered, and for how long.
        scopes: What a token of theirs may do; None leaves tokens out.
        everybody: Tenants of whom each is told whether it may.

    Raises:
        Refusal: The request is none of this API.
    """
    operation = understand(method.upper(), target)
    route = operation.route
    answer: dict[str, object] = {
        "operation": route.audit_name,
        "template": route.template,
        "forwarded_path": operation.path,
        "known": route.known,
        "scope": operation.scope,
        "effect": str(route.effect),
        "cost_class": str(route.cost_class),
        "runs_model": route.runs_model,
        "cache": _cache(operation, cache),
        "invalidates": "everything of the account"
        if ALL_TYPES in route.invalidates
        else sorted(route.invalidates),
        "journalled": operation.is_write,
    }
    if tenant is not None:
        verdict = _verdict(tenant, operation, scopes)
        answer["tenant"] = {
            "id": tenant.id,
            "allowed": verdict.allowed,
            "because": verdict.because,
            "needed_scope": verdict.needed_scope,
            "tenant_rule": verdict.tenant_rule,
            "token_rule": verdict.token_rule,
            "limits": _limits(operation, tenant),
        }
    verdicts = [_verdict(one, operation, scopes) for one in everybody]
    if verdicts:
        answer["tenants"] = [
            {"id": one.tenant, "allowed": one.allowed, "because": one.because} for one in verdicts
        ]
    return answer


def _verdict(tenant: Tenant, operation: Operation, scopes: Sequence[str] | None) -> Explanation:
    """What would become of it, with a token of these scopes that nothing else is wrong with."""
    if scopes is None:
        return explain(None, tenant, operation)
    moment = tenant.token_not_before
    holder = Principal(tenant.id, "", None, "", tuple(scopes), moment, moment, "")
    return explain(holder, tenant, operation)


def _cache(operation: Operation, cache: CacheSettings) -> dict[str, object]:
    if not operation.is_cacheable or not cache.enabled:
        return {"kept": False, "why": _why_not(operation, cache)}
    seconds = cache.types.get(operation.resource, getattr(cache, f"{operation.route.lifetime}_s"))
    return {"kept": seconds > 0, "seconds": seconds, "dropped_by_writes_of": sorted(operation.route.reads)}


def _why_not(operation: Operation, cache: CacheSettings) -> str:
    if not cache.enabled:
        return "the cache is off"
    if operation.is_write:
        return "it writes"
    if not operation.route.known:
        return "the path is not in the table"
    return "its answers may hold credentials, or are out of date at once, or are no list or fetch"


def _limits(operation: Operation, tenant: Tenant) -> list[dict[str, object]]:
    cost = tenant.limits.costs.get(operation.route.cost_class, 1.0)
    found: list[dict[str, object]] = [
        {
            "policy": rate.name,
            "per_second": rate.per_second,
            "burst": rate.burst,
            "cost": cost,
            "shadow": rate.shadow,
        }
        for rate in tenant.limits.rates
        if covers(rate.match, operation)
    ]
    found += [
        {
            "policy": quota.name,
            "per": str(quota.period),
            "measure": str(quota.measure),
            "limit": quota.limit,
            "hard": quota.hard,
            "shadow": quota.shadow,
        }
        for quota in tenant.limits.quotas
    ]
    return found

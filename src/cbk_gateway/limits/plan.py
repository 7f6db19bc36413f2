"""Which limits count an operation, at what cost, and under which keys. Pure; no numbers of the moment.

A plan follows from a tenant's policy, the subject and the route alone, so that the limiter can keep it.
What is left in a bucket is `bucket_view.py`'s and the store's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cbk_gateway.operation import Operation
from cbk_gateway.parties import Measure, Period, Quota, Rate, Tenant
from cbk_gateway.settings.scope_syntax import ScopeRule, parse_scope

GLOBAL_TAG: Final = "*"
"""Hash tag of the bucket over all tenants; no tenant or account can be called so."""

ROLL_CALL_KEY: Final = "cbkgw:{*}:workers"

RESETS_KEY: Final = "cbkgw:{*}:resets"


@dataclass(frozen=True, slots=True)
class BucketRef:
    """One bucket by name.

    Attributes:
        key: Its key in the store.
        rate: Its policy.
        tag: The hash tag within the key: buckets of one tag are decided in one step on a Cluster.
    """

    key: str
    rate: Rate
    tag: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All limits of one kind of request.

    Attributes:
        tenant: Whose request it is.
        draws: Buckets with the cost each takes, in the order of decision: tenant, account, global.
        quotas: Calendar allowances that count it.
        max_concurrent: Most open requests, None for no bound.
        max_streams: Most open streams, None when there is no bound or it is no stream.
    """

    tenant: Tenant
    draws: tuple[tuple[BucketRef, float], ...]
    quotas: tuple[Quota, ...]
    max_concurrent: int | None
    max_streams: int | None

    @property
    def is_free(self) -> bool:
        """Whether nothing limits it."""
        return not self.draws and self.needs_no_store

    @property
    def needs_no_store(self) -> bool:
        """Whether buckets alone decide it: no quota and no bound on open requests counts it."""
        return not self.quotas and self.max_concurrent is None and self.max_streams is None


def plan_for(
    tenant: Tenant,
    subject: str,
    operation: Operation,
    *,
    is_stream: bool,
    global_rate: Rate | None,
    account_rates: Mapping[str, Rate],
) -> Plan:
    """Find the limits that count an operation of a tenant's subject."""
    limits = tenant.limits
    refs = [tenant_bucket(tenant, rate) for rate in limits.rates if counts(rate.match, operation)]
    subject_rate = limits.subject_rate
    if subject_rate is not None and counts(subject_rate.match, operation):
        refs.append(subject_bucket(tenant, subject_rate, subject))
    account_rate = account_rates.get(tenant.account)
    if account_rate is not None and counts(account_rate.match, operation):
        refs.append(account_bucket(tenant.account, account_rate))
    if global_rate is not None and counts(global_rate.match, operation):
        refs.append(global_bucket(global_rate))
    cost = limits.costs.get(operation.route.cost_class, 1.0)
    return Plan(
        tenant=tenant,
        draws=tuple((ref, cost) for ref in refs) if cost > 0 else (),
        quotas=tuple(
            one for one in limits.quotas if one.measure is not Measure.TOKENS or spends_tokens(operation)
        ),
        max_concurrent=limits.max_concurrent,
        max_streams=limits.max_streams if is_stream else None,
    )


def tenant_bucket(tenant: Tenant, rate: Rate) -> BucketRef:
    """The bucket of one of a tenant's rates."""
    return BucketRef(f"cbkgw:{{{tenant.id}}}:rate:{rate.name}", rate, tenant.id)


def subject_bucket(tenant: Tenant, rate: Rate, subject: str) -> BucketRef:
    """The bucket of one token subject. Subjects are foreign text of any length, so keys hold a digest."""
    digest = hashlib.blake2b(subject.encode(errors="surrogatepass"), digest_size=12).hexdigest()
    return BucketRef(f"cbkgw:{{{tenant.id}}}:subject:{rate.name}:{digest}", rate, tenant.id)


def account_bucket(account: str, rate: Rate) -> BucketRef:
    """The bucket over all tenants of an upstream account."""
    return BucketRef(f"cbkgw:{{{account}}}:account:{rate.name}", rate, account)


def global_bucket(rate: Rate) -> BucketRef:
    """The bucket over everything."""
    return BucketRef(f"cbkgw:{{{GLOBAL_TAG}}}:rate:{rate.name}", rate, GLOBAL_TAG)


def quota_key(tenant_id: str, quota: Quota, period_id: str) -> str:
    """The counter of a quota in one period."""
    return f"cbkgw:{{{tenant_id}}}:quota:{quota.name}:{period_id}"


def slot_key(tenant_id: str, kind: str) -> str:
    """The table of open requests or streams per worker."""
    return f"cbkgw:{{{tenant_id}}}:open:{kind}"


def counts(match: str, operation: Operation) -> bool:
    """Whether a rate's pattern counts an operation. Patterns are scopes without ids: `*:write`."""
    rule = parse_scope(match)
    if rule.effect is not None and rule.effect is not operation.effect:
        return False
    if rule.action is not None and rule.action != operation.scope_action:
        return False
    return not rule.segments or _type_fits(rule, operation)


def _type_fits(rule: ScopeRule, operation: Operation) -> bool:
    parts = operation.scope_resource.split("/")
    names = [segment.name for segment in rule.segments]
    if not operation.route.known:
        # Only the first segment of an unknown path is known; counting too much errs on the safe side.
        return names[0] in {None, parts[0]}
    if len(parts) < len(names) or (len(parts) > len(names) and not rule.open_ended):
        return False
    return all(name is None or name == part for name, part in zip(names, parts, strict=False))


def spends_tokens(operation: Operation) -> bool:
    """Whether upstream tokens may be spent by it, so that token budgets count it."""
    return operation.route.runs_model


def label(measure: Measure, period: Period) -> str:
    """A quota's measure for people: `tokens per day`."""
    return f"{measure} per {period}"

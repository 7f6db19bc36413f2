"""What operators see and do: a tenant's limits as they stand, resets, and quota grants.

Reads and writes the store directly, by the same script as decisions; the hot path never comes here. Other
workers learn of a change with their next question, and forget a remembered refusal when its time is over.
"""

from __future__ import annotations

from dataclasses import dataclass

from cbk_gateway.limits.bookkeeping import Bookkeeping
from cbk_gateway.limits.calendar import span_of
from cbk_gateway.limits.counters import QuotaView
from cbk_gateway.limits.desk import bucket_question, enter
from cbk_gateway.limits.ledger import Question
from cbk_gateway.limits.options import LimiterOptions, Mode
from cbk_gateway.limits.plan import BucketRef, account_bucket, global_bucket, tenant_bucket
from cbk_gateway.limits.reservation import reset_text
from cbk_gateway.parties import Quota, Tenant


@dataclass(frozen=True, slots=True)
class RateStanding:
    """A bucket as it stands.

    Attributes:
        policy: Its name.
        match: Which operations it counts.
        per_second: Tokens that flow in.
        burst: Most tokens it holds.
        tokens: Tokens in the store now; what workers hold on lease is not among them.
        is_shadow: Whether it only counts.
    """

    policy: str
    match: str
    per_second: float
    burst: float
    tokens: float
    is_shadow: bool


@dataclass(frozen=True, slots=True)
class QuotaStanding:
    """A quota as it stands in the present period.

    Attributes:
        policy: Its name.
        measure: What it counts: requests, tokens, bytes.
        period: Name of the period, `2026-11` or `2026-11-22`.
        limit: The allowance.
        used: What is used, reservations of open requests included; below 0 after a grant.
        resets_at: When the period ends, ISO 8601 in the tenant's zone.
        is_hard: Whether it refuses.
        is_shadow: Whether it only counts.
    """

    policy: str
    measure: str
    period: str
    limit: int
    used: int
    resets_at: str
    is_hard: bool
    is_shadow: bool


@dataclass(frozen=True, slots=True)
class OpenStanding:
    """Open requests or streams over all workers; `most` is the bound."""

    kind: str
    open: int
    most: int


@dataclass(frozen=True, slots=True)
class LimitsStanding:
    """Everything that limits one tenant, live. `mode` says whether the store rules this worker."""

    tenant: str
    mode: Mode
    workers: int
    rates: tuple[RateStanding, ...]
    quotas: tuple[QuotaStanding, ...]
    open: tuple[OpenStanding, ...]


async def show(tenant: Tenant, books: Bookkeeping, options: LimiterOptions) -> LimitsStanding:
    """A tenant's limits as they stand.

    Raises:
        StoreFault: The store does not answer.
    """
    rates = [await _rate_standing(ref, books) for ref in buckets_of(tenant, options)]
    limits = tenant.limits
    slots = []
    for kind, most in (("requests", limits.max_concurrent), ("streams", limits.max_streams)):
        if most is not None:
            question = Question(slots=(books.desk.slot(tenant.id, kind, most).question(is_wanted=False),))
            slots.append(OpenStanding(kind, (await books.ledger.ask(question)).open[0], most))
    quotas = await quota_show(tenant, books)
    return LimitsStanding(tenant.id, books.mode, books.workers, tuple(rates), quotas, tuple(slots))


async def reset(tenant: Tenant, books: Bookkeeping, policy: str | None) -> tuple[str, ...]:
    """Fill a tenant's own buckets, all or the named one; returns the names of those filled.

    Buckets of subjects, accounts and of everything are not the tenant's alone and stay as they are.

    Raises:
        KeyError: The tenant has no such rate.
        StoreFault: The store does not answer.
    """
    wanted = [rate for rate in tenant.limits.rates if policy in {None, rate.name}]
    if policy is not None and not wanted:
        raise KeyError(policy)
    for rate in wanted:
        view = books.desk.bucket(tenant_bucket(tenant, rate))
        view.given_back += rate.burst
        await books.return_tokens((view,))
        view.blocked_until = 0.0
    return tuple(rate.name for rate in wanted)


async def quota_show(tenant: Tenant, books: Bookkeeping) -> tuple[QuotaStanding, ...]:
    """A tenant's quotas in their present periods.

    Raises:
        StoreFault: The store does not answer.
    """
    now_us = await books.ask_time()
    views = [_current(tenant, quota, now_us) for quota in tenant.limits.quotas]
    used = await books.ledger.read([view.key for view in views])
    return tuple(
        _quota_standing(view, count or 0, tenant.timezone) for view, count in zip(views, used, strict=True)
    )


async def quota_add(tenant: Tenant, books: Bookkeeping, policy: str, amount: int | None) -> QuotaStanding:
    """Add to what is used of a quota in its present period; None forgets all that was used.

    A negative amount is a grant: it may take the count below zero, so that more than the limit can be used.

    Raises:
        KeyError: The tenant has no such quota.
        StoreFault: The store does not answer.
    """
    quota = next((one for one in tenant.limits.quotas if one.name == policy), None)
    if quota is None:
        raise KeyError(policy)
    now_us = await books.ask_time()
    view = books.desk.quota(tenant, quota, now_us)
    view.used = await books.ledger.add(view.key, amount, view.span)
    view.blocked_until = 0.0
    view.warned = 0
    return _quota_standing(view, view.used, tenant.timezone)


def buckets_of(tenant: Tenant, options: LimiterOptions) -> tuple[BucketRef, ...]:
    """The buckets a tenant draws on, without those of single subjects."""
    refs = [tenant_bucket(tenant, rate) for rate in tenant.limits.rates]
    account_rate = options.account_rates.get(tenant.account)
    if account_rate is not None:
        refs.append(account_bucket(tenant.account, account_rate))
    if options.global_rate is not None:
        refs.append(global_bucket(options.global_rate))
    return tuple(refs)


async def _rate_standing(ref: BucketRef, books: Bookkeeping) -> RateStanding:
    view = books.desk.bucket(ref)
    if view.given_back:
        await books.return_tokens((view,))
    else:
        # A question that asks for nothing changes nothing.
        question = Question((bucket_question(view, 0.0, 0.0, books.workers),))
        enter((view,), await books.ledger.ask(question), books.monotonic())
    rate = ref.rate
    return RateStanding(rate.name, rate.match, rate.per_second, rate.burst, view.tokens, rate.shadow)


def _current(tenant: Tenant, quota: Quota, now_us: int) -> QuotaView:
    return QuotaView(tenant.id, quota, span_of(now_us, quota.period, tenant.timezone))


def _quota_standing(view: QuotaView, used: int, timezone: str) -> QuotaStanding:
    quota = view.quota
    resets_at = reset_text(view, timezone)
    return QuotaStanding(
        quota.name, quota.measure, view.span.name, quota.limit, used, resets_at, quota.hard, quota.shadow
    )

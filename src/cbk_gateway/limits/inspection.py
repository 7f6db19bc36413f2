"""What operators see and do: a tenant's limits as they stand, resets, and quota grants.

Reads and writes the store directly, by the same script as decisions; the hot path never comes here. Other
workers learn of a change with their next question.
"""

from __future__ import annotations

from dataclasses import dataclass

from cbk_gateway.limits.bookkeeping import Bookkeeping
from cbk_gateway.limits.counters import QuotaView
from cbk_gateway.limits.desk import bucket_question, enter
from cbk_gateway.limits.ledger import Question
from cbk_gateway.limits.options import LimiterOptions, Mode
from cbk_gateway.limits.plan import (
    BucketRef,
    account_bucket,
    global_bucket,
    subject_bucket,
    tenant_bucket,
)
from cbk_gateway.limits.reservation import reset_text
from cbk_gateway.parties import Tenant


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
        used: What is used, reservations of open requests included, and what other workers took in advance
            within the last seconds; below 0 after a grant.
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
    """Open requests or streams over all workers, with free places that others keep; `most` is the bound."""

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
            view = books.desk.slot(tenant.id, kind, most)
            began = books.monotonic()
            question = Question(slots=(view.report(books.workers),))
            total = (await books.ledger.ask(question)).open[0]
            view.enter(question.slots[0], total, 0, began + options.slot_life_s, is_admitted=True)
            slots.append(OpenStanding(kind, total - view.kept + view.own, most))
    quotas = await quota_show(tenant, books)
    return LimitsStanding(tenant.id, books.mode, books.workers, tuple(rates), quotas, tuple(slots))


@dataclass(frozen=True, slots=True)
class Filling:
    """Which buckets to fill.

    Attributes:
        policy: One of the tenant's own rates; None for all of them.
        subject: Also the bucket of this token subject.
        account: Also the one the tenant shares with others of its upstream account.
        overall: Also the one over everybody.
    """

    policy: str | None = None
    subject: str | None = None
    account: bool = False
    overall: bool = False

    def buckets(self, tenant: Tenant, options: LimiterOptions) -> tuple[BucketRef, ...]:
        """The buckets. Raises `KeyError` with the name of one that there is not."""
        limits = tenant.limits
        refs = [tenant_bucket(tenant, rate) for rate in limits.rates if self.policy in {None, rate.name}]
        if self.policy is not None and not refs:
            raise KeyError(self.policy)
        if self.subject is not None:
            if limits.subject_rate is None:
                raise KeyError("subject")
            refs.append(subject_bucket(tenant, limits.subject_rate, self.subject))
        if self.account:
            refs.append(account_bucket(tenant.account, options.account_rates[tenant.account]))
        if self.overall:
            if options.global_rate is None:
                raise KeyError("overall")
            refs.append(global_bucket(options.global_rate))
        return tuple(refs)


async def reset(
    tenant: Tenant, books: Bookkeeping, options: LimiterOptions, filling: Filling
) -> tuple[str, ...]:
    """Fill buckets to the brim, which is their burst without what workers hold on lease.

    Other workers forget their remembered refusals at their next sign of life.

    Returns:
        The names of the policies whose buckets were filled.

    Raises:
        KeyError: There is no such bucket.
        StoreFault: The store does not answer.
    """
    refs = filling.buckets(tenant, options)
    for ref in refs:
        view = books.desk.bucket(ref)
        view.given_back += ref.rate.burst
        await books.return_tokens((view,))
        view.blocked.clear()
    await books.ledger.announce_reset()
    return tuple(ref.rate.name for ref in refs)


async def quota_show(tenant: Tenant, books: Bookkeeping) -> tuple[QuotaStanding, ...]:
    """A tenant's quotas in their present periods.

    Raises:
        StoreFault: The store does not answer.
    """
    now_us = await books.ask_time()
    views = [books.desk.quota(tenant, quota, now_us) for quota in tenant.limits.quotas]
    used = await books.ledger.read([view.key for view in views])
    return tuple(
        _quota_standing(view, (count or 0) - view.lease, tenant.timezone)
        for view, count in zip(views, used, strict=True)
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
    if amount is None:
        # What was taken in advance is forgotten with the rest.
        view.lease = view.pending = 0
    view.used = await books.ledger.add(view.key, amount, view.span)
    view.blocked_until = 0.0
    view.warned = 0
    return _quota_standing(view, view.used - view.lease, tenant.timezone)


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


def _quota_standing(view: QuotaView, used: int, timezone: str) -> QuotaStanding:
    quota = view.quota
    resets_at = reset_text(view, timezone)
    return QuotaStanding(
        quota.name, quota.measure, view.span.name, quota.limit, used, resets_at, quota.hard, quota.shadow
    )

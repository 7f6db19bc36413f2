"""Who is at the gateway: the principal a token speaks for and the tenant that pays for the request.

Values only, on a floor below every package that needs them. How a token becomes a `Principal` is
`identity`'s business; how files become `Tenant`s, and what a tenant may do, is `tenancy`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from cbk_gateway.secret import Secret

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Principal:
    """What a verified token says.

    Attributes:
        tenant: Id of the tenant the token belongs to.
        subject: The `sub` claim: the app or user acting.
        token_id: The `jti` claim, or None when the issuer gives none.
        issuer: The configured name of the issuer that signed it.
        scopes: Scope texts of the token, in its order (see `tenancy.scopes` for their grammar).
        issued_at: `iat` in epoch seconds, or 0 when the token has none.
        expires_at: `exp` in epoch seconds.
        fingerprint: SHA-256 of the token in hex, its name in memory; never written anywhere.
    """

    tenant: str
    subject: str
    token_id: str | None
    issuer: str
    scopes: tuple[str, ...]
    issued_at: int
    expires_at: int
    fingerprint: str = field(repr=False)


class RunAsForm(StrEnum):
    """The two headers that let a partner key act as one of its child accounts."""

    USER_ID = "X-RunAs-User-ID"
    CHILD_EMAIL = "X-RunAs-Child-User-Email"


@dataclass(frozen=True, slots=True)
class RunAs:
    """A child account to act as. `value` is an id or an e-mail, according to `form`."""

    form: RunAsForm
    value: str


class StoreFailure(StrEnum):
    """What a limit does while the store is away."""

    DENY = "deny"
    ALLOW = "allow"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: `per_second` tokens flow in, at most `burst` are kept.

    `name` is the policy's name in headers, refusals and metrics. `match` is a scope pattern: the bucket
    counts the operations it matches ("*" counts all). `shadow` counts and reports but never refuses.
    """

    name: str
    per_second: float
    burst: float
    match: str = "*"
    on_store_failure: StoreFailure = StoreFailure.LOCAL
    shadow: bool = False


class Period(StrEnum):
    """The calendar span of a quota, in the tenant's time zone."""

    DAY = "day"
    MONTH = "month"


class Measure(StrEnum):
    """What a quota counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Quota:
    """An allowance per calendar period. A soft quota warns at 80 % and 100 % and refuses nothing."""

    name: str
    period: Period
    measure: Measure
    limit: int
    hard: bool = True
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """All limits of one tenant.

    Attributes:
        rates: Token buckets; a request must get its cost from every one that matches it.
        subject_rate: A bucket for each token subject, or None.
        quotas: Calendar allowances.
        max_concurrent: Open requests at a time, None for no bound.
        max_streams: Open streams at a time, None for no bound.
        max_wait_s: How long a request may wait for its token instead of being refused, 0 for never.
        costs: Tokens taken per cost class; a class not named costs 1.
    """

    rates: tuple[Rate, ...] = ()
    subject_rate: Rate | None = None
    quotas: tuple[Quota, ...] = ()
    max_concurrent: int | None = None
    max_streams: int | None = None
    max_wait_s: float = 0.0
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer of the platform team: one upstream account, one policy.

    Attributes:
        id: Name of the tenant, from configuration: `[a-z0-9][a-z0-9_-]{0,62}`.
        account: The upstream account it acts on; the unit of cache truth (several tenants may share one).
        key: The upstream secret key in force.
        next_key: The key a rotation is moving to, or None.
        key_expires: When `key` stops working, in epoch seconds, or None where that is not known.
        next_key_expires: The same of `next_key`.
        run_as: The child account every request is forced into, or None.
        scopes: What the tenant may do at most; a token narrows it. Deny rules start with `!`.
        limits: Rates, quotas and concurrency.
        labels: Free labels for dashboards and search.
        timezone: IANA name; calendar quotas turn over at its midnight.
        may_bypass_cache: Whether `X-CBK-Cache: bypass` is obeyed.
        may_run_as: Whether the client may send run-as headers of its own.
        audit_bodies: Whether redacted bodies are kept in the journal.
        audit_on_failure: "refuse" writes when they cannot be journalled, or "allow" them.
        isolation: "none", "report" or "objects": see `tenancy.ownership`.
        allowed_origins: Browser origins allowed by CORS; ("*",) for any.
        disabled: A disabled tenant is refused at once.
        token_not_before: Tokens issued before this epoch second are refused (0: none).
    """

    id: str
    account: str
    key: Secret
    next_key: Secret | None = None
    run_as: RunAs | None = None
    scopes: tuple[str, ...] = ("*",)
    limits: TenantLimits = field(default_factory=TenantLimits)
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    timezone: str = "UTC"
    may_bypass_cache: bool = False
    may_run_as: bool = False
    audit_bodies: bool = False
    audit_on_failure: str = "refuse"
    isolation: str = "none"
    allowed_origins: tuple[str, ...] = ("*",)
    disabled: bool = False
    token_not_before: int = 0
    key_expires: int | None = None
    next_key_expires: int | None = None

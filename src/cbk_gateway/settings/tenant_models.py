"""The shape of `config/tenants.yaml`: every field with its unit, default, effect and when to leave it.

Shape only. Following secret references and comparing tenants with one another is `tenants.py`.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from cbk_gateway.operation import CostClass
from cbk_gateway.parties import Measure, Period, StoreFailure
from cbk_gateway.settings.scope_syntax import ScopeSyntaxError, parse_scope

MAX_TENANTS: Final = 20_000
MAX_SCOPES: Final = 200
MAX_CLASSES: Final = 20

_TENANT_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_POLICY_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]{1,255}")
_RESERVED_POLICY_NAMES: Final = frozenset({"tenant", "subject"})


def _tenant_id(text: str) -> str:
    if _TENANT_ID.fullmatch(text) is None:
        raise ValueError("An id is 1 to 63 of a-z, 0-9, `_` and `-`, and begins with a letter or digit.")
    return text


def _account(text: str) -> str:
    if _ACCOUNT.fullmatch(text) is None:
        raise ValueError("An account is 1 to 63 letters, digits, `.`, `_` and `-`.")
    return text


def _policy_name(text: str) -> str:
    if _POLICY_NAME.fullmatch(text) is None:
        raise ValueError("A name is 1 to 32 of a-z, 0-9, `_` and `-`, and begins with a letter.")
    if text in _RESERVED_POLICY_NAMES:
        raise ValueError("`tenant` and `subject` are the names of the two general rates; choose another.")
    return text


def _scope(text: str) -> str:
    try:
        parse_scope(text)
    except ScopeSyntaxError as exc:
        raise ValueError(str(exc)) from None
    return text


def _match(text: str) -> str:
    _scope(text)
    if text.startswith("!"):
        raise ValueError("A rate counts what it matches, so its `match` cannot be a deny rule.")
    if parse_scope(text).names_ids:
        raise ValueError("A rate counts operations whatever their ids: leave the brackets out.")
    return text


def _timezone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("This is no IANA time zone; write for example `Europe/Vienna` or `UTC`.") from None
    return text


def _origin(text: str) -> str:
    if text != "*" and _ORIGIN.fullmatch(text) is None:
        raise ValueError("An origin reads `https://app.example.com`, with no path, or `*` for any.")
    return text


def _epoch_seconds(moment: object) -> object:
    if isinstance(moment, str):
        try:
            moment = dt.datetime.fromisoformat(moment)
        except ValueError:
            raise ValueError("Write epoch seconds, or a moment such as 2026-01-31T12:00:00Z.") from None
    if isinstance(moment, dt.datetime):
        if moment.tzinfo is None:
            raise ValueError("A date and time needs a zone, for example 2026-01-31T12:00:00Z.")
        return int(moment.timestamp())
    return moment


class Shape(BaseModel):
    """What all parts share: unknown keys are errors, values never show in them, nothing changes later."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, str_strip_whitespace=True, allow_inf_nan=False
    )


class RateShape(Shape):
    """A token bucket."""

    per_second: float = Field(
        gt=0,
        le=1_000_000,
        description="Tokens per second that flow in; a request takes what its cost class costs (1 unless "
        "`costs` says otherwise). No default. For less than one per second write a fraction: 0.2.",
    )
    burst: float | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Most tokens kept for a sudden rush. Default: twice `per_second`, at least 1. Do not set "
        "it below the dearest cost in `costs`: such requests could never pass.",
    )
    on_store_failure: StoreFailure = Field(
        default=StoreFailure.LOCAL,
        description="What happens while the store is away: `local` (default) counts per process, `deny` "
        "refuses, `allow` lets all through. Do not use `allow` where the limit protects money.",
    )
    shadow: bool = Field(
        default=False,
        description="Count and report, never refuse. Default false. For trying a limit out, not for keeping.",
    )


class ClassRateShape(RateShape):
    """A token bucket for some operations."""

    name: Annotated[str, AfterValidator(_policy_name)] = Field(
        description="Name of the limit in headers, refusals and metrics: 1 to 32 of a-z, 0-9, `_`, `-`.",
    )
    match: Annotated[str, AfterValidator(_match)] = Field(
        description="Scope pattern of what it counts, for example `conversation/**:write`; without ids and "
        "not a deny rule. Paths the gateway does not know count by their first segment.",
    )


class QuotaShape(Shape):
    """An allowance per calendar day or month."""

    name: Annotated[str, AfterValidator(_policy_name)] | None = Field(
        default=None, description="Name in headers, refusals and metrics. Default: `<measure>-per-<period>`."
    )
    period: Period = Field(description="`day` or `month`, turning over at midnight of the tenant's timezone.")
    measure: Measure = Field(
        description="`requests`, `tokens` (of the model, as the API reports them) or `bytes` (both ways)."
    )
    limit: int = Field(ge=0, le=10**15, description="How many in one period. 0 refuses all.")
    hard: bool = Field(
        default=True,
        description="Refuse when used up (default). False only warns at 80 % and 100 %: for billing, not for "
        "protection.",
    )
    shadow: bool = Field(default=False, description="Count and report, never refuse. Default false.")


class LimitsShape(Shape):
    """How much a tenant may use."""

    rate: RateShape | None = Field(
        default=None, description="Bucket for everything the tenant does. Default: no limit."
    )
    classes: tuple[ClassRateShape, ...] = Field(
        default=(),
        max_length=MAX_CLASSES,
        description="Buckets for some operations, beside `rate`: a request needs room in each it matches.",
    )
    subject: RateShape | None = Field(
        default=None,
        description="Bucket for each subject (`sub`) of the tenant's tokens. Default: none. Leave it out "
        "where one subject stands for many people.",
    )
    quotas: tuple[QuotaShape, ...] = Field(
        default=(), max_length=MAX_CLASSES, description="Allowances per day or month. Default: none."
    )
    max_concurrent: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Requests open at one time. Default: no bound."
    )
    max_streams: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Subscriptions and streamed answers open at one time. Default: no bound.",
    )
    max_wait_ms: int = Field(
        default=250,
        ge=0,
        le=60_000,
        description="Milliseconds a request may wait for its token instead of being refused; streams never "
        "wait. Default 250, the first pause of the official Node client. 0 refuses at once.",
    )
    costs: dict[CostClass, Annotated[float, Field(ge=0, le=1_000_000)]] = Field(
        default_factory=dict,
        description="Tokens taken per cost class (read, search, write, model, stream, transfer, graphql). "
        "A class not named costs 1. Fractions are fine; 0 makes a class free.",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> LimitsShape:
        for kind, names in (
            ("classes", [one.name for one in self.classes]),
            ("quotas", [quota_name(one) for one in self.quotas]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"Two of `{kind}` have the same name; names tell limits apart in metrics.")
        return self


class RunAsShape(Shape):
    """The child account a partner key acts as, for every request of the tenant."""

    user_id: str | None = Field(
        default=None,
        description="Id of the child account. Either this or `child_email`; an id is unambiguous.",
    )
    child_email: str | None = Field(
        default=None,
        description="E-mail of the child account. Prefer `user_id`: an e-mail can change hands.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> RunAsShape:
        if (self.user_id is None) == (self.child_email is None):
            raise ValueError("Give exactly one of `user_id` and `child_email`.")
        return self

    @field_validator("user_id", "child_email")
    @classmethod
    def _fits_a_header(cls, text: str | None) -> str | None:
        # RFC 9110 section 5.5: a field value is visible ASCII; anything else could split the header.
        if text is not None and (not text or len(text) > 254 or not all("!" <= char <= "~" for char in text)):
            raise ValueError("It is sent as a header: 1 to 254 visible ASCII characters.")
        return text


class TenantShape(Shape):
    """One tenant."""

    id: Annotated[str, AfterValidator(_tenant_id)] = Field(
        description="Name of the tenant, as its tokens' tenant claim says it: 1 to 63 of a-z, 0-9, `_`, `-`. "
        " Never give a former tenant's id to a new one: journals and limits go by it.",
    )
    account: Annotated[str, AfterValidator(_account)] | None = Field(
        default=None,
        description="Name of the upstream account behind the key, your choice. Tenants on one account must "
        "name the same one, or they read each other's old answers. Default: derived from key and run_as; "
        "name it where keys are rotated, because a derived name changes with the key.",
    )
    key: str = Field(
        repr=False,
        description="Upstream secret key, as a reference: env:NAME, file:PATH or vault:MOUNT/PATH#FIELD.",
    )
    next_key: str | None = Field(
        default=None,
        repr=False,
        description="Key a rotation is moving to, as a reference. A share of safe GETs tries it first. "
        "Default: none. Remove it when the rotation is over.",
    )
    key_expires: Annotated[int, BeforeValidator(_epoch_seconds), Field(ge=0, le=10**11)] | None = Field(
        default=None,
        description="When `key` stops working: epoch seconds, or a date and time with zone. Default: not "
        "known. Give it to be warned in time.",
    )
    next_key_expires: Annotated[int, BeforeValidator(_epoch_seconds), Field(ge=0, le=10**11)] | None = Field(
        default=None, description="The same of `next_key`."
    )
    run_as: RunAsShape | None = Field(
        default=None,
        description="Child account forced on every request: one partner key, one child per tenant. Default: "
        "none. Clients can neither see nor change it.",
    )
    scopes: tuple[Annotated[str, AfterValidator(_scope)], ...] = Field(
        max_length=MAX_SCOPES,
        description="What the tenant may do at most, for example [`*:read`, `conversation/**:*`, "
        "`!secret:*`]; a token narrows it. Required, so that nobody is given all by omission; [`*`] is "
        "everything, [] is nothing.",
    )
    limits: LimitsShape = Field(default_factory=LimitsShape, description="How much. Default: no limits.")
    labels: dict[str, str] = Field(
        default_factory=dict,
        max_length=32,
        description="Free names for dashboards and search, for example {plan: gold}. No secrets: they show.",
    )
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(
        default="UTC", description="IANA time zone whose midnight turns quotas over. Default UTC."
    )
    may_bypass_cache: bool = Field(
        default=False,
        description="Obey `X-CBK-Cache: bypass`. Default false. Not for tenants who pay by upstream use.",
    )
    may_run_as: bool = Field(
        default=False,
        description="Let the client choose a child account by run-as headers. Default false. Only for "
        "partners who own all child accounts of the key; never together with `run_as`.",
    )
    audit_bodies: bool = Field(
        default=False,
        description="Keep redacted request bodies in the journal, not only digests. Default false. Weigh "
        "against privacy rules.",
    )
    audit_on_failure: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="What happens to a write that cannot be journalled: `refuse` (default, 503) or `allow`. "
        "Do not use `allow` where the journal is evidence.",
    )
    isolation: Literal["none", "report", "objects"] = Field(
        default="none",
        description="For tenants who share one account: `objects` refuses ids another tenant made, `report` "
        "only counts such uses, `none` (default) does not look. Useless for a tenant with its own account.",
    )
    allowed_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = Field(
        default=("*",),
        max_length=100,
        description="Browser origins answered by CORS, for example [https://app.example.com]. Default [`*`].",
    )
    disabled: bool = Field(default=False, description="Refuse everything the tenant asks. Default false.")
    token_not_before: Annotated[int, BeforeValidator(_epoch_seconds)] = Field(
        default=0,
        ge=0,
        le=10**11,
        description="Tokens issued before this moment are refused: epoch seconds, or a date and time with "
        "zone. Default 0: none are. For a leak whose extent is unknown.",
    )

    @field_validator("labels")
    @classmethod
    def _short_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        if any(len(name) > 64 or len(value) > 256 for name, value in labels.items()):
            raise ValueError("Label names are at most 64 characters, values at most 256.")
        return labels

    @model_validator(mode="after")
    def _consistent(self) -> TenantShape:
        if self.run_as is not None and self.may_run_as:
            raise ValueError(
                "`run_as` forces one child account and `may_run_as` lets the client choose; keep one of them."
            )
        return self


def quota_name(quota: QuotaShape) -> str:
    """The name of a quota, given or made."""
    return quota.name or f"{quota.measure}-per-{quota.period}"

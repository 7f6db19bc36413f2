"""`config/tenants.yaml`: from a file to `Tenant`s, or to everything that is wrong with it at once.

    tenants:
      - id: acme
        account: acme-main
        key: env:ACME_KEY
        scopes: ["*"]
        limits: {rate: {per_second: 200, burst: 400}}

The shape is in `tenant_models.py`. This module follows the references, compares tenants with one another,
and knows which choices are legal but risky. It speaks to no network: what lives in Vault is handed in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cbk_gateway.parties import Quota, Rate, RunAs, RunAsForm, Tenant, TenantLimits
from cbk_gateway.secret import Secret, account_fingerprint
from cbk_gateway.settings.faults import Problem, SettingsError, shown_key
from cbk_gateway.settings.references import (
    ReferenceFault,
    Scheme,
    SecretReference,
    parse_reference,
    resolve,
)
from cbk_gateway.settings.shapes import fit
from cbk_gateway.settings.tenant_models import (
    MAX_TENANTS,
    LimitsShape,
    RateShape,
    RunAsShape,
    TenantShape,
    quota_name,
)
from cbk_gateway.settings.tenant_risks import warnings
from cbk_gateway.settings.yaml_file import YamlDocument, parse_yaml, read_yaml

__all__ = [
    "Following",
    "StandIns",
    "assemble",
    "load_tenants",
    "parse_tenants",
    "secret_references",
    "tenant_from",
    "tenants_of",
    "vault_references",
    "warnings",
]


@dataclass(frozen=True, slots=True)
class Following:
    """How references are followed: the environment, the folder of the file, Vault's secrets, and inline."""

    environ: Mapping[str, str]
    folder: Path | None = None
    vault: Mapping[str, Secret] | None = None
    allow_inline: bool = False

    def secret(self, text: str) -> Secret:
        """The upstream key a reference leads to.

        Raises:
            ReferenceFault: It leads nowhere, or to what no header can carry.
        """
        reference = parse_reference(text, allow_inline=self.allow_inline)
        secret = resolve(reference, environ=self.environ, folder=self.folder, vault=self.vault)
        # RFC 9110 section 5.5: the key travels in a header, so it is visible ASCII and nothing else.
        if not all("!" <= char <= "~" for char in secret.reveal()) or len(secret.reveal()) > 4096:
            raise ReferenceFault(
                "What the reference leads to cannot be an upstream key.",
                "A key is one line of at most 4096 visible ASCII characters.",
            )
        return secret


class StandIns(Following):
    """References are read but not followed: each stands for a key of its own."""

    def secret(self, text: str) -> Secret:
        """What stands for the upstream key.

        Raises:
            ReferenceFault: It is no reference.
        """
        reference = parse_reference(text, allow_inline=self.allow_inline)
        return reference.inline or Secret(str(reference))


def load_tenants(
    path: str | os.PathLike[str],
    *,
    allow_inline: bool = False,
    environ: Mapping[str, str] | None = None,
    vault: Mapping[str, Secret] | None = None,
) -> tuple[Tenant, ...]:
    """Read the tenants of a file, in its order.

    Args:
        path: The file.
        allow_inline: Whether `inline:` secrets are accepted.
        environ: The environment; None for the process's.
        vault: Secrets read from Vault by the text of their reference (see `vault_references`), or None.

    Raises:
        SettingsError: With every problem of the file.
    """
    document = read_yaml(Path(path))
    following = Following(
        environ=os.environ if environ is None else environ,
        folder=Path(path).parent,
        vault=vault,
        allow_inline=allow_inline,
    )
    return tenants_of(document, following)


def parse_tenants(name: str, octets: bytes, following: Following) -> tuple[Tenant, ...]:
    """As `load_tenants`, from bytes that were read already, so that what was hashed is what is used."""
    return tenants_of(parse_yaml(name, octets), following)


def tenants_of(document: YamlDocument, following: Following) -> tuple[Tenant, ...]:
    """The tenants of a document.

    Raises:
        SettingsError: With every problem of it.
    """
    entries, problems = _entries(document)
    tenants: list[Tenant] = []
    first_at: dict[str, int] = {}
    for at, entry in enumerate(entries):
        place = ("tenants", at)
        titled = _title(entry)
        shape, faults = fit(TenantShape, entry, document, at=place, titled=titled)
        problems.extend(faults)
        if shape is None:
            problems.extend(_key_problems(entry, following, document, at, titled))
            continue
        key = f"tenants[{at}] ({shape.id})"
        if shape.id in first_at:
            problems.append(
                Problem(
                    document.name,
                    f"{key}.id",
                    f"Another tenant has this id: tenants[{first_at[shape.id]}].",
                    "Rename one of them.",
                    document.line_of((*place, "id")),
                )
            )
        first_at.setdefault(shape.id, at)
        tenant, faults = tenant_from(shape, following, document, at)
        problems.extend(faults)
        if tenant is not None:
            tenants.append(tenant)
    if not problems:
        problems = _account_conflicts(tenants, document, first_at)
    if problems:
        raise SettingsError(problems)
    return tuple(tenants)


def secret_references(document: YamlDocument) -> frozenset[SecretReference]:
    """Every well-formed reference of the tenants' keys, for whoever has to watch or fetch what they name."""
    found: set[SecretReference] = set()
    entries, _ = _entries(document)
    for entry in entries:
        for name in ("key", "next_key"):
            text = entry.get(name) if isinstance(entry, dict) else None
            try:
                if isinstance(text, str):
                    found.add(parse_reference(text))
            except ReferenceFault:
                continue
    return frozenset(found)


def vault_references(document: YamlDocument) -> frozenset[str]:
    """The `vault:` references among them, in the spelling `load_tenants` looks up."""
    return frozenset(str(one) for one in secret_references(document) if one.scheme is Scheme.VAULT)


def tenant_from(
    shape: TenantShape, following: Following, document: YamlDocument, at: int
) -> tuple[Tenant | None, list[Problem]]:
    """One tenant of a document with its references followed, or None and what is wrong."""
    problems: list[Problem] = []

    def secret(name: str, text: str | None) -> Secret | None:
        if text is None:
            return None
        try:
            return following.secret(text)
        except ReferenceFault as exc:
            key, line = f"tenants[{at}] ({shape.id}).{name}", document.line_of(("tenants", at, name))
            problems.append(Problem(document.name, key, exc.message, exc.remedy, line))
            return None

    key, next_key = secret("key", shape.key), secret("next_key", shape.next_key)
    for message, remedy in _unreachable(shape.limits):
        line = document.line_of(("tenants", at, "limits"))
        problems.append(Problem(document.name, f"tenants[{at}] ({shape.id}).limits", message, remedy, line))
    if problems or key is None:
        return None, problems
    return assemble(shape, key, next_key), []


def _key_problems(
    entry: object, following: Following, document: YamlDocument, at: int, titled: str | None
) -> Iterable[Problem]:
    """What is wrong with the keys of an entry that has other faults, so that all are told at once."""
    for name in ("key", "next_key"):
        text = entry.get(name) if isinstance(entry, dict) else None
        if isinstance(text, str):
            try:
                following.secret(text)
            except ReferenceFault as exc:
                key = f"tenants[{at}]{f' ({titled})' if titled else ''}.{name}"
                line = document.line_of(("tenants", at, name))
                yield Problem(document.name, key, exc.message, exc.remedy, line)


def assemble(shape: TenantShape, key: Secret, next_key: Secret | None) -> Tenant:
    """A tenant from its checked shape and its keys."""
    run_as = _run_as(shape.run_as)
    derived = account_fingerprint(key, run_as.value if run_as is not None else None)
    return Tenant(
        id=shape.id,
        account=shape.account or derived,
        key=key,
        next_key=next_key,
        run_as=run_as,
        scopes=shape.scopes,
        limits=_limits(shape.limits),
        labels=MappingProxyType(dict(shape.labels)),
        timezone=shape.timezone,
        may_bypass_cache=shape.may_bypass_cache,
        may_run_as=shape.may_run_as,
        audit_bodies=shape.audit_bodies,
        audit_on_failure=shape.audit_on_failure,
        isolation=shape.isolation,
        allowed_origins=shape.allowed_origins,
        disabled=shape.disabled,
        token_not_before=shape.token_not_before,
        key_expires=shape.key_expires,
        next_key_expires=shape.next_key_expires,
    )


def _entries(document: YamlDocument) -> tuple[list[object], list[Problem]]:
    value = {} if document.value is None else document.value
    problems: list[Problem] = []
    entries = value.get("tenants", []) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(entries, list):
        message, remedy = "Here stands a list of tenants.", "Write `tenants:` and below it `- id: ...`."
        return [], [Problem(document.name, "tenants", message, remedy, document.line_of(("tenants",)))]
    for key in value:
        if key != "tenants":
            message, remedy = f"There is no key `{shown_key(key)}` here.", "Did you mean `tenants`?"
            problems.append(Problem(document.name, shown_key(key), message, remedy, document.line_of((key,))))
    if len(entries) > MAX_TENANTS:
        message, remedy = f"There are over {MAX_TENANTS} tenants.", "Create them by the admin API."
        return [], [*problems, Problem(document.name, "tenants", message, remedy)]
    return entries, problems


def _title(entry: object) -> str | None:
    name = entry.get("id") if isinstance(entry, dict) else None
    return name if isinstance(name, str) and name.isprintable() and len(name) <= 63 else None


def _unreachable(limits: LimitsShape) -> Iterable[tuple[str, str]]:
    dearest = max(limits.costs.values(), default=1.0)
    buckets = [("rate", limits.rate), ("subject", limits.subject)]
    buckets += [(f"classes.{one.name}", one) for one in limits.classes]
    for name, bucket in buckets:
        if bucket is not None and _burst(bucket) < dearest and (name in {"rate", "subject"}):
            message = f"A request may cost {dearest:g} tokens but `{name}` keeps at most {_burst(bucket):g}."
            yield message, f"Set `{name}.burst` to at least {dearest:g}, or lower the cost."


def _burst(rate: RateShape) -> float:
    return rate.burst if rate.burst is not None else max(1.0, 2 * rate.per_second)


def _rate(name: str, shape: RateShape, match: str = "*") -> Rate:
    return Rate(name, shape.per_second, _burst(shape), match, shape.on_store_failure, shape.shadow)


def _limits(shape: LimitsShape) -> TenantLimits:
    general = (_rate("tenant", shape.rate),) if shape.rate is not None else ()
    return TenantLimits(
        rates=(*general, *(_rate(one.name, one, one.match) for one in shape.classes)),
        subject_rate=_rate("subject", shape.subject) if shape.subject is not None else None,
        quotas=tuple(
            Quota(quota_name(one), one.period, one.measure, one.limit, one.hard, one.shadow)
            for one in shape.quotas
        ),
        max_concurrent=shape.max_concurrent,
        max_streams=shape.max_streams,
        max_wait_s=shape.max_wait_ms / 1000,
        costs=MappingProxyType({str(name): cost for name, cost in shape.costs.items()}),
    )


def _run_as(shape: RunAsShape | None) -> RunAs | None:
    if shape is None:
        return None
    if shape.user_id is not None:
        return RunAs(RunAsForm.USER_ID, shape.user_id)
    return RunAs(RunAsForm.CHILD_EMAIL, shape.child_email or "")


def _account_conflicts(
    tenants: Sequence[Tenant], document: YamlDocument, at: Mapping[str, int]
) -> list[Problem]:
    """One credential is one account: under two names, one's writes would not reach the other's cache."""
    first: dict[tuple[Secret, RunAs | None], Tenant] = {}
    problems: list[Problem] = []
    for tenant in tenants:
        other = first.setdefault((tenant.key, tenant.run_as), tenant)
        if other.account != tenant.account:
            place = at[tenant.id]
            problems.append(
                Problem(
                    document.name,
                    f"tenants[{place}] ({tenant.id}).account",
                    f"Its key is also {other.id}'s, whose account has another name.",
                    "Give both the same `account`.",
                    document.line_of(("tenants", place)),
                )
            )
    return problems

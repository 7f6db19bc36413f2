"""Choices in tenants that are legal and risky. `config check` and the log at start show them.

Nothing here refuses; what cannot work at all is an error of `tenants.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from cbk_gateway.operation import OTHER, TYPE_NAMES
from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.settings.faults import Problem, nearest
from cbk_gateway.settings.scope_syntax import ScopeRule, parse_scope

_SINGLE_ROUTES: Final = frozenset({"graphql", "spec", "openai/chat/completions"})


def warnings(tenants: Sequence[Tenant], file: str = "tenants.yaml") -> list[Problem]:
    """Choices that are legal and risky, for `config check` and the log at start."""
    found: list[Problem] = []
    for tenant in tenants:
        found.extend(
            Problem(file, f"{tenant.id}.{key}", message, remedy) for key, message, remedy in _risks(tenant)
        )
    for group in _by_key(tenants):
        open_ones = [tenant for tenant in group if tenant.run_as is None]
        if len(group) > 1 and open_ones:
            names = ", ".join(tenant.id for tenant in group)
            found.extend(
                Problem(
                    file,
                    f"{tenant.id}.key",
                    f"The upstream key is shared by {names}, so this tenant reaches the others' objects.",
                    "Give each its own key, force a child with `run_as`, or set `isolation: objects`.",
                )
                for tenant in open_ones
                if tenant.isolation != "objects"
            )
    return found


def _risks(tenant: Tenant) -> Iterable[tuple[str, str, str]]:
    rules = [parse_scope(text) for text in tenant.scopes]
    allows = [rule for rule in rules if not rule.denies]
    denies = [rule for rule in rules if rule.denies]
    for rule in allows:
        if rule.is_everything:
            yield "scopes", "The scope `*` allows everything.", "Name what the tenant needs."
        elif not rule.segments:
            message = f"The scope `{rule.text}` reaches every type, secrets and child accounts included."
            yield "scopes", message, "Name the types, or add `!secret/**:*` and `!partner/**:*`."
    for rule in rules:
        if (meant := _unknown_type(rule)) is not None:
            yield "scopes", f"The scope `{rule.text}` names a type this API is not known to have.", meant
    if denies and any(rule.segments and rule.segments[0].name == "graphql" for rule in allows):
        message = "Deny rules do not reach into GraphQL, which this tenant may use."
        yield "scopes", message, "Remove the scope that names graphql."
    if not tenant.limits.rates and tenant.limits.subject_rate is None:
        yield "limits", "The tenant has no rate.", "Set `limits.rate`."
    if tenant.next_key is not None and tenant.account.startswith("acct-"):
        message = "The account's name is derived from a key that is being rotated, and will change with it."
        yield "account", message, "Set `account`."
    if tenant.next_key is not None and tenant.next_key == tenant.key:
        yield "next_key", "`next_key` is the same as `key`.", "Remove it, or put the new key there."
    if tenant.may_run_as:
        yield "may_run_as", "Clients may act as any child account of the key.", "Force one with `run_as`."
    if tenant.audit_on_failure == "allow":
        yield "audit_on_failure", "Writes pass even when they cannot be journalled.", "Set `refuse`."


def _unknown_type(rule: ScopeRule) -> str | None:
    names = [segment.name for segment in rule.segments]
    if not names or None in names:
        return None
    name = "/".join(str(one) for one in names)
    known = TYPE_NAMES | _SINGLE_ROUTES
    above = any(one.startswith(name + "/") for one in known)
    if name in known or (rule.open_ended and above) or name == OTHER:
        return None
    meant = nearest(name, known)
    return f"Did you mean `{meant}`?" if meant is not None else "Check its spelling."


def _by_key(tenants: Sequence[Tenant]) -> list[list[Tenant]]:
    groups: defaultdict[Secret, list[Tenant]] = defaultdict(list)
    for tenant in tenants:
        groups[tenant.key].append(tenant)
    return list(groups.values())

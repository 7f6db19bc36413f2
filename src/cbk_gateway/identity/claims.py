"""The claims policy: what a correctly signed token must say, and the principal it speaks for.

Pure: claims, policy and the time go in; faults or a `Principal` come out. Rules of RFC 7519 section 4.1 and
RFC 8725 sections 3.8 to 3.12. Signatures, revocation and memory are elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cbk_gateway.identity.options import ANY_AUDIENCE, IssuerOptions
from cbk_gateway.identity.reasons import Fault, Reason
from cbk_gateway.parties import Principal

# Names end up in journals, logs and store keys: printable and short.
MAX_NAME_CHARS: Final = 256
MAX_SCOPES: Final = 256
# Beyond this a float cannot name a second exactly; no real token comes near.
_MAX_TIME: Final = 2**53


def find_claim(claims: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - a claim is any JSON value
    """The claim of that very name, or else the one at that dotted path; None if there is none.

    The name comes first because real claim names hold dots (`https://example.com/tenant`).
    """
    if path in claims:
        return claims[path]
    at: Any = claims
    for step in path.split("."):
        if not isinstance(at, dict) or step not in at:
            return None
        at = at[step]
    return at


def faults(claims: Mapping[str, Any], policy: IssuerOptions, now: float) -> Iterator[Fault]:
    """Everything that is wrong with the claims under a policy at `now` (epoch seconds), worst first."""
    mistyped = tuple(_type_faults(claims))
    yield from mistyped
    if not mistyped:
        yield from _time_faults(claims, policy, now)
        yield from _audience_faults(claims, policy)
    yield from _party_faults(claims, policy)


def principal_of(claims: Mapping[str, Any], policy: IssuerOptions, fingerprint: str) -> Principal:
    """Who a token speaks for. Only for claims in which `faults` found none."""
    tenant, subject = _tenant(claims, policy), find_claim(claims, policy.subject_claim)
    if not isinstance(tenant, str) or not isinstance(subject, str):
        raise TypeError("the claims were not checked")
    return Principal(
        tenant=tenant,
        subject=subject,
        token_id=claims.get("jti"),
        issuer=policy.name,
        scopes=_scopes(claims, policy) or (),
        issued_at=int(claims.get("iat", 0)),
        expires_at=int(claims["exp"]),
        fingerprint=fingerprint,
    )


def accepted_until(claims: Mapping[str, Any], policy: IssuerOptions) -> float:
    """The epoch second from which the token is refused as expired."""
    return float(claims["exp"]) + policy.leeway_s


def is_name(value: object) -> bool:
    """Whether a claim can be used as the name of somebody or something."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS and value.isprintable()


def _type_faults(claims: Mapping[str, Any]) -> Iterator[Fault]:
    if claims.get("exp") is None:
        yield Fault(Reason.CLAIMS, "The token has no expiry.")
    for name in ("exp", "nbf", "iat"):
        if name in claims and not _is_time(claims[name]):
            yield Fault(Reason.CLAIMS, f"The token's {name} claim is not a time.")
    for name in ("iss", "sub", "jti"):
        if name in claims and not is_name(claims[name]):
            yield Fault(Reason.CLAIMS, f"The token's {name} claim is not a short printable text.")
    if "aud" in claims and not _is_audience(claims["aud"]):
        yield Fault(Reason.CLAIMS, "The token's aud claim is neither a text nor a list of texts.")


def _is_time(value: object) -> bool:
    # bool is an int in Python, and a JSON true is no NumericDate (RFC 7519 section 2).
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -1 < value < _MAX_TIME
        and math.isfinite(value)
    )


def _is_audience(value: object) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _time_faults(claims: Mapping[str, Any], policy: IssuerOptions, now: float) -> Iterator[Fault]:
    expires, issued = claims["exp"], claims.get("iat")
    if now >= expires + policy.leeway_s:
        yield Fault(Reason.EXPIRED, "The token has expired.")
    if "nbf" in claims and claims["nbf"] > now + policy.leeway_s:
        yield Fault(Reason.NOT_YET, "The token is not valid yet.")
    if issued is not None and issued > now + policy.leeway_s:
        yield Fault(Reason.NOT_YET, "The token was issued in the future.")
    if policy.max_lifetime_s is not None:
        if issued is None:
            yield Fault(Reason.CLAIMS, "The token does not say when it was issued.")
        elif expires - issued > policy.max_lifetime_s:
            yield Fault(Reason.LIFETIME, "The token's lifetime is too long.")


def _audience_faults(claims: Mapping[str, Any], policy: IssuerOptions) -> Iterator[Fault]:
    accepted = policy.audience
    if accepted is not None and ANY_AUDIENCE in accepted:
        return
    named = claims.get("aud")
    if named is None:
        if accepted is not None:
            yield Fault(Reason.AUDIENCE, "The token names no audience.")
        return
    audiences = [named] if isinstance(named, str) else named
    if accepted is None or not any(one in accepted for one in audiences):
        yield Fault(Reason.AUDIENCE, "The token is meant for another audience.")


def _party_faults(claims: Mapping[str, Any], policy: IssuerOptions) -> Iterator[Fault]:
    if not is_name(find_claim(claims, policy.subject_claim)):
        yield Fault(Reason.CLAIMS, "The token does not say who is acting.")
    if not is_name(_tenant(claims, policy)):
        yield Fault(Reason.TENANT, "The token does not belong to a tenant of this gateway.")
    if _scopes(claims, policy) is None:
        yield Fault(Reason.CLAIMS, "The token's scopes are neither a text nor a list of texts.")
    for path in policy.required_claims:
        if find_claim(claims, path) is None:
            yield Fault(Reason.CLAIMS, "The token lacks a required claim.")


def _tenant(claims: Mapping[str, Any], policy: IssuerOptions) -> object:
    if policy.tenant is not None:
        return policy.tenant
    value = find_claim(claims, policy.tenant_claim)
    if policy.tenant_map is None:
        return value
    return policy.tenant_map.get(value) if isinstance(value, str) else None


def _scopes(claims: Mapping[str, Any], policy: IssuerOptions) -> tuple[str, ...] | None:
    value = find_claim(claims, policy.scope_claim)
    if value is None:
        return policy.default_scopes
    # RFC 8693 section 4.2: a text with blanks between; many issuers send a list.
    scopes = value.split(" ") if isinstance(value, str) else value
    if not isinstance(scopes, list) or len(scopes) > MAX_SCOPES:
        return None
    if not all(isinstance(one, str) and one.isprintable() and len(one) <= MAX_NAME_CHARS for one in scopes):
        return None
    return tuple(one for one in scopes if one)

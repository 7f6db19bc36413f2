"""Looking into a token for an operator: everything it says and everything that is wrong with it.

The one place where an unverified token's content is shown. Its answer must never let a request in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cbk_gateway.errors import NotAuthenticated
from cbk_gateway.identity.bearer import bearer_token
from cbk_gateway.identity.claims import principal_of
from cbk_gateway.identity.jws import Compact, readable_parts, take_apart
from cbk_gateway.identity.keyring import Keyring
from cbk_gateway.identity.options import IssuerOptions
from cbk_gateway.identity.reasons import Fault, Reason
from cbk_gateway.identity.revocation import RevocationList
from cbk_gateway.identity.verdict import (
    REVOKED,
    UNKNOWN_ISSUER,
    IssuerVerdict,
    TokenFacts,
    header_faults,
    verified_faults,
)


def inspect_token(
    token: str,
    issuers: Sequence[tuple[IssuerOptions, Keyring]],
    revocations: RevocationList,
    *,
    now: float,
    max_chars: int,
) -> TokenFacts:
    """What a token says and what each issuer would refuse it for, at `now` (epoch seconds)."""
    try:
        parts = take_apart(bearer_token([f"Bearer {token}"], max_chars))
    except NotAuthenticated as refusal:
        header, claims = readable_parts(token[: 4 * max_chars])
        fault = Fault(Reason(refusal.reason), refusal.message)
        return TokenFacts(header, claims, (fault,), ())
    verdicts = tuple(
        IssuerVerdict(policy.name, tuple(_faults(parts, policy, ring, revocations, now)))
        for policy, ring in issuers
    )
    return TokenFacts(parts.header, parts.claims, (), verdicts)


def _faults(
    parts: Compact, policy: IssuerOptions, ring: Keyring, revocations: RevocationList, now: float
) -> Iterator[Fault]:
    if parts.claims.get("iss") != policy.issuer:
        yield UNKNOWN_ISSUER
    yield from header_faults(parts, policy)
    claim_faults = tuple(verified_faults(parts, policy, ring.find(parts.kid, parts.alg), now))
    yield from claim_faults
    if _is_revoked(parts.claims, policy, revocations, claim_faults):
        yield REVOKED


def _is_revoked(
    claims: Mapping[str, Any], policy: IssuerOptions, revocations: RevocationList, found: Sequence[Fault]
) -> bool:
    # Without its parties and times a token cannot be compared with revocations, and is refused anyway.
    if any(fault.reason in {Reason.CLAIMS, Reason.TENANT} for fault in found):
        return False
    return revocations.find(principal_of(claims, policy, "")) is not None

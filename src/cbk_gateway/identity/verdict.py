"""One token against one issuer: the checks that need no waiting, in the order in which they are made.

Pure. `Identity` raises the first fault; the operator's inspection shows them all. Finding the issuer and the
key is done by the callers, because a key may have to be waited for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cbk_gateway.identity.claims import faults
from cbk_gateway.identity.jws import Compact
from cbk_gateway.identity.options import IssuerOptions
from cbk_gateway.identity.reasons import Fault, Reason
from cbk_gateway.identity.signatures import SignatureKey

UNKNOWN_ISSUER: Final = Fault(Reason.ISSUER, "The token's issuer is not known here.")
WRONG_ALGORITHM: Final = Fault(
    Reason.ALGORITHM, "The token is signed with an algorithm that is not accepted."
)
UNKNOWN_KEY: Final = Fault(Reason.KEY, "The token is signed with a key that is not known here.")
BAD_SIGNATURE: Final = Fault(Reason.SIGNATURE, "The token's signature does not hold.")
WRONG_TYPE: Final = Fault(Reason.HEADER, "The token is of a type that is not accepted.")
REVOKED: Final = Fault(Reason.REVOKED, "The token has been revoked.")


def header_faults(token: Compact, policy: IssuerOptions) -> Iterator[Fault]:
    """What the header says that this issuer does not (RFC 8725 sections 3.1 and 3.11)."""
    if token.alg not in policy.algorithms:
        yield WRONG_ALGORITHM
    if token.typ is not None and token.typ not in policy.types:
        yield WRONG_TYPE


def verified_faults(
    token: Compact, policy: IssuerOptions, key: SignatureKey | None, now: float
) -> Iterator[Fault]:
    """What is wrong with the signature, and then with what it covers."""
    if key is None:
        yield UNKNOWN_KEY
    elif not key.verifies(token.signing_input, token.signature):
        yield BAD_SIGNATURE
    yield from faults(token.claims, policy, now)


@dataclass(frozen=True, slots=True)
class IssuerVerdict:
    """What one configured issuer says about a token. No faults: it would be accepted."""

    issuer: str
    faults: tuple[Fault, ...]

    @property
    def is_accepted(self) -> bool:
        """Whether a request with this token would get past identity by this issuer."""
        return not self.faults


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What a token says, trusted or not, for an operator's eyes.

    Attributes:
        header: The decoded header, empty if it cannot be decoded.
        claims: The decoded payload, likewise.
        faults: What makes it unacceptable to everybody, whatever the issuer.
        verdicts: One for every configured issuer, in their order.
    """

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    faults: tuple[Fault, ...]
    verdicts: tuple[IssuerVerdict, ...]

    @property
    def is_accepted(self) -> bool:
        """Whether a request with this token would get past identity now."""
        return not self.faults and any(verdict.is_accepted for verdict in self.verdicts)

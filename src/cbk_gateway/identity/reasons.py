"""The words for why a token is refused, and the way from a fault to a refusal.

Every refusal of this package takes its reason from `Reason`, so metric labels and audit reasons stay
bounded. Messages say what is wrong with the token and never what would have been right: whoever holds a
bad token learns nothing about our issuers, audiences or keys. Deciding *that* something is wrong is the
business of the other modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cbk_gateway.errors import NotAuthenticated


class Reason(StrEnum):
    """Why nobody is known to be calling."""

    NO_TOKEN = "no_token"  # noqa: S105 - a reason, not a credential
    SEVERAL_TOKENS = "several_tokens"
    SCHEME = "scheme"
    TOO_LARGE = "token_too_large"
    MALFORMED = "malformed_token"
    HEADER = "token_header"
    ALGORITHM = "algorithm"
    ISSUER = "unknown_issuer"
    KEY = "unknown_key"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    EXPIRED = "expired"
    NOT_YET = "not_yet_valid"
    LIFETIME = "lifetime"
    AUDIENCE = "audience"
    TENANT = "tenant"
    REVOKED = "revoked"
    KEYS_UNAVAILABLE = "keys_unavailable"
    REVOCATIONS_UNKNOWN = "revocations_unknown"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a token. `message` is one plain sentence for its holder."""

    reason: Reason
    message: str

    def refusal(self) -> NotAuthenticated:
        """The 401 that tells the caller."""
        return NotAuthenticated(self.message, reason=self.reason)


def refused(reason: Reason, message: str) -> NotAuthenticated:
    """A 401 for `reason`, ready to be raised."""
    return NotAuthenticated(message, reason=reason)

"""Who is calling: bearer tokens, the keys they are checked with, revocation, and minting.

`Identity.identify` turns the `Authorization` headers of a request into a `Principal` or refuses with 401;
`Identity.identify_now` does it without waiting for a token seen before. What a principal may do is no
business of this package.

    service.py          the calls, and the life of the parts
    bearer.py           the header's grammar
    jws.py              a token taken apart, untrusted
    verdict.py          one token against one issuer
    claims.py           the claims policy
    remembered.py       tokens seen before
    signatures.py       key material made ready
    keyring.py          the keys of an issuer at a moment
    key_source.py       keys over time (key_schedule.py: when, key_fetch.py: how, key_set.py: what)
    revocation.py       what is revoked (revocation_feed.py: in all processes, revocation_store.py: stored)
    minting.py          making tokens
    inspection.py       showing tokens to operators
    options.py          everything that can be configured
"""

from cbk_gateway.identity.minting import MintedToken, Minter, MinterOptions, SigningKey
from cbk_gateway.identity.observer import IdentityObserver, SilentObserver
from cbk_gateway.identity.options import (
    ALGORITHMS,
    HMAC_ALGORITHMS,
    IdentityOptions,
    IssuerOptions,
    JwksOptions,
    VerifyKey,
    weaknesses,
)
from cbk_gateway.identity.reasons import Fault, Reason
from cbk_gateway.identity.revocation import Revocation, RevocationKind
from cbk_gateway.identity.service import Identity
from cbk_gateway.identity.signatures import KeyFault
from cbk_gateway.identity.verdict import IssuerVerdict, TokenFacts

__all__ = [
    "ALGORITHMS",
    "HMAC_ALGORITHMS",
    "Fault",
    "Identity",
    "IdentityObserver",
    "IdentityOptions",
    "IssuerOptions",
    "IssuerVerdict",
    "JwksOptions",
    "KeyFault",
    "MintedToken",
    "Minter",
    "MinterOptions",
    "Reason",
    "Revocation",
    "RevocationKind",
    "SigningKey",
    "SilentObserver",
    "TokenFacts",
    "VerifyKey",
    "weaknesses",
]

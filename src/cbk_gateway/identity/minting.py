"""Making tokens, for platforms without an identity provider of their own, and for the demo.

Owns the signing keys and their rotation: one key signs, any number of former ones still verify. Who may ask
for a token is the caller's business. What is published holds public keys only: an HMAC secret never appears.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from cbk_gateway.identity.claims import is_name
from cbk_gateway.identity.options import ALGORITHMS, HMAC_ALGORITHMS, IssuerOptions, VerifyKey
from cbk_gateway.identity.signatures import (
    KeyFault,
    PublicKey,
    check_strength,
    from_configuration,
    method,
    public_jwk,
)
from cbk_gateway.secret import Secret

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey

_OURS: Final = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti"})


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs: `material` is an HMAC secret, or a private key as unencrypted PEM text."""

    kid: str
    alg: str
    material: Secret = field(repr=False)

    def __post_init__(self) -> None:
        if self.alg not in ALGORITHMS:
            raise ValueError(f"{self.alg!r} is no signature algorithm this gateway signs with")
        if not is_name(self.kid):
            raise ValueError("a signing key needs a key id: a short printable text")


@dataclass(frozen=True, slots=True)
class MinterOptions:
    """What minted tokens look like.

    Attributes:
        issuer: Their `iss`, or None to leave it out.
        signing: The key that signs from now on.
        retired: Keys that signed before and still verify; drop one when its last token has expired.
        audience: Their `aud`, or None to leave it out.
        tenant_claim: Name of the claim that holds the tenant (no path: it is written at the top).
        scope_claim: Name of the claim that holds the scopes, written as a text with blanks.
        max_ttl_s: Longest lifetime that is minted.
    """

    issuer: str | None
    signing: SigningKey
    retired: tuple[SigningKey | VerifyKey, ...] = ()
    audience: str | None = None
    tenant_claim: str = "tenant"
    scope_claim: str = "scope"
    max_ttl_s: int = 366 * 24 * 3600


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A new token and what its holder's operator writes down: the id to revoke it by."""

    token: Secret
    token_id: str
    issued_at: int
    expires_at: int


class Minter:
    """Mints tokens under one signing key.

    Args:
        options: Keys and claims.
        clock: Epoch seconds.

    Raises:
        KeyFault: A key cannot be read, is too weak, or is not of its algorithm's kind.
        ValueError: Two keys share their id.
    """

    def __init__(self, options: MinterOptions, clock: Callable[[], float] = time.time) -> None:
        self._options = options
        self._clock = clock
        self._method = method(options.signing.alg)
        self._key: PrivateKey | bytes = _signing_material(options.signing)
        self._verify_keys = tuple(_verify_key(key) for key in (options.signing, *options.retired))
        kids = [key.kid for key in self._verify_keys]
        if len(set(kids)) != len(kids):
            raise ValueError("two signing keys share their key id")
        for key in self._verify_keys:
            from_configuration(key)

    @property
    def verify_keys(self) -> tuple[VerifyKey, ...]:
        """The keys its tokens are verified with, the signing one first: for `IssuerOptions.keys`."""
        return self._verify_keys

    def issuer_options(self, name: str, *, leeway_s: float = 30.0) -> IssuerOptions:
        """The issuer this minter is, ready to be configured beside others.

        Raises:
            ValueError: Its keys mix HMAC and public-key algorithms, which one issuer must not.
        """
        options = self._options
        return IssuerOptions(
            name=name,
            issuer=options.issuer,
            algorithms=tuple(dict.fromkeys(key.alg for key in self._verify_keys)),
            keys=self._verify_keys,
            audience=(options.audience,) if options.audience is not None else None,
            tenant_claim=options.tenant_claim,
            scope_claim=options.scope_claim,
            leeway_s=leeway_s,
            max_lifetime_s=options.max_ttl_s,
        )

    def mint(
        self,
        tenant: str,
        subject: str,
        scopes: Sequence[str],
        ttl_s: int,
        *,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """A new token's text; see `issue`."""
        return self.issue(tenant, subject, scopes, ttl_s, extra=extra).token.reveal()

    def issue(
        self,
        tenant: str,
        subject: str,
        scopes: Sequence[str],
        ttl_s: int,
        *,
        extra: Mapping[str, Any] | None = None,
    ) -> MintedToken:
        """A new token with an id of its own.

        Args:
            tenant: Id of the tenant.
            subject: The app or user.
            scopes: Scope texts, without blanks.
            ttl_s: Seconds until it expires.
            extra: Further claims; they cannot replace the ones set here.

        Raises:
            ValueError: A name is empty, long or unprintable, a scope holds a blank, or the time is out of
                bounds.
        """
        self._check(tenant, subject, scopes, ttl_s, extra or {})
        options, issued_at, token_id = self._options, int(self._clock()), secrets.token_hex(16)
        claims: dict[str, Any] = {
            **(extra or {}),
            options.tenant_claim: tenant,
            options.scope_claim: " ".join(scopes),
            "sub": subject,
            "iat": issued_at,
            "exp": issued_at + ttl_s,
            "jti": token_id,
        }
        if options.issuer is not None:
            claims["iss"] = options.issuer
        if options.audience is not None:
            claims["aud"] = options.audience
        return MintedToken(Secret(self._sign(claims)), token_id, issued_at, issued_at + ttl_s)

    def public_jwks(self) -> dict[str, list[dict[str, str]]]:
        """The key set to publish at `/.well-known/jwks.json` (RFC 7517 section 5)."""
        return {
            "keys": [
                public_jwk(key.kid, key.alg, from_configuration(key).public_key())
                for key in self._verify_keys
                if key.alg not in HMAC_ALGORITHMS
            ]
        }

    def _sign(self, claims: Mapping[str, Any]) -> str:
        signing = self._options.signing
        header = orjson.dumps({"alg": signing.alg, "kid": signing.kid, "typ": "JWT"})
        signing_input = _encode(header) + b"." + _encode(orjson.dumps(claims))
        return (signing_input + b"." + _encode(self._method.sign(signing_input, self._key))).decode()

    def _check(
        self, tenant: str, subject: str, scopes: Sequence[str], ttl_s: int, extra: Mapping[str, Any]
    ) -> None:
        if not is_name(tenant) or not is_name(subject):
            raise ValueError("tenant and subject must be short printable texts")
        if not all(is_name(scope) and " " not in scope for scope in scopes):
            raise ValueError("a scope is a short printable text without blanks")
        if not 0 < ttl_s <= self._options.max_ttl_s:
            raise ValueError(f"the lifetime must be 1 to {self._options.max_ttl_s} seconds")
        reserved = _OURS | {self._options.tenant_claim, self._options.scope_claim}
        if not reserved.isdisjoint(extra):
            raise ValueError("extra claims cannot replace the ones every token has")

    def __reduce__(self) -> NoReturn:
        message = "a minter cannot be pickled: it holds its signing key"
        raise TypeError(message)

    def __repr__(self) -> str:
        return f"<Minter {self._options.signing.alg} kid={self._options.signing.kid}>"


def _encode(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")


def _signing_material(key: SigningKey) -> PrivateKey | bytes:
    if key.alg in HMAC_ALGORITHMS:
        return from_configuration(VerifyKey(key.kid, key.alg, key.material)).shared_secret()
    private = _private_key(key)
    check_strength(key.alg, private.public_key())
    return private


def _private_key(key: SigningKey) -> PrivateKey:
    try:
        private = load_pem_private_key(key.material.reveal().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFault(f"the signing key {key.kid} is not an unencrypted private key in PEM") from None
    if isinstance(private, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey):
        return private
    raise KeyFault(f"the signing key {key.kid} is of a kind that signs no tokens")


def _verify_key(key: SigningKey | VerifyKey) -> VerifyKey:
    if isinstance(key, VerifyKey):
        return key
    if key.alg in HMAC_ALGORITHMS:
        return VerifyKey(key.kid, key.alg, key.material)
    public: PublicKey = _private_key(key).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return VerifyKey(key.kid, key.alg, pem)

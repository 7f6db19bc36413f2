"""Key material made ready: from configuration or a published JWK to something a signature is checked with.

Owns which key may serve which algorithm (RFC 7518 sections 3 and 6, RFC 8725 sections 3.1 and 3.2) and the
least strength of a key. Which key a token gets is `keyring`'s business. PyJWT does the arithmetic and the
reading of JWKs; its token parsing and claim checking are not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import PyJWTError

from cbk_gateway.identity.jws import MAX_KID_CHARS, parse_json
from cbk_gateway.identity.options import ALGORITHMS, HMAC_ALGORITHMS, VerifyKey
from cbk_gateway.secret import Secret

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

_METHODS: Final[Mapping[str, Algorithm]] = {
    name: method for name, method in get_default_algorithms().items() if name in ALGORITHMS
}
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}

MIN_RSA_BITS: Final = 2048
# Verification time grows with the square of the modulus; nobody publishes more than 4096 in good faith.
MAX_RSA_BITS: Final = 8192
_MAX_RSA_EXPONENT: Final = 2**32

_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class KeyFault(ValueError):  # noqa: N818 - "fault" is the word the whole house uses
    """Key material that cannot or must not be used. The text never holds the material."""


@dataclass(frozen=True, slots=True)
class SignatureKey:
    """A key bound to one algorithm, ready to check signatures.

    `thumbprint` is SHA-256 over algorithm, key id and key: equal for equal keys in any process.
    """

    kid: str | None
    alg: str
    thumbprint: str
    _method: Algorithm = field(repr=False, compare=False)
    _key: Any = field(repr=False, compare=False)

    def __reduce__(self) -> NoReturn:
        message = "a key cannot be pickled: it may be a shared secret"
        raise TypeError(message)

    def verifies(self, signing_input: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `signing_input` (RFC 7515 section 5.2 step 8)."""
        return self._method.verify(signing_input, self._key, signature)

    def public_key(self) -> PublicKey:
        """The key itself, for publishing.

        Raises:
            KeyFault: It is a shared secret.
        """
        return _known_public(self._key)

    def shared_secret(self) -> bytes:
        """The HMAC key itself, for signing.

        Raises:
            KeyFault: It is a public key.
        """
        if isinstance(self._key, bytes):
            return self._key
        raise KeyFault("a public key signs nothing")


def from_configuration(key: VerifyKey) -> SignatureKey:
    """A configured key.

    Raises:
        KeyFault: The material is no key for the algorithm, or too weak.
    """
    if isinstance(key.material, Secret):
        return _from_secret(key.kid, key.alg, key.material)
    text = key.material.strip()
    if text.startswith("{"):
        try:
            jwk = parse_json(text)
        except (ValueError, RecursionError):
            raise KeyFault("the JWK is not acceptable JSON") from None
        return _bound(key.kid, key.alg, _public_from_jwk(jwk, key.alg))
    return _bound(key.kid, key.alg, _public_from_pem(text))


def from_published(jwk: object, algorithms: tuple[str, ...]) -> tuple[SignatureKey, ...]:
    """A member of a fetched key set, once for every allowed algorithm it may serve.

    Raises:
        KeyFault: It may not be used to check signatures of this issuer (RFC 7517 section 4).
    """
    if not isinstance(jwk, dict):
        raise KeyFault("not an object")
    kid, named, use, key_ops = (jwk.get(name) for name in ("kid", "alg", "use", "key_ops"))
    if kid is not None and not (isinstance(kid, str) and len(kid) <= MAX_KID_CHARS):
        raise KeyFault("its kid is not a short text")
    if use is not None and use != "sig":
        raise KeyFault("its use is not sig")
    if key_ops is not None and not (isinstance(key_ops, list) and "verify" in key_ops):
        raise KeyFault("its key_ops leave out verify")
    candidates = [alg for alg in algorithms if named is None or alg == named]
    if not candidates:
        raise KeyFault("its alg is not one of this issuer's")
    usable: list[SignatureKey] = []
    fault: KeyFault | None = None
    for alg in candidates:
        try:
            usable.append(_bound(kid, alg, _public_from_jwk(jwk, alg)))
        except KeyFault as error:
            fault = error
    if not usable and fault is not None:
        raise fault
    return tuple(usable)


def public_jwk(kid: str | None, alg: str, key: PublicKey) -> dict[str, str]:
    """The JWK of a public key, as it is published (RFC 7517 section 4)."""
    document: dict[str, Any] = dict(_METHODS[alg].to_jwk(key, as_dict=True))
    document.pop("key_ops", None)
    published = {name: str(value) for name, value in document.items() if name not in _PRIVATE_MEMBERS}
    return published | {"alg": alg, "use": "sig"} | ({"kid": kid} if kid is not None else {})


def method(alg: str) -> Algorithm:
    """PyJWT's implementation of a signature algorithm of ours."""
    return _METHODS[alg]


def check_strength(alg: str, key: PublicKey) -> None:
    """Refuse a key that is of another family than `alg`, on another curve, or too weak or too large.

    Raises:
        KeyFault: Saying which.
    """
    family = alg[:2]
    if family in {"RS", "PS"}:
        _check_rsa(alg, key)
    elif family == "ES":
        # RFC 7518 section 3.4 ties each algorithm to one curve.
        if not isinstance(key, EllipticCurvePublicKey) or key.curve.name != _CURVES[alg]:
            raise KeyFault(f"{alg} needs a key on the curve {_CURVES[alg]}")
    elif not isinstance(key, Ed25519PublicKey | Ed448PublicKey):
        raise KeyFault(f"{alg} needs an Ed25519 or Ed448 key")


def _check_rsa(alg: str, key: PublicKey) -> None:
    if not isinstance(key, RSAPublicKey):
        raise KeyFault(f"{alg} needs an RSA key")
    # RFC 7518 section 3.3 asks for 2048 bits or more.
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise KeyFault(f"an RSA key must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    if key.public_numbers().e >= _MAX_RSA_EXPONENT:
        raise KeyFault("the RSA exponent is too large")


def _from_secret(kid: str | None, alg: str, secret: Secret) -> SignatureKey:
    text = secret.reveal()
    try:
        if text.lstrip().startswith("{"):
            material = _METHODS[alg].from_jwk(parse_json(text))
        else:
            # Refuses PEM, SSH and DER keys and JWKs taken for a passphrase.
            material = _METHODS[alg].prepare_key(text)
    except (PyJWTError, ValueError, KeyError, TypeError, RecursionError):
        raise KeyFault(f"the {alg} secret is empty, or looks like a public key") from None
    fingerprint = hashlib.sha256(f"{alg}\0{kid}\0".encode() + material).hexdigest()
    return SignatureKey(kid=kid, alg=alg, thumbprint=fingerprint, _method=_METHODS[alg], _key=material)


def _public_from_jwk(jwk: object, alg: str) -> PublicKey:
    if not isinstance(jwk, dict):
        raise KeyFault("the JWK is not an object")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        # An HMAC secret (RFC 7518 section 6.4) or a private key: neither can be meant for publication.
        raise KeyFault("the JWK holds secret members")
    if alg in HMAC_ALGORITHMS:
        raise KeyFault(f"{alg} needs a secret")
    try:
        key = _METHODS[alg].from_jwk(jwk)
    except (PyJWTError, UnsupportedAlgorithm, ValueError, KeyError, TypeError, AttributeError):
        raise KeyFault(f"the JWK is no key for {alg}") from None
    return _known_public(key)


def _public_from_pem(text: str) -> PublicKey:
    pem = text.encode()
    try:
        if "BEGIN CERTIFICATE" in text:
            key: object = x509.load_pem_x509_certificate(pem).public_key()
        else:
            key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFault("the PEM is no public key and no certificate") from None
    return _known_public(key)


def _known_public(key: object) -> PublicKey:
    if isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey):
        return key
    raise KeyFault("the key is of a kind that signs no tokens")


def _bound(kid: str | None, alg: str, key: PublicKey) -> SignatureKey:
    check_strength(alg, key)
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    fingerprint = hashlib.sha256(f"{alg}\0{kid}\0".encode() + der).hexdigest()
    return SignatureKey(kid=kid, alg=alg, thumbprint=fingerprint, _method=_METHODS[alg], _key=key)

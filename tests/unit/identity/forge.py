"""A forge for tokens, good and bad: it writes any bytes into any place and signs with any key."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cbk_gateway.identity.signatures import PublicKey, method
from cbk_gateway.secret import Secret

NOW = 1_800_000_000.0
SECRET = "a shared secret of more than thirty-two bytes"


class Clock:
    """Time that a test moves by hand."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def b64(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def as_bytes(part: Mapping[str, Any] | bytes) -> bytes:
    return part if isinstance(part, bytes) else json.dumps(part).encode()


class Forge:
    """Keys of every kind, and tokens made with them."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.weak_rsa = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        self.stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.p256 = ec.generate_private_key(ec.SECP256R1())
        self.p384 = ec.generate_private_key(ec.SECP384R1())
        self.p521 = ec.generate_private_key(ec.SECP521R1())
        self.k256 = ec.generate_private_key(ec.SECP256K1())
        self.ed = ed25519.Ed25519PrivateKey.generate()

    def private(self, alg: str) -> Any:
        if alg.startswith("HS"):
            return SECRET.encode()
        by_alg = {"ES256": self.p256, "ES384": self.p384, "ES512": self.p521, "EdDSA": self.ed}
        return by_alg.get(alg, self.rsa)

    def pem(self, key: Any) -> str:
        public: PublicKey = key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def private_pem(self, key: Any) -> Secret:
        return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())

    def jwk(self, key: Any, alg: str, **members: Any) -> dict[str, Any]:
        document = dict(method(alg).to_jwk(key.public_key(), as_dict=True))
        document.pop("key_ops", None)
        return document | {"alg": alg, "use": "sig"} | members

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Good claims for the issuer `corp`; a value of None in `changed` takes the claim away."""
        claims = {
            "iss": "https://corp.example",
            "sub": "ada",
            "aud": "door",
            "exp": int(self.now) + 600,
            "iat": int(self.now) - 10,
            "jti": "t-1",
            "tenant": "acme",
            "scope": "bot:fetch *:read",
        } | changed
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        claims: Mapping[str, Any] | bytes | None = None,
        header: Mapping[str, Any] | bytes | None = None,
        *,
        alg: str = "RS256",
        key: Any = None,
        **members: Any,
    ) -> str:
        """A signed token. `members` go into the usual header; `header` replaces it whole."""
        usual = {"alg": alg, "kid": f"k-{alg}", "typ": "JWT"} | members
        head = b64(as_bytes(usual if header is None else header))
        body = b64(as_bytes(self.claims() if claims is None else claims))
        signing_input = f"{head}.{body}".encode()
        signature = method(alg).sign(signing_input, self.private(alg) if key is None else key)
        return f"{head}.{body}.{b64(signature)}"

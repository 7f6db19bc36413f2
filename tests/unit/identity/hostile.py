"""Hostile tokens after RFC 7515, 7519 and 8725, as tables: how to make each, and why it is refused.

They are meant for the issuers `corp` and `shared` of this folder's fixtures, or for others set up like them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cbk_gateway.identity import Reason
from unit.identity.forge import NOW, Forge, b64

Make = Callable[[Forge], str]


def unsigned(forge: Forge, alg: object, signature: str = "") -> str:
    return f"{b64(json.dumps({'alg': alg}).encode())}.{b64(json.dumps(forge.claims()).encode())}.{signature}"


def hmac_with(forge: Forge, material: bytes) -> str:
    return forge.token(alg="HS256", key=material, kid="k-RS256")


def der(forge: Forge) -> bytes:
    return forge.rsa.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def raw(forge: Forge, header: str, payload: bytes | None = None) -> str:
    return forge.token(json.dumps(forge.claims()).encode() if payload is None else payload, header.encode())


def resigned(forge: Forge, alg: str, signature: bytes) -> str:
    return forge.token(alg=alg).rpartition(".")[0] + "." + b64(signature)


def cut(forge: Forge) -> str:
    signature = base64.urlsafe_b64decode(forge.token().rpartition(".")[2] + "==")
    return resigned(forge, "RS256", signature[:-1])


def der_signature(forge: Forge) -> str:
    head = forge.token(alg="ES256").rpartition(".")[0]
    return f"{head}.{b64(forge.p256.sign(head.encode(), ec.ECDSA(hashes.SHA256())))}"


def with_payload(forge: Forge, text: str) -> str:
    return forge.token(text.encode())


def doubled(forge: Forge, pair: str) -> bytes:
    return (json.dumps(forge.claims())[:-1] + f", {pair}}}").encode()


GOOD_HEADER = '"alg": "RS256", "kid": "k-RS256"'
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

CASES: dict[str, tuple[Reason, Make]] = {
    # Algorithms (RFC 8725 sections 2.1 and 3.1)
    "none": (Reason.ALGORITHM, lambda f: unsigned(f, "none")),
    "None": (Reason.ALGORITHM, lambda f: unsigned(f, "None")),
    "nOnE": (Reason.ALGORITHM, lambda f: unsigned(f, "nOnE")),
    "none with a signature": (Reason.ALGORITHM, lambda f: unsigned(f, "none", "AAAA")),
    "alg empty": (Reason.ALGORITHM, lambda f: unsigned(f, "", "AAAA")),
    "alg null": (Reason.ALGORITHM, lambda f: unsigned(f, None, "AAAA")),
    "alg number": (Reason.ALGORITHM, lambda f: unsigned(f, 256, "AAAA")),
    "alg list": (Reason.ALGORITHM, lambda f: unsigned(f, ["RS256"], "AAAA")),
    "alg in another case": (Reason.ALGORITHM, lambda f: unsigned(f, "rs256", "AAAA")),
    "alg unknown": (Reason.ALGORITHM, lambda f: unsigned(f, "XX999", "AAAA")),
    "alg absent": (Reason.ALGORITHM, lambda f: raw(f, '{"kid": "k-RS256"}')),
    "HMAC with the public PEM": (Reason.ALGORITHM, lambda f: hmac_with(f, f.pem(f.rsa).encode())),
    "HMAC with the stripped PEM": (Reason.ALGORITHM, lambda f: hmac_with(f, f.pem(f.rsa).strip().encode())),
    "HMAC with the public DER": (Reason.ALGORITHM, lambda f: hmac_with(f, der(f))),
    "HMAC with the JWK": (
        Reason.ALGORITHM,
        lambda f: hmac_with(f, json.dumps(f.jwk(f.rsa, "RS256")).encode()),
    ),
    "HMAC with our own secret under a public issuer": (Reason.ALGORITHM, lambda f: f.token(alg="HS256")),
    "public key under the HMAC issuer": (Reason.ALGORITHM, lambda f: f.token(f.claims(iss="shared"))),
    "strong algorithm not allowed": (Reason.ALGORITHM, lambda f: f.token(alg="ES384")),
    "PS256 under the key id of RS256": (Reason.KEY, lambda f: f.token(alg="PS256", kid="k-RS256")),
    "RS256 signature called PS256": (
        Reason.SIGNATURE,
        lambda f: f.token(header={"alg": "PS256", "kid": "k-PS256"}),
    ),
    # Curves and keys
    "P-384 signature called ES256": (
        Reason.SIGNATURE,
        lambda f: f.token(alg="ES384", header={"alg": "ES256", "kid": "k-ES256"}),
    ),
    "secp256k1 signature called ES256": (Reason.SIGNATURE, lambda f: f.token(alg="ES256", key=f.k256)),
    "weak RSA": (Reason.SIGNATURE, lambda f: f.token(key=f.weak_rsa)),
    "another's RSA": (Reason.SIGNATURE, lambda f: f.token(key=f.stranger)),
    "another issuer's key id": (Reason.KEY, lambda f: f.token(kid="k-HS256")),
    # Headers that choose keys or rules (RFC 7515 section 4.1, RFC 7797, RFC 8725 section 3.10)
    "embedded jwk": (
        Reason.HEADER,
        lambda f: f.token(key=f.stranger, jwk=f.jwk(f.stranger, "RS256")),
    ),
    "embedded jwk with the right signature": (Reason.HEADER, lambda f: f.token(jwk=f.jwk(f.rsa, "RS256"))),
    "jku": (Reason.HEADER, lambda f: f.token(jku="https://evil.example/keys")),
    "x5u": (Reason.HEADER, lambda f: f.token(x5u="https://evil.example/cert")),
    "x5c": (Reason.HEADER, lambda f: f.token(x5c=["MIIB"])),
    "crit": (Reason.HEADER, lambda f: f.token(crit=["exp"])),
    "crit empty": (Reason.HEADER, lambda f: f.token(crit=[])),
    "crit null": (Reason.HEADER, lambda f: f.token(crit=None)),
    "crit of an unknown extension": (Reason.HEADER, lambda f: f.token(crit=["bork"], bork=1)),
    "b64 false": (Reason.HEADER, lambda f: f.token(b64=False, crit=["b64"])),
    "b64 false, not critical": (Reason.HEADER, lambda f: f.token(b64=False)),
    "b64 true": (Reason.HEADER, lambda f: f.token(b64=True)),
    "zip": (Reason.HEADER, lambda f: f.token(zip="DEF")),
    "enc": (Reason.HEADER, lambda f: f.token(enc="A256GCM")),
    "nested token": (Reason.HEADER, lambda f: f.token(cty="JWT")),
    # Types (RFC 8725 section 3.11)
    "typ of a logout token": (Reason.HEADER, lambda f: f.token(typ="logout+jwt")),
    "typ of a security event": (Reason.HEADER, lambda f: f.token(typ="application/secevent+jwt")),
    "typ of a proof of possession": (Reason.HEADER, lambda f: f.token(typ="dpop+jwt")),
    "typ number": (Reason.HEADER, lambda f: f.token(typ=1)),
    "typ null": (Reason.HEADER, lambda f: f.token(typ=None)),
    # Key ids are lookup keys, whatever they contain
    "kid path": (
        Reason.KEY,
        lambda f: f.token(f.claims(iss="shared", aud=None), alg="HS256", kid="../../../dev/null", key=b""),
    ),
    "kid number": (Reason.HEADER, lambda f: f.token(kid=1)),
    "kid null": (Reason.HEADER, lambda f: f.token(kid=None)),
    "kid list": (Reason.HEADER, lambda f: f.token(kid=["k-RS256"])),
    "kid object": (Reason.HEADER, lambda f: f.token(kid={"k": "k-RS256"})),
    "kid long": (Reason.HEADER, lambda f: f.token(kid="k" * 4000)),
    "kid empty": (Reason.KEY, lambda f: f.token(kid="")),
    "kid of a query": (Reason.KEY, lambda f: f.token(kid="' OR 1=1 --")),
    "kid of a URL": (Reason.KEY, lambda f: f.token(kid="https://evil.example/key")),
    "kid with a line break": (Reason.KEY, lambda f: f.token(kid="k-RS256\r\nX: y")),
    # Duplicate members (RFC 8725 section 2.4)
    "alg twice": (Reason.MALFORMED, lambda f: raw(f, f'{{{GOOD_HEADER}, "alg": "none"}}')),
    "alg twice, escaped": (Reason.MALFORMED, lambda f: raw(f, f'{{{GOOD_HEADER}, "\\u0061lg": "none"}}')),
    "tenant twice": (Reason.MALFORMED, lambda f: f.token(doubled(f, '"tenant": "globex"'))),
    "exp twice, the same": (Reason.MALFORMED, lambda f: f.token(doubled(f, f'"exp": {int(NOW) + 600}'))),
    "nested member twice": (Reason.MALFORMED, lambda f: f.token(doubled(f, '"org": {"a": 1, "a": 2}'))),
    # Payloads that are no claims set
    "payload list": (Reason.MALFORMED, lambda f: with_payload(f, '[{"tenant": "acme"}]')),
    "payload text": (Reason.MALFORMED, lambda f: with_payload(f, '"acme"')),
    "payload number": (Reason.MALFORMED, lambda f: with_payload(f, "1")),
    "payload null": (Reason.MALFORMED, lambda f: with_payload(f, "null")),
    "payload two objects": (Reason.MALFORMED, lambda f: with_payload(f, "{}{}")),
    "payload with a comma too many": (Reason.MALFORMED, lambda f: with_payload(f, '{"a": 1,}')),
    "payload with a comment": (Reason.MALFORMED, lambda f: with_payload(f, '{"a": 1} // hi')),
    "payload NaN": (Reason.MALFORMED, lambda f: with_payload(f, '{"exp": NaN}')),
    "payload Infinity": (Reason.MALFORMED, lambda f: with_payload(f, '{"exp": Infinity}')),
    "payload deep lists": (Reason.MALFORMED, lambda f: with_payload(f, "[" * 5000)),
    "payload huge number": (Reason.MALFORMED, lambda f: with_payload(f, f'{{"exp": {"9" * 4400}}}')),
    "payload UTF-16": (Reason.MALFORMED, lambda f: f.token(json.dumps(f.claims()).encode("utf-16"))),
    "payload with a byte order mark": (
        Reason.MALFORMED,
        lambda f: f.token(b"\xef\xbb\xbf" + json.dumps(f.claims()).encode()),
    ),
    "payload not UTF-8": (Reason.MALFORMED, lambda f: f.token(b'{"sub": "\xff"}')),
    "payload with a raw control character": (Reason.MALFORMED, lambda f: f.token(b'{"sub": "a\nb"}')),
    "header list": (Reason.MALFORMED, lambda f: raw(f, '["RS256"]')),
    "header null": (Reason.MALFORMED, lambda f: raw(f, "null")),
    "header deep": (Reason.MALFORMED, lambda f: raw(f, "[" * 5000)),
    # Signatures
    "signature gone": (Reason.SIGNATURE, lambda f: resigned(f, "RS256", b"")),
    "signature of zeros": (Reason.SIGNATURE, lambda f: resigned(f, "RS256", bytes(256))),
    "signature cut": (Reason.SIGNATURE, cut),
    "signature longer": (Reason.SIGNATURE, lambda f: f.token() + "AAAA"),
    "signature of another token": (
        Reason.SIGNATURE,
        lambda f: f.token(f.claims(tenant="globex")).rpartition(".")[0] + "." + f.token().rpartition(".")[2],
    ),
    "ECDSA of zeros": (Reason.SIGNATURE, lambda f: resigned(f, "ES256", bytes(64))),
    "ECDSA of r = s = n": (
        Reason.SIGNATURE,
        lambda f: resigned(f, "ES256", P256_ORDER.to_bytes(32, "big") * 2),
    ),
    "ECDSA in DER": (Reason.SIGNATURE, der_signature),
    "ECDSA with more bytes": (Reason.SIGNATURE, lambda f: resigned(f, "ES256", bytes(66))),
    "EdDSA of zeros": (Reason.SIGNATURE, lambda f: resigned(f, "EdDSA", bytes(64))),
    "HMAC cut to one byte": (
        Reason.SIGNATURE,
        lambda f: f.token(f.claims(iss="shared", aud=None), alg="HS256").rpartition(".")[0] + ".AA",
    ),
    "HMAC with an empty key": (
        Reason.SIGNATURE,
        lambda f: f.token(f.claims(iss="shared", aud=None), alg="HS256", key=b""),
    ),
    "HMAC with SHA-512 called HS256": (
        Reason.SIGNATURE,
        lambda f: f.token(f.claims(iss="shared", aud=None), {"alg": "HS256", "kid": "k-HS256"}, alg="HS512"),
    ),
    # The compact form
    "one part": (Reason.MALFORMED, lambda _: "aaaa"),
    "two parts": (Reason.MALFORMED, lambda f: f.token().rpartition(".")[0]),
    "four parts": (Reason.MALFORMED, lambda f: f.token() + ".AAAA"),
    "encrypted": (Reason.MALFORMED, lambda f: f.token() + ".AAAA.AAAA"),
    "only dots": (Reason.MALFORMED, lambda _: ".."),
    "no payload": (Reason.MALFORMED, lambda f: "..".join(f.token().split(".")[::2])),
    "padded": (Reason.MALFORMED, lambda f: f.token(alg="ES256") + "=="),
    "standard alphabet": (Reason.MALFORMED, lambda f: f.token()[:-2] + "+/"),
    "not canonical": (Reason.MALFORMED, lambda f: f.token(alg="ES256")[:-1] + "B"),
    "length no base64 has": (Reason.MALFORMED, lambda f: f.token(alg="ES256")[:-1]),
    "line break at the end": (Reason.MALFORMED, lambda f: f.token() + "\n"),
    "blank inside": (Reason.MALFORMED, lambda f: f.token().replace(".", ". ", 1)),
    "NUL": (Reason.MALFORMED, lambda f: f.token() + "\0"),
    "letters of another alphabet": (Reason.MALFORMED, lambda f: "\u0435" + f.token()[1:]),
    "JSON serialisation": (
        Reason.MALFORMED,
        lambda f: json.dumps(
            dict(zip(("protected", "payload", "signature"), f.token().split("."), strict=True))
        ),
    ),
    "two tokens in one": (Reason.MALFORMED, lambda f: f"{f.token()}, Bearer {f.token()}"),
    "too long": (Reason.TOO_LARGE, lambda f: f.token(f.claims(pad="x" * 8000))),
}

CLAIM_CASES: dict[str, tuple[Reason, dict[str, Any]]] = {
    "exp absent": (Reason.CLAIMS, {"exp": None}),
    "exp text": (Reason.CLAIMS, {"exp": str(int(NOW) + 600)}),
    "exp true": (Reason.CLAIMS, {"exp": True}),
    "exp list": (Reason.CLAIMS, {"exp": [int(NOW) + 600]}),
    "exp beyond counting": (Reason.CLAIMS, {"exp": 10**40}),
    "exp negative": (Reason.CLAIMS, {"exp": -5}),
    "nbf text": (Reason.CLAIMS, {"nbf": "0"}),
    "nbf object": (Reason.CLAIMS, {"nbf": {}}),
    "iat text": (Reason.CLAIMS, {"iat": "0"}),
    "iat false": (Reason.CLAIMS, {"iat": False}),
    "iat absent under a lifetime bound": (Reason.CLAIMS, {"iat": None}),
    "expired": (Reason.EXPIRED, {"exp": int(NOW) - 90}),
    "not yet": (Reason.NOT_YET, {"nbf": int(NOW) + 90}),
    "issued in the future": (Reason.NOT_YET, {"iat": int(NOW) + 90}),
    "lives too long": (Reason.LIFETIME, {"exp": int(NOW) + 3600}),
    "iss absent": (Reason.ISSUER, {"iss": None}),
    "iss number": (Reason.ISSUER, {"iss": 1}),
    "iss list": (Reason.ISSUER, {"iss": ["https://corp.example"]}),
    "iss object": (Reason.ISSUER, {"iss": {"https://corp.example": 1}}),
    "iss with a slash more": (Reason.ISSUER, {"iss": "https://corp.example/"}),
    "iss in another case": (Reason.ISSUER, {"iss": "https://CORP.example"}),
    "iss of a stranger": (Reason.ISSUER, {"iss": "https://evil.example"}),
    "sub absent": (Reason.CLAIMS, {"sub": None}),
    "sub number": (Reason.CLAIMS, {"sub": 7}),
    "sub list": (Reason.CLAIMS, {"sub": ["ada"]}),
    "sub empty": (Reason.CLAIMS, {"sub": ""}),
    "sub with a line break": (Reason.CLAIMS, {"sub": "ada\nadmin"}),
    "sub half a character": (Reason.CLAIMS, {"sub": "\ud800"}),
    "sub long": (Reason.CLAIMS, {"sub": "a" * 257}),
    "jti number": (Reason.CLAIMS, {"jti": 1}),
    "jti object": (Reason.CLAIMS, {"jti": {"a": 1}}),
    "aud absent": (Reason.AUDIENCE, {"aud": None}),
    "aud of another": (Reason.AUDIENCE, {"aud": "billing"}),
    "aud list of others": (Reason.AUDIENCE, {"aud": ["billing", "door2"]}),
    "aud prefix": (Reason.AUDIENCE, {"aud": "doo"}),
    "aud number": (Reason.CLAIMS, {"aud": 1}),
    "aud empty list": (Reason.CLAIMS, {"aud": []}),
    "aud mixed list": (Reason.CLAIMS, {"aud": ["door", 1]}),
    "aud object": (Reason.CLAIMS, {"aud": {"door": 1}}),
    "tenant absent": (Reason.TENANT, {"tenant": None}),
    "tenant number": (Reason.TENANT, {"tenant": 1}),
    "tenant list": (Reason.TENANT, {"tenant": ["acme"]}),
    "tenant empty": (Reason.TENANT, {"tenant": ""}),
    "tenant with a NUL": (Reason.TENANT, {"tenant": "acme\0"}),
    "scope number": (Reason.CLAIMS, {"scope": 1}),
    "scope object": (Reason.CLAIMS, {"scope": {"*": True}}),
    "scope list of numbers": (Reason.CLAIMS, {"scope": ["*", 1]}),
    "scope with a line break": (Reason.CLAIMS, {"scope": "bot:fetch\n*"}),
    "scopes without end": (Reason.CLAIMS, {"scope": " ".join("a" * 300)}),
}

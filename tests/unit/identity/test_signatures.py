from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cbk_gateway.identity import KeyFault, VerifyKey
from cbk_gateway.identity.keyring import Keyring
from cbk_gateway.identity.signatures import SignatureKey, from_configuration, from_published
from cbk_gateway.secret import Secret
from unit.identity.forge import SECRET, Forge, b64


def certificate(forge: Forge) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "idp")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = x509.CertificateBuilder(
        name, name, forge.rsa.public_key(), x509.random_serial_number(), start,
        start + dt.timedelta(days=900),
    ).sign(forge.rsa, hashes.SHA256())  # fmt: skip
    return made.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("alg", ["RS256", "RS512", "PS384", "ES256", "ES384", "ES512", "EdDSA"])
@pytest.mark.parametrize("form", ["pem", "jwk"])
def test_a_public_key_checks_signatures_in_either_form(alg: str, form: str, forge: Forge) -> None:
    private = forge.private(alg)
    text = forge.pem(private) if form == "pem" else json.dumps(forge.jwk(private, alg))
    key = from_configuration(VerifyKey("k", alg, text))
    token = forge.token(alg=alg)
    signing_input, _, _ = token.rpartition(".")
    other, _, _ = forge.token(forge.claims(jti="other"), alg=alg).rpartition(".")
    signature = base64.urlsafe_b64decode(token.rpartition(".")[2] + "==")
    assert key.verifies(signing_input.encode(), signature)
    assert not key.verifies(other.encode(), signature)


def test_a_certificate_is_read_for_its_key(forge: Forge) -> None:
    from_pem = from_configuration(VerifyKey("k", "RS256", forge.pem(forge.rsa)))
    assert from_configuration(VerifyKey("k", "RS256", certificate(forge))) == from_pem


def test_a_secret_may_be_written_as_a_jwk() -> None:
    jwk = json.dumps({"kty": "oct", "k": b64(SECRET.encode())})
    plain = from_configuration(VerifyKey("k", "HS256", Secret(SECRET)))
    assert from_configuration(VerifyKey("k", "HS256", Secret(jwk))).thumbprint == plain.thumbprint


MATERIAL: dict[str, tuple[str, Callable[[Forge], Any]]] = {
    "a weak RSA key": ("RS256", lambda f: f.pem(f.weak_rsa)),
    "a weak RSA JWK": ("RS256", lambda f: json.dumps(f.jwk(f.weak_rsa, "RS256"))),
    "an EC key for RSA": ("RS256", lambda f: f.pem(f.p256)),
    "an RSA key for EC": ("ES256", lambda f: f.pem(f.rsa)),
    "another curve": ("ES256", lambda f: f.pem(f.p384)),
    "another curve as JWK": ("ES256", lambda f: json.dumps(f.jwk(f.p384, "ES384"))),
    "a curve of the same size": ("ES256", lambda f: f.pem(f.k256)),
    "an EC key for EdDSA": ("EdDSA", lambda f: f.pem(f.p256)),
    "a private key": ("RS256", lambda f: f.private_pem(f.rsa).reveal()),
    "a private JWK": ("ES256", lambda f: json.dumps(f.jwk(f.p256, "ES256", d="AA"))),
    "an HMAC JWK as public": ("RS256", lambda _: json.dumps({"kty": "oct", "k": "AA"})),
    "no PEM": ("RS256", lambda _: "hello"),
    "an empty text": ("RS256", lambda _: ""),
    "a broken PEM": ("RS256", lambda f: f.pem(f.rsa)[:60]),
    "a JWK twice": ("RS256", lambda f: json.dumps(f.jwk(f.rsa, "RS256"))[:-1] + ', "n": "AQAB"}'),
    "a JSON list": ("RS256", lambda _: "{}"),
    "a DSA key": ("RS256", lambda f: f.pem(dsa.generate_private_key(2048))),
    "an empty secret": ("HS256", lambda _: Secret("")),
    "a public PEM for a secret": ("HS256", lambda f: Secret(f.pem(f.rsa))),
    "a public JWK for a secret": ("HS256", lambda f: Secret(json.dumps(f.jwk(f.rsa, "RS256")))),
    "an empty JWK secret": ("HS256", lambda _: Secret('{"kty": "oct", "k": ""}')),
}


@pytest.mark.parametrize("name", MATERIAL)
def test_material_that_must_not_be_used_is_a_fault_that_does_not_show_it(name: str, forge: Forge) -> None:
    alg, make = MATERIAL[name]
    material = make(forge)
    with pytest.raises(KeyFault) as caught:
        from_configuration(VerifyKey("k", alg, material))
    assert caught.value.__cause__ is None
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize(
    ("members", "accepted"),
    [
        ({}, True),
        ({"use": None}, True),
        ({"key_ops": ["verify"]}, True),
        ({"use": "enc"}, False),
        ({"use": ["sig"]}, False),
        ({"key_ops": ["sign"]}, False),
        ({"key_ops": "verify"}, False),
        ({"alg": "ES384"}, False),
        ({"alg": "HS256"}, False),
        ({"alg": "none"}, False),
        ({"kid": 5}, False),
        ({"kid": "k" * 300}, False),
        ({"kty": "oct", "k": "AA"}, False),
        ({"crv": "P-384"}, False),
        ({"x": "AA"}, False),
    ],
)
def test_a_published_key_keeps_to_what_it_says_of_itself(
    members: dict[str, Any], accepted: bool, forge: Forge
) -> None:
    jwk = forge.jwk(forge.p256, "ES256") | members
    if accepted:
        assert [key.alg for key in from_published(jwk, ("ES256", "RS256"))] == ["ES256"]
    else:
        with pytest.raises(KeyFault):
            from_published(jwk, ("ES256", "RS256"))


def key(forge: Forge, kid: str | None, alg: str = "ES256", private: Any = None) -> SignatureKey:
    chosen = forge.private(alg) if private is None else private
    return from_configuration(VerifyKey(kid, alg, forge.pem(chosen)))


def test_a_ring_finds_by_id_and_algorithm_together(forge: Forge) -> None:
    ec_key, rsa_key = key(forge, "k"), key(forge, "k", "RS256")
    ring = Keyring([ec_key, rsa_key])
    assert ring.find("k", "ES256") is ec_key
    assert ring.find("k", "RS256") is rsa_key
    assert ring.find("k", "PS256") is None
    assert ring.find("other", "ES256") is None


def test_a_ring_gives_the_only_key_when_no_id_is_named(forge: Forge) -> None:
    one, two = key(forge, "one"), key(forge, "two", private=forge.p256)
    assert Keyring([one]).find(None, "ES256") is one
    assert Keyring([one, two]).find(None, "ES256") is None


def test_a_ring_gives_the_nameless_key_to_any_id(forge: Forge) -> None:
    named, nameless = key(forge, "one"), key(forge, None)
    ring = Keyring([named, nameless])
    assert ring.find("one", "ES256") is named
    assert ring.find("any", "ES256") is nameless
    assert ring.find(None, "ES256") is None


def test_the_first_of_two_keys_under_one_id_stays(forge: Forge) -> None:
    first, second = key(forge, "k"), key(forge, "k")
    ring = Keyring([first, second])
    assert ring.find("k", "ES256") is first
    assert len(ring) == 1

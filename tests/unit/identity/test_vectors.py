"""The signature vectors, each against the key it names: accepted or refused, and refused in one way only."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from cbk_gateway.errors import NotAuthenticated
from cbk_gateway.identity import Identity, IdentityOptions, IssuerOptions, Reason, VerifyKey
from cbk_gateway.secret import Secret
from unit.identity.forge import NOW, Clock, Forge
from unit.identity.vectors import ED25519, HMAC_KEY, P256, P384, P521, Vector, vectors
from unit.identity.vectors_rsa import rsa_vectors

LOW = rsa.generate_private_key(public_exponent=3, key_size=2048)
PUBLIC_KINDS = ("ES256", "ES384", "ES512", "EdDSA", "RS256", "PS256")


def public_keys(forge: Forge) -> dict[str, str]:
    """PEM texts by the key ids of the vectors."""
    keys = {"ES256-a": P256, "ES384-a": P384, "ES512-a": P521, "EdDSA-a": ED25519, "RS256-e3": LOW}
    return {kid: forge.pem(key) for kid, key in {**keys, "RS256-a": forge.rsa, "PS256-a": forge.rsa}.items()}


def all_vectors(forge: Forge, now: float) -> list[Vector]:
    return [*vectors(now), *rsa_vectors(forge.rsa, LOW, now)]


@pytest.fixture
def vector_identity(forge: Forge) -> Identity:
    keys = public_keys(forge)
    public = IssuerOptions(
        name="vectors",
        issuer="vectors",
        algorithms=PUBLIC_KINDS,
        keys=tuple(VerifyKey(kid, kid.partition("-")[0], pem) for kid, pem in keys.items()),
    )
    shared = IssuerOptions(
        name="vectors-shared",
        issuer="vectors-shared",
        algorithms=("HS256",),
        keys=(VerifyKey("HS256-a", "HS256", Secret(HMAC_KEY)),),
    )
    return Identity(IdentityOptions((public, shared)), clock=Clock())


async def test_every_vector_gets_the_verdict_it_must(vector_identity: Identity, forge: Forge) -> None:
    wrong: dict[str, str] = {}
    tried = all_vectors(forge, NOW)
    for vector in tried:
        try:
            principal = await vector_identity.identify([f"Bearer {vector.token}"])
        except NotAuthenticated as refusal:
            if vector.is_valid or refusal.reason not in {Reason.SIGNATURE, Reason.MALFORMED}:
                wrong[vector.name] = refusal.reason
        else:
            if not vector.is_valid or principal.subject != "ada":
                wrong[vector.name] = "accepted"
    assert wrong == {}
    assert len({vector.name for vector in tried}) == len(tried) > 180
    assert sum(vector.is_valid for vector in tried) > 12


def test_no_two_vectors_are_one_token(forge: Forge) -> None:
    """Where two were the same, one of them would test nothing; a good one is made in two ways on purpose."""
    seen: dict[str, str] = {}
    for vector in all_vectors(forge, NOW):
        if not vector.is_valid:
            assert vector.token not in seen, (vector.name, seen.get(vector.token))
            seen[vector.token] = vector.name

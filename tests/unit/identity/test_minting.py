from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cbk_gateway.errors import NotAuthenticated
from cbk_gateway.identity import (
    Identity,
    IdentityOptions,
    KeyFault,
    Minter,
    MinterOptions,
    SigningKey,
    VerifyKey,
)
from cbk_gateway.secret import Secret
from unit.identity.forge import NOW, SECRET, Clock, Forge

SHARED = SigningKey("2026-11", "HS256", Secret(SECRET))


async def test_what_is_minted_is_accepted_and_says_what_was_asked(minter: Minter, clock: Clock) -> None:
    identity = Identity(IdentityOptions((minter.issuer_options("gw"),)), clock=clock)
    minted = minter.issue("acme", "ada", ["bot:fetch", "*:read"], 60, extra={"team": "blue"})
    principal = await identity.identify([f"Bearer {minted.token.reveal()}"])
    assert (principal.tenant, principal.subject, principal.scopes) == ("acme", "ada", ("bot:fetch", "*:read"))
    assert principal.token_id == minted.token_id
    assert (principal.issued_at, principal.expires_at) == (int(NOW), int(NOW) + 60)
    assert identity.inspect(minted.token.reveal()).claims["team"] == "blue"


def test_every_token_has_an_id_of_its_own(minter: Minter) -> None:
    assert len({minter.issue("acme", "ada", [], 60).token_id for _ in range(100)}) == 100


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"])
async def test_public_keys_sign_and_are_published(alg: str, forge: Forge, clock: Clock) -> None:
    private = forge.private(alg)
    minter = Minter(MinterOptions("gw", SigningKey("k", alg, forge.private_pem(private))), clock)
    identity = Identity(IdentityOptions((minter.issuer_options("gw"),)), clock=clock)
    await identity.identify([f"Bearer {minter.mint('acme', 'ada', ['*'], 60)}"])
    (published,) = minter.public_jwks()["keys"]
    assert (published["kid"], published["alg"], published["use"]) == ("k", alg, "sig")
    assert not {"d", "p", "q", "k"} & set(published)


async def test_a_retired_key_still_verifies_and_a_dropped_one_does_not(forge: Forge, clock: Clock) -> None:
    old = SigningKey("old", "ES256", forge.private_pem(forge.p256))
    new = SigningKey("new", "RS256", forge.private_pem(forge.rsa))
    value = "Bearer " + Minter(MinterOptions("gw", old), clock).mint("acme", "ada", [], 60)
    rotated = Minter(MinterOptions("gw", new, retired=(old,)), clock)
    assert [key["kid"] for key in rotated.public_jwks()["keys"]] == ["new", "old"]
    for header in (value, "Bearer " + rotated.mint("acme", "ada", [], 60)):
        await Identity(IdentityOptions((rotated.issuer_options("gw"),)), clock=clock).identify([header])
    dropped = Minter(MinterOptions("gw", new), clock).issuer_options("gw")
    with pytest.raises(NotAuthenticated):
        await Identity(IdentityOptions((dropped,)), clock=clock).identify([value])


def test_a_shared_secret_is_never_published(forge: Forge) -> None:
    assert Minter(MinterOptions("gw", SHARED)).public_jwks() == {"keys": []}
    retired = VerifyKey("old", "ES256", forge.pem(forge.p256))
    mixed = Minter(MinterOptions("gw", SHARED, retired=(retired,)))
    assert [key["kid"] for key in mixed.public_jwks()["keys"]] == ["old"]
    with pytest.raises(ValueError, match="mixed"):
        mixed.issuer_options("gw")


@pytest.mark.parametrize(
    "wrong",
    [
        {"tenant": ""},
        {"tenant": "a\nb"},
        {"subject": ""},
        {"subject": "x" * 300},
        {"scopes": ["a b"]},
        {"scopes": [""]},
        {"ttl_s": 0},
        {"ttl_s": -1},
        {"ttl_s": 10**9},
        {"extra": {"exp": 1}},
        {"extra": {"jti": "mine"}},
        {"extra": {"tenant": "globex"}},
        {"extra": {"scope": "*"}},
    ],
)
def test_what_cannot_be_minted_is_said(wrong: dict[str, Any], minter: Minter) -> None:
    asked: dict[str, Any] = {"tenant": "acme", "subject": "ada", "scopes": ["*"], "ttl_s": 60} | wrong
    with pytest.raises(ValueError, match=r"\w"):
        minter.mint(**asked)


@pytest.mark.parametrize(
    ("alg", "which"), [("RS256", "weak_rsa"), ("ES256", "p384"), ("RS256", "p256"), ("EdDSA", "rsa")]
)
def test_a_key_that_must_not_verify_cannot_sign(alg: str, which: str, forge: Forge) -> None:
    with pytest.raises(KeyFault):
        Minter(MinterOptions("gw", SigningKey("k", alg, forge.private_pem(getattr(forge, which)))))


@pytest.mark.parametrize(
    "material", ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_a_signing_key_that_cannot_be_read_is_not_shown(material: str) -> None:
    with pytest.raises(KeyFault) as caught:
        Minter(MinterOptions("gw", SigningKey("k", "RS256", Secret(material))))
    assert not material or material not in str(caught.value)


def test_signing_keys_need_ids_of_their_own() -> None:
    with pytest.raises(ValueError, match="key id"):
        Minter(MinterOptions("gw", SHARED, retired=(replace(SHARED, alg="HS512"),)))
    with pytest.raises(ValueError, match="key id"):
        SigningKey("", "HS256", Secret(SECRET))
    with pytest.raises(ValueError, match="signs with"):
        SigningKey("k", "none", Secret(SECRET))


def test_nothing_shows_the_key_or_the_token(minter: Minter) -> None:
    minted = minter.issue("acme", "ada", [], 60)
    assert minted.token.reveal() not in repr(minted)
    assert SECRET not in repr(minter) + repr(MinterOptions("gw", SHARED))

"""Issuers, an identity and a minter that trust the forge's keys."""

from __future__ import annotations

import pytest

from cbk_gateway.identity import (
    Identity,
    IdentityOptions,
    IssuerOptions,
    Minter,
    MinterOptions,
    SigningKey,
    VerifyKey,
)
from cbk_gateway.secret import Secret
from unit.identity.forge import SECRET, Clock, Forge


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def corp(forge: Forge) -> IssuerOptions:
    """An issuer with public keys of several kinds, one `kid` each."""
    algorithms = ("RS256", "PS256", "ES256", "ES512", "EdDSA")
    return IssuerOptions(
        name="corp",
        issuer="https://corp.example",
        algorithms=algorithms,
        keys=tuple(VerifyKey(f"k-{alg}", alg, forge.pem(forge.private(alg))) for alg in algorithms),
        audience=("door",),
        max_lifetime_s=3600,
    )


@pytest.fixture
def shared() -> IssuerOptions:
    """An issuer with a shared secret."""
    return IssuerOptions(
        name="shared",
        issuer="shared",
        algorithms=("HS256",),
        keys=(VerifyKey("k-HS256", "HS256", Secret(SECRET)),),
        max_lifetime_s=3600,
    )


@pytest.fixture
def identity(corp: IssuerOptions, shared: IssuerOptions, clock: Clock) -> Identity:
    return Identity(IdentityOptions((corp, shared)), clock=clock)


@pytest.fixture
def minter(clock: Clock) -> Minter:
    return Minter(MinterOptions("gw", SigningKey("2026-11", "HS256", Secret(SECRET))), clock)

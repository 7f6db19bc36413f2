from __future__ import annotations

from dataclasses import replace

import pytest

from cbk_gateway.errors import NotAuthenticated
from cbk_gateway.identity import Identity, IdentityOptions, IssuerOptions, Revocation, SilentObserver
from cbk_gateway.identity.revocation import RevocationKind
from unit.identity.forge import NOW, Clock, Forge


class Counter(SilentObserver):
    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def token_verified(self, issuer: str, algorithm: str) -> None:
        self.events.append(("verified", issuer, algorithm))

    def token_remembered(self, issuer: str) -> None:
        self.events.append(("remembered", issuer))

    def token_refused(self, reason: str) -> None:
        self.events.append(("refused", reason))

    def revocation_applied(self, kind: str) -> None:
        self.events.append(("revocation", kind))


async def test_a_token_is_verified_once_and_then_remembered(
    corp: IssuerOptions, forge: Forge, clock: Clock
) -> None:
    counter = Counter()
    identity = Identity(IdentityOptions((corp,)), None, counter, clock=clock)
    value = f"Bearer {forge.token()}"
    assert identity.identify_now(value) is None
    first = await identity.identify([value])
    assert identity.identify_now(value) is first
    assert await identity.identify([value.replace("Bearer ", "bearer   ")]) is first
    with pytest.raises(NotAuthenticated):
        await identity.identify([])
    assert counter.events == [("verified", "corp", "RS256"), ("remembered", "corp"), ("refused", "no_token")]


async def test_a_remembered_token_ends_when_it_expires(
    identity: Identity, forge: Forge, clock: Clock
) -> None:
    value = f"Bearer {forge.token(forge.claims(exp=NOW + 60))}"
    await identity.identify([value])
    clock.now = NOW + 89
    assert identity.identify_now(value) is not None
    clock.now = NOW + 90
    assert identity.identify_now(value) is None
    with pytest.raises(NotAuthenticated) as caught:
        await identity.identify([value])
    assert caught.value.reason == "expired"


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "\udcff", "Bearer \udcff", "x" * 100_000])
def test_the_fast_path_knows_nothing_of_odd_values(value: str, identity: Identity) -> None:
    assert identity.identify_now(value) is None


async def test_memory_stays_within_its_bound(corp: IssuerOptions, forge: Forge, clock: Clock) -> None:
    identity = Identity(IdentityOptions((corp,), remembered_tokens=5), clock=clock)
    for number in range(20):
        await identity.identify([f"Bearer {forge.token(forge.claims(jti=str(number)), alg='ES256')}"])
    assert "5 tokens remembered" in repr(identity)


async def test_issuers_are_told_apart_by_value_and_algorithm(identity: Identity, forge: Forge) -> None:
    mine = forge.token(forge.claims(iss="shared", aud=None), alg="HS256")
    assert (await identity.identify([f"Bearer {mine}"])).issuer == "shared"
    assert (await identity.identify([f"Bearer {forge.token(alg='ES256')}"])).issuer == "corp"


async def test_an_issuer_without_value_takes_only_tokens_without_one(
    shared: IssuerOptions, forge: Forge, clock: Clock
) -> None:
    identity = Identity(IdentityOptions((replace(shared, issuer=None),)), clock=clock)
    plain = forge.token(forge.claims(iss=None, aud=None), alg="HS256")
    assert (await identity.identify([f"Bearer {plain}"])).issuer == "shared"
    with pytest.raises(NotAuthenticated) as caught:
        await identity.identify([f"Bearer {forge.token(forge.claims(aud=None), alg='HS256')}"])
    assert caught.value.reason == "unknown_issuer"


async def test_those_who_listen_hear_of_a_revocation_even_beside_one_that_fails(
    corp: IssuerOptions, forge: Forge, clock: Clock
) -> None:
    counter = Counter()
    identity = Identity(IdentityOptions((corp,)), None, counter, clock=clock)
    principal = await identity.identify([f"Bearer {forge.token()}"])
    heard: list[Revocation] = []

    def fails(_: Revocation) -> None:
        raise RuntimeError

    identity.on_revoked(fails)
    end = identity.on_revoked(heard.append)
    assert not identity.is_revoked(principal)
    revocation = await identity.revoke(token_id="t-1")
    await identity.revoke(token_id="t-1")
    end()
    await identity.revoke(tenant="acme")
    assert identity.is_revoked(principal)
    assert heard == [revocation]
    assert heard[0].kind is RevocationKind.TOKEN
    assert counter.events[1:] == [("revocation", "token"), ("revocation", "tenant")]


async def test_a_revocation_is_kept_as_long_as_the_longest_token_lives(
    corp: IssuerOptions, shared: IssuerOptions, clock: Clock
) -> None:
    bounded = Identity(IdentityOptions((corp, replace(shared, max_lifetime_s=7200))), clock=clock)
    assert (await bounded.revoke(tenant="acme")).expires_at == int(NOW) + 1 + 7200 + 30 + 1
    unbounded = Identity(IdentityOptions((corp, replace(shared, max_lifetime_s=None))), clock=clock)
    assert (await unbounded.revoke(tenant="acme")).expires_at is None

"""Published keys over real HTTP: a scripted issuer that rotates, fails, redirects, floods and goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from cbk_gateway.errors import NotAuthenticated, ServiceUnavailable
from cbk_gateway.identity import Identity, IdentityOptions, IssuerOptions, JwksOptions, SilentObserver
from unit.identity.scripted_issuer import OTHER, P256, RSA_1024, RSA_2048, Issuer, jwk


class Monotonic:
    """Time of keys that a test moves by hand, on top of the real one."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Counter(SilentObserver):
    def __init__(self) -> None:
        self.fetches: list[str] = []
        self.in_force: list[int] = []

    def keys_fetched(self, issuer: str, outcome: str) -> None:  # noqa: ARG002 - the protocol's
        self.fetches.append(outcome)

    def keys_in_force(self, issuer: str, count: int) -> None:  # noqa: ARG002 - the protocol's
        self.in_force.append(count)


Make = Callable[..., Identity]


@pytest.fixture
async def idp() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    await issuer.open()
    yield issuer
    await issuer.close()


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
async def make(idp: Issuer, monotonic: Monotonic, counter: Counter) -> AsyncIterator[Make]:
    """Makes identities that trust the scripted issuer, and stops them."""
    made: list[Identity] = []

    def build(*, discovery: bool = False, **jwks: Any) -> Identity:
        policy = IssuerOptions(
            name="idp",
            issuer=idp.url,
            algorithms=("ES256", "RS256"),
            jwks_url=None if discovery else f"{idp.url}/keys",
            discovery=discovery,
            jwks=JwksOptions(**{"timeout_s": 5.0, "cooldown_s": 30.0} | jwks),
        )
        identity = Identity(IdentityOptions((policy,)), None, counter, monotonic=monotonic)
        made.append(identity)
        return identity

    yield build
    for identity in made:
        await identity.stop()


async def reason(identity: Identity, token: str) -> str:
    with pytest.raises((NotAuthenticated, ServiceUnavailable)) as caught:
        await identity.identify([f"Bearer {token}"])
    return caught.value.reason


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_keys_are_found_through_the_address_given(idp: Issuer, make: Make) -> None:
    identity = make()
    await identity.start()
    assert (await identity.identify([f"Bearer {idp.token()}"])).tenant == "acme"
    assert idp.asked == ["/keys"]


async def test_keys_are_found_through_discovery(idp: Issuer, make: Make) -> None:
    identity = make(discovery=True)
    await identity.start()
    assert (await identity.identify([f"Bearer {idp.token()}"])).issuer == "idp"
    assert idp.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_a_discovery_document_of_another_issuer_is_not_believed(idp: Issuer, make: Make) -> None:
    idp.claimed_issuer = "https://evil.example"
    identity = make(discovery=True)
    await identity.start()
    assert await reason(identity, idp.token()) == "keys_unavailable"
    assert idp.asked == ["/.well-known/openid-configuration"]


async def test_an_unknown_key_id_fetches_once_for_all_who_wait(idp: Issuer, make: Make) -> None:
    identity = make(cooldown_s=0.0)
    await identity.start()
    idp.keys.append(jwk(OTHER, "two"))
    idp.gate.clear()
    idp.arrived.clear()
    waiting = [
        asyncio.create_task(identity.identify([f"Bearer {idp.token(OTHER, 'two', jti=str(number))}"]))
        for number in range(50)
    ]
    await idp.arrived.wait()
    idp.gate.set()
    assert {principal.tenant for principal in await asyncio.gather(*waiting)} == {"acme"}
    assert idp.asked == ["/keys", "/keys"]


async def test_one_who_gives_up_does_not_take_the_fetch_from_the_others(idp: Issuer, make: Make) -> None:
    identity = make(cooldown_s=0.0)
    await identity.start()
    idp.keys.append(jwk(OTHER, "two"))
    idp.gate.clear()
    idp.arrived.clear()
    first = asyncio.create_task(identity.identify([f"Bearer {idp.token(OTHER, 'two', jti='a')}"]))
    await idp.arrived.wait()
    second = asyncio.create_task(identity.identify([f"Bearer {idp.token(OTHER, 'two', jti='b')}"]))
    await asyncio.sleep(0)
    first.cancel()
    idp.gate.set()
    assert (await second).token_id == "b"
    assert len(idp.asked) == 2


async def test_known_keys_serve_while_a_fetch_hangs(idp: Issuer, make: Make) -> None:
    identity = make(cooldown_s=0.0)
    await identity.start()
    idp.gate.clear()
    idp.arrived.clear()
    stuck = asyncio.create_task(identity.identify([f"Bearer {idp.token(OTHER, 'two')}"]))
    await idp.arrived.wait()
    assert (await identity.identify([f"Bearer {idp.token()}"])).subject == "ada"
    idp.gate.set()
    with pytest.raises(NotAuthenticated):
        await stuck


async def test_a_flood_of_unknown_key_ids_costs_one_fetch_per_cooldown(
    idp: Issuer, make: Make, monotonic: Monotonic
) -> None:
    identity = make(cooldown_s=30.0)
    await identity.start()
    monotonic.ahead += 31
    for number in range(300):
        assert await reason(identity, idp.token(OTHER, f"guess-{number}")) == "unknown_key"
    assert len(idp.asked) == 2
    monotonic.ahead += 31
    assert await reason(identity, idp.token(OTHER, "guess-again")) == "unknown_key"
    assert len(idp.asked) == 3


async def test_a_key_id_not_found_is_not_asked_for_again_for_a_while(
    idp: Issuer, make: Make, monotonic: Monotonic
) -> None:
    identity = make(cooldown_s=10.0, unknown_kid_s=100.0)
    await identity.start()
    for ahead, fetches in ((11, 2), (11, 2), (50, 2), (40, 3)):
        monotonic.ahead += ahead
        assert await reason(identity, idp.token(OTHER, "withdrawn")) == "unknown_key"
        assert len(idp.asked) == fetches


async def test_a_withdrawn_key_ends_its_tokens_even_remembered_ones(
    idp: Issuer, make: Make, monotonic: Monotonic
) -> None:
    identity = make()
    await identity.start()
    value = f"Bearer {idp.token()}"
    await identity.identify([value])
    assert identity.identify_now(value) is not None
    idp.keys = [jwk(OTHER, "two")]
    monotonic.ahead += 31
    await identity.identify([f"Bearer {idp.token(OTHER, 'two')}"])
    assert identity.identify_now(value) is None
    assert await reason(identity, value.removeprefix("Bearer ")) == "unknown_key"


async def test_the_last_good_set_serves_while_the_issuer_is_down_up_to_its_age(
    idp: Issuer, make: Make, monotonic: Monotonic, counter: Counter
) -> None:
    identity = make(max_age_s=3600.0)
    await identity.start()
    idp.status = 500
    monotonic.ahead += 1800
    assert await reason(identity, idp.token(OTHER, "two")) == "unknown_key"
    value = f"Bearer {idp.token()}"
    assert (await identity.identify([value])).tenant == "acme"
    monotonic.ahead += 1801
    assert await reason(identity, idp.token(jti="fresh")) == "keys_unavailable"
    assert identity.identify_now(value) is None
    assert counter.fetches == ["fetched", "status", "status"]
    idp.status = 200
    monotonic.ahead += 31
    assert (await identity.identify([value])).tenant == "acme"


async def test_an_issuer_that_is_away_at_start_is_found_later(
    idp: Issuer, make: Make, monotonic: Monotonic
) -> None:
    idp.status = 503
    identity = make()
    await identity.start()
    assert await reason(identity, idp.token()) == "keys_unavailable"
    idp.status = 200
    assert await reason(identity, idp.token()) == "keys_unavailable"
    monotonic.ahead += 31
    assert (await identity.identify([f"Bearer {idp.token()}"])).tenant == "acme"


async def test_keys_are_refreshed_on_schedule_as_cache_control_says(idp: Issuer, make: Make) -> None:
    idp.headers = {"Cache-Control": "public, max-age=0"}
    identity = make(min_refresh_s=0.02, refresh_s=3600.0)
    await identity.start()
    idp.keys = [jwk(OTHER, "two")]
    seen = len(idp.asked)
    await until(lambda: len(idp.asked) > seen + 1)
    assert (await identity.identify([f"Bearer {idp.token(OTHER, 'two')}"])).tenant == "acme"


async def test_an_issuer_that_hangs_is_given_up_in_time(idp: Issuer, make: Make, counter: Counter) -> None:
    idp.gate.clear()
    identity = make(timeout_s=0.05)
    await identity.start()
    assert counter.fetches == ["timeout"]


async def test_an_issuer_that_is_not_there_is_a_503(make: Make, idp: Issuer, counter: Counter) -> None:
    identity = make()
    await idp.close()
    await identity.start()
    assert counter.fetches == ["unreachable"]
    assert await reason(identity, idp.token()) == "keys_unavailable"


BAD_SETS: dict[str, tuple[str, Callable[[Issuer], None]]] = {
    "too large": ("too_large", lambda i: setattr(i, "body", b'{"keys": [' + b" " * 300_000 + b"]}")),
    "too many keys": ("too_many_keys", lambda i: setattr(i, "keys", [jwk(P256, "one")] * 65)),
    "no JSON": ("malformed", lambda i: setattr(i, "body", b"<html>")),
    "a list": ("malformed", lambda i: setattr(i, "body", b"[]")),
    "keys twice": ("malformed", lambda i: setattr(i, "body", b'{"keys": [], "keys": []}')),
    "keys an object": ("malformed", lambda i: setattr(i, "body", b'{"keys": {}}')),
    "deep": ("malformed", lambda i: setattr(i, "body", b"[" * 100_000)),
    "empty": ("no_usable_key", lambda i: setattr(i, "keys", [])),
    "not found": ("status", lambda i: setattr(i, "status", 404)),
    "packed": ("encoding", lambda i: setattr(i, "headers", {"Content-Encoding": "gzip"})),
    "sent to another host": ("redirect", lambda i: setattr(i, "redirect", "http://localhost:1/keys")),
    "sent to a file": ("redirect", lambda i: setattr(i, "redirect", "file:///etc/passwd")),
    "sent in a circle": ("redirect", lambda i: setattr(i, "redirect", "/keys")),
    "sent nowhere": ("redirect", lambda i: setattr(i, "redirect", "")),
    # Keys that may not be used leave a set without any that may.
    "an HMAC secret": (
        "no_usable_key",
        lambda i: setattr(i, "keys", [{"kty": "oct", "k": "c2VjcmV0", "kid": "one", "alg": "HS256"}]),
    ),
    "an HMAC secret called ES256": (
        "no_usable_key",
        lambda i: setattr(i, "keys", [{"kty": "oct", "k": "c2VjcmV0", "kid": "one", "alg": "ES256"}]),
    ),
    "a private key": (
        "no_usable_key",
        lambda i: setattr(i, "keys", [ECAlgorithm.to_jwk(P256, as_dict=True) | {"kid": "one"}]),
    ),
    "for encryption": ("no_usable_key", lambda i: setattr(i, "keys", [jwk(P256, "one", use="enc")])),
    "for signing only": (
        "no_usable_key",
        lambda i: setattr(i, "keys", [jwk(P256, "one", use=None, key_ops=["sign"])]),
    ),
    "of an algorithm not allowed": (
        "no_usable_key",
        lambda i: setattr(i, "keys", [jwk(P256, "one", alg="ES384")]),
    ),
    "weak RSA": ("no_usable_key", lambda i: setattr(i, "keys", [jwk(RSA_1024, "one")])),
    "on the wrong curve": (
        "no_usable_key",
        lambda i: setattr(i, "keys", [jwk(ec.generate_private_key(ec.SECP384R1()), "one", alg="ES256")]),
    ),
    "off its curve": (
        "no_usable_key",
        lambda i: setattr(i, "keys", [jwk(P256, "one") | {"x": jwk(OTHER, "two")["x"]}]),
    ),
    "with a number for kid": ("no_usable_key", lambda i: setattr(i, "keys", [jwk(P256, "one") | {"kid": 1}])),
    "no objects": ("no_usable_key", lambda i: setattr(i, "keys", ["one", 2, None])),
}


@pytest.mark.parametrize("name", BAD_SETS)
async def test_a_bad_set_is_refused_and_the_last_good_one_kept(
    name: str, idp: Issuer, make: Make, monotonic: Monotonic, counter: Counter
) -> None:
    identity = make()
    await identity.start()
    outcome, spoil = BAD_SETS[name]
    spoil(idp)
    monotonic.ahead += 31
    assert await reason(identity, idp.token(OTHER, "unheard-of")) == "unknown_key"
    assert counter.fetches == ["fetched", outcome]
    assert (await identity.identify([f"Bearer {idp.token()}"])).tenant == "acme"


async def test_usable_keys_are_taken_from_beside_unusable_ones(idp: Issuer, make: Make) -> None:
    idp.keys = [
        {"kty": "oct", "k": "c2VjcmV0"},
        jwk(RSA_1024, "weak"),
        jwk(P256, "enc", use="enc"),
        jwk(P256, "one"),
        jwk(RSA_2048, "two", alg="RS256"),
    ]
    identity = make()
    await identity.start()
    assert (await identity.identify([f"Bearer {idp.token()}"])).tenant == "acme"
    assert (await identity.identify([f"Bearer {idp.token(RSA_2048, 'two', 'RS256')}"])).tenant == "acme"
    assert await reason(identity, idp.token(P256, "enc")) == "unknown_key"


async def test_a_redirect_on_the_same_host_is_followed(idp: Issuer, make: Make) -> None:
    idp.redirect = "/moved/keys"
    identity = make()
    await identity.start()
    assert (await identity.identify([f"Bearer {idp.token()}"])).tenant == "acme"
    assert idp.asked == ["/keys", "/moved/keys"]


async def test_a_token_without_key_id_is_accepted_only_if_one_key_can_be_meant(
    idp: Issuer, make: Make, monotonic: Monotonic
) -> None:
    identity = make()
    await identity.start()
    assert (await identity.identify([f"Bearer {idp.token(kid=None)}"])).tenant == "acme"
    idp.keys.append(jwk(OTHER, "two"))
    monotonic.ahead += 31
    await identity.identify([f"Bearer {idp.token(OTHER, 'two')}"])
    assert await reason(identity, idp.token(kid=None, jti="again")) == "unknown_key"


async def test_a_flood_of_bad_tokens_is_not_remembered(idp: Issuer, make: Make) -> None:
    identity = make()
    await identity.start()
    for number in range(500):
        assert await reason(identity, idp.token(OTHER, "one", jti=str(number))) == "signature"
    assert "0 tokens remembered" in repr(identity)
    assert idp.asked == ["/keys"]

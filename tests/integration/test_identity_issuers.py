"""Issuers through a whole gateway: a scripted identity provider on one side, the API behind on the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cbk_gateway.store import Store
from harness import KEYS, running
from integration.e2e_calls import arrived
from integration.identity_calls import asked, exchange
from unit.identity.scripted_issuer import OTHER, P256, Issuer, jwk


@pytest.fixture
async def idp() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    await issuer.open()
    yield issuer
    await issuer.close()


def corp(idp: Issuer, **settings: Any) -> dict[str, Any]:
    """An issuer in the settings; some of its times are short, so that a test sees them pass."""
    usual = {
        "name": "corp",
        "issuer": idp.url,
        "algorithms": ["ES256"],
        "jwks_url": f"{idp.url}/keys",
        "default_scopes": ["*"],
    }
    return usual | settings


def believing(*issuers: dict[str, Any]) -> dict[str, Any]:
    return {"issuers": list(issuers)}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


async def test_an_issuer_is_found_through_discovery(
    tmp_path: Path, valkey_url: str, store: Store, idp: Issuer
) -> None:
    settings = corp(idp, discovery=True, jwks_url=None)
    async with running(tmp_path, valkey_url, identity=believing(settings)) as stage:
        assert await asked(stage, idp.token()) == 200
        assert idp.asked == ["/.well-known/openid-configuration", "/keys"]
        (record,) = arrived(stage)
        assert record.headers["authorization"] == f"Bearer {KEYS['acme']}"


async def test_a_new_key_is_fetched_once_for_all_requests_that_wait(
    tmp_path: Path, valkey_url: str, store: Store, idp: Issuer
) -> None:
    settings = corp(idp, jwks={"cooldown_s": 0})
    async with running(tmp_path, valkey_url, identity=believing(settings)) as stage:
        idp.keys.append(jwk(OTHER, "two"))
        idp.gate.clear()
        idp.arrived.clear()
        waiting = [
            asyncio.create_task(asked(stage, idp.token(OTHER, "two", jti=str(number))))
            for number in range(20)
        ]
        await idp.arrived.wait()
        # Those who come with a known key are not kept waiting.
        assert await asked(stage, idp.token()) == 200
        idp.gate.set()
        assert await asyncio.gather(*waiting) == [200] * 20
        assert idp.asked == ["/keys", "/keys"]


async def test_a_flood_of_invalid_tokens_reaches_the_issuer_once_and_the_api_never(
    tmp_path: Path, valkey_url: str, store: Store, idp: Issuer
) -> None:
    settings = corp(idp, jwks={"cooldown_s": 3600})
    async with running(tmp_path, valkey_url, identity=believing(settings)) as stage:
        flood = [
            asked(stage, idp.token(OTHER, f"guess-{number % 40}", jti=str(number))) for number in range(120)
        ]
        assert set(await asyncio.gather(*flood)) == {401}
        assert idp.asked == ["/keys"]
        assert arrived(stage) == []
        assert "0 tokens remembered" in repr(stage.gateway.parts.identity)


async def test_known_keys_serve_while_the_issuer_is_down_and_end_at_their_age(
    tmp_path: Path, valkey_url: str, store: Store, idp: Issuer
) -> None:
    settings = corp(idp, jwks={"cooldown_s": 0.05, "max_age_s": 1.5})
    async with running(tmp_path, valkey_url, identity=believing(settings)) as stage:
        idp.status = 500
        assert await asked(stage, idp.token(jti="first")) == 200
        assert await asked(stage, idp.token(OTHER, "two")) == 401
        value = idp.token(jti="second")
        sent = 0

        async def ended() -> bool:
            nonlocal sent
            sent = len(arrived(stage))
            return await asked(stage, value) == 503

        async with asyncio.timeout(30):
            while not await ended():
                await asyncio.sleep(0.05)
        # Without keys nobody can be judged: neither the remembered token nor a new one gets past.
        _, answer = await exchange(stage, f"Authorization: Bearer {value}")
        assert "SERVICE_UNAVAILABLE" in answer
        assert len(arrived(stage)) == sent
        idp.status = 200
        async with asyncio.timeout(30):
            while await asked(stage, value) != 200:
                await asyncio.sleep(0.02)


async def test_a_withdrawn_key_ends_at_the_next_refresh_that_cache_control_asks_for(
    tmp_path: Path, valkey_url: str, store: Store, idp: Issuer
) -> None:
    idp.headers = {"Cache-Control": "max-age=0"}
    settings = corp(idp, jwks={"min_refresh_s": 0.05, "refresh_s": 3600})
    async with running(tmp_path, valkey_url, identity=believing(settings)) as stage:
        value = idp.token()
        assert await asked(stage, value) == 200
        idp.keys = [jwk(OTHER, "two")]
        async with asyncio.timeout(30):
            while await asked(stage, value) != 401:
                await asyncio.sleep(0.02)
        sent = len(arrived(stage))
        assert await asked(stage, value) == 401
        assert len(arrived(stage)) == sent


POLICY: dict[str, Any] = {
    "audience": ["gateway"],
    "tenant_claim": "org.name",
    "tenant_map": {"Acme Inc": "acme", "Globex Corp": "globex"},
    "scope_claim": "roles",
    "required_claims": ["org.plan"],
    "leeway_s": 30,
    "max_lifetime_s": 900,
}
GOOD: dict[str, Any] = {
    "aud": ["other", "gateway"],
    "org": {"name": "Acme Inc", "plan": "gold"},
    "roles": ["bot:read", "dataset:list"],
    "tenant": None,
}


# What a token says otherwise than `GOOD`, what it asks for, and the status; with 200, whose key goes up.
CLAIMS: list[tuple[dict[str, Any], str, int, str | None]] = [
    ({}, "/api/v1/bot/list", 200, "acme"),
    ({}, "/api/v1/dataset/list", 200, "acme"),
    ({}, "/api/v1/skillset/list", 403, None),
    ({"roles": "dataset:list skillset:list"}, "/api/v1/skillset/list", 200, "acme"),
    ({"org": {"name": "Globex Corp", "plan": "x"}}, "/api/v1/bot/list", 200, "globex"),
    ({"org": {"name": "acme", "plan": "x"}}, "/api/v1/bot/list", 401, None),  # an id is no name of theirs
    ({"org.name": "Globex Corp"}, "/api/v1/bot/list", 200, "globex"),  # a claim of that very name first
    ({"org": {"name": "Acme Inc"}}, "/api/v1/bot/list", 401, None),
    ({"org": "Acme Inc"}, "/api/v1/bot/list", 401, None),
    ({"aud": "gateway"}, "/api/v1/bot/list", 200, "acme"),
    ({"aud": "other"}, "/api/v1/bot/list", 401, None),
    ({"exp": 20}, "/api/v1/bot/list", 200, "acme"),
    ({"exp": -20}, "/api/v1/bot/list", 200, "acme"),
    ({"exp": -60}, "/api/v1/bot/list", 401, None),
    ({"nbf": 20}, "/api/v1/bot/list", 200, "acme"),
    ({"nbf": 60}, "/api/v1/bot/list", 401, None),
    ({"iat": 60}, "/api/v1/bot/list", 401, None),
    ({"exp": 1000}, "/api/v1/bot/list", 401, None),
    ({"roles": {"bot": "read"}}, "/api/v1/bot/list", 401, None),
]


async def test_the_claims_policy_decides_who_is_in_and_for_whom(
    tmp_path: Path, valkey_url: str, store: Store, idp: Issuer
) -> None:
    wrong = []
    async with running(tmp_path, valkey_url, identity=believing(corp(idp, **POLICY))) as stage:
        for changed, path, status, key in CLAIMS:
            seen = len(arrived(stage))
            got = await asked(stage, token_with(idp, changed), path)
            keys = {record.headers["authorization"] for record in arrived(stage)[seen:]}
            # What is remembered of the same list needs no key.
            may_go_up = {f"Bearer {KEYS[key]}"} if key is not None else set()
            if got != status or not keys <= may_go_up:
                wrong.append((changed, path, got, keys))
    assert wrong == []


def token_with(idp: Issuer, changed: dict[str, Any]) -> str:
    now = int(time.time())
    moved = {name: now + value if name in {"exp", "nbf", "iat"} else value for name, value in changed.items()}
    claims = {"iss": idp.url, "sub": "ada", "iat": now, "exp": now + 300} | GOOD | moved
    present = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(present, P256, "ES256", headers={"kid": "one"})


async def test_the_end_of_a_certificate_that_tokens_are_checked_with_is_told(
    tmp_path: Path, valkey_url: str, store: Store, idp: Issuer
) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "corp")])
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=7)
    certificate = (
        x509.CertificateBuilder(name, name, P256.public_key(), x509.random_serial_number())
        .not_valid_before(ends - timedelta(days=90))
        .not_valid_after(ends)
        .sign(P256, hashes.SHA256())
    )
    (tmp_path / "corp.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    keys = [{"kid": "one", "alg": "ES256", "key": "file:corp.crt"}]
    async with running(
        tmp_path, valkey_url, identity=believing(corp(idp, jwks_url=None, keys=keys))
    ) as stage:
        assert await asked(stage, idp.token()) == 200
        line = 'cbk_gateway_key_expiry_timestamp_seconds{kind="signing",name="corp/one"} '

        def told() -> list[str]:
            text = stage.gateway.parts.metrics.exposition("")[0].decode()
            return [one.removeprefix(line) for one in text.splitlines() if one.startswith(line)]

        await until(lambda: bool(told()))
        assert float(told()[0]) == ends.timestamp()


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


async def test_the_gateways_own_keys_are_published_and_rotate(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    """A second gateway believes the first by its published keys, before and after its signing key changed."""
    for name, key in (("old", P256), ("new", OTHER)):
        (tmp_path / f"{name}.pem").write_text(private_pem(key))
    keys = {name: {"kid": name, "alg": "ES256", "key": f"file:{name}.pem"} for name in ("old", "new")}
    async with AsyncExitStack() as stack:
        minting = {"issuer": "door", "audience": "door", "keys": [keys["old"]]}
        first = await stack.enter_async_context(running(tmp_path, valkey_url, identity={"mint": minting}))
        tokens = [first.token("acme")]
    async with AsyncExitStack() as stack:
        minting["keys"] = [keys["new"], keys["old"]]
        first = await stack.enter_async_context(running(tmp_path, valkey_url, identity={"mint": minting}))
        tokens.append(first.token("acme"))
        assert [jwt.get_unverified_header(token)["kid"] for token in tokens] == ["old", "new"]
        other = {
            "name": "door",
            "issuer": "door",
            "algorithms": ["ES256"],
            "audience": ["door"],
            "jwks_url": f"{first.admin_url}/.well-known/jwks.json",
        }
        (tmp_path / "second").mkdir()
        second = await stack.enter_async_context(
            running(tmp_path / "second", valkey_url, identity=believing(other))
        )
        for token in tokens:
            assert await asked(first, token) == 200
            assert await asked(second, token) == 200
        forged = jwt.encode(
            jwt.decode(tokens[1], options={"verify_signature": False}), "x" * 40, "HS256", {"kid": "new"}
        )
        assert await asked(second, forged) == 401

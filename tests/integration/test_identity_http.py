"""Identity through a whole gateway: what bad tokens get, what reaches the upstream, how streams end."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cbk_gateway.identity import Identity, IdentityOptions
from cbk_gateway.store import Store, StoreOptions, open_store
from harness import Stage, running
from integration.identity_calls import exchange
from unit.identity.forge import NOW, Forge
from unit.identity.hostile import CASES, CLAIM_CASES
from unit.identity.scripted_issuer import Issuer

ALGORITHMS = ["RS256", "PS256", "ES256", "ES512", "EdDSA"]


@pytest.fixture(scope="module")
def forge() -> Forge:
    return Forge(time.time())


@pytest.fixture
async def idp(forge: Forge) -> AsyncIterator[Issuer]:
    issuer = Issuer()
    issuer.keys = [forge.jwk(forge.private(alg), alg, kid=f"k-{alg}") for alg in ALGORITHMS]
    await issuer.open()
    yield issuer
    await issuer.close()


@pytest.fixture
async def stage(idp: Issuer, tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[Stage]:
    """A gateway that believes `corp` by its published keys, and `shared`."""
    corp = {
        "name": "corp",
        "issuer": "https://corp.example",
        "algorithms": ALGORITHMS,
        "jwks_url": f"{idp.url}/keys",
        "audience": ["door"],
        "max_lifetime_s": 3600,
    }
    shared = {
        "name": "shared",
        "issuer": "shared",
        "algorithms": ["HS256"],
        "keys": [{"kid": "k-HS256", "alg": "HS256", "key": "env:TEST_SIGNING"}],
        "max_lifetime_s": 3600,
    }
    async with running(tmp_path, valkey_url, identity={"issuers": [corp, shared]}) as one:
        yield one


def at_this_hour(claims: dict[str, Any], forge: Forge) -> dict[str, Any]:
    """The tables' times, moved from their fixed hour to the forge's."""
    moved = {
        name: value + int(forge.now) - int(NOW)
        for name, value in claims.items()
        if isinstance(value, int) and abs(value - NOW) < 10**6
    }
    return claims | moved


async def test_the_suites_good_token_is_let_through(stage: Stage, forge: Forge) -> None:
    for alg in ALGORITHMS:
        status, _ = await exchange(stage, f"Authorization: Bearer {forge.token(alg=alg)}")
        assert status == 200
    assert stage.sandbox.requests


async def test_every_hostile_token_gets_401_and_no_request_goes_up(
    stage: Stage, forge: Forge, idp: Issuer
) -> None:
    tokens = {name: make(forge) for name, (_, make) in CASES.items()}
    tokens |= {
        name: forge.token(forge.claims(**at_this_hour(changed, forge)))
        for name, (_, changed) in CLAIM_CASES.items()
    }
    answers: dict[str, int] = {}
    for name, token in tokens.items():
        if "\n" in token or "\0" in token:
            continue  # no header can carry them
        answers[name], answer = await exchange(stage, f"Authorization: Bearer {token}")
        assert "corp.example" not in answer
    assert {name: status for name, status in answers.items() if status != 401} == {}
    assert len(answers) > 140
    assert stage.sandbox.requests == []
    assert len(idp.asked) <= 2


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Authorization: "],
        ["Authorization: Bearer"],
        ["Authorization: Basic YTpi"],
        ["Authorization: Bearer {token}", "Authorization: Bearer {token}"],
        ["Authorization: Bearer {token}", "authorization: Basic YTpi"],
        ["Authorization: Bearer {token}, Bearer {token}"],
        ["Authorization: {token}"],
        ["Cookie: token={token}"],
        ["Proxy-Authorization: Bearer {token}"],
        ["X-Authorization: Bearer {token}"],
        ["Authorization_: Bearer {token}"],
    ],
)
async def test_a_good_token_in_a_bad_place_is_none(lines: list[str], stage: Stage, forge: Forge) -> None:
    token = forge.token()
    status, answer = await exchange(stage, *(line.format(token=token) for line in lines))
    assert status == 401
    assert "WWW-Authenticate: Bearer" in answer
    assert token not in answer
    assert stage.sandbox.requests == []


@pytest.fixture
async def elsewhere(valkey_url: str) -> AsyncIterator[Identity]:
    """Another gateway's identity on the same store; here it only revokes."""
    async with await open_store(StoreOptions(url=valkey_url, call_timeout_s=2.0)) as store:
        yield Identity(IdentityOptions(()), store)


async def test_a_revoked_token_is_refused_though_its_answer_is_cached(
    stage: Stage, forge: Forge, elsewhere: Identity
) -> None:
    token_id = uuid.uuid4().hex
    header = f"Authorization: Bearer {forge.token(forge.claims(jti=token_id))}"
    assert (await exchange(stage, header))[0] == 200
    status, answer = await exchange(stage, header)
    assert status == 200
    assert "; hit" in answer
    sent = len(stage.sandbox.requests)
    await elsewhere.revoke(token_id=token_id)
    async with asyncio.timeout(20):
        while (await exchange(stage, header))[0] == 200:
            await asyncio.sleep(0.01)
    status, answer = await exchange(stage, header)
    assert status == 401
    assert "revoked" in answer
    assert len(stage.sandbox.requests) == sent


async def test_the_open_stream_of_a_revoked_token_ends_and_others_go_on(
    stage: Stage, forge: Forge, elsewhere: Identity
) -> None:
    ids = [uuid.uuid4().hex for _ in range(2)]
    tokens = [forge.token(forge.claims(jti=token_id, scope="*")) for token_id in ids]
    url = f"{stage.url}/api/v1/channel/room/subscribe"
    async with aiohttp.ClientSession() as session, contextlib.AsyncExitStack() as stack:
        revoked, other = [
            await stack.enter_async_context(
                session.post(
                    url,
                    json={},
                    headers={"Authorization": f"Bearer {token}", "Accept": "application/jsonl"},
                )
            )
            for token in tokens
        ]
        for stream in (revoked, other):
            assert b"nop" in await stream.content.readline()
        await elsewhere.revoke(token_id=ids[0])
        async with asyncio.timeout(20):
            with contextlib.suppress(aiohttp.ClientPayloadError):
                while await revoked.content.readany():
                    pass
        published = f"{stage.url}/api/v1/channel/room/publish"
        message = {"message": {"text": "still here"}}
        async with session.post(
            published, json=message, headers={"Authorization": f"Bearer {tokens[1]}"}
        ) as answer:
            assert answer.status == 200
        async with asyncio.timeout(20):
            assert b"still here" in await other.content.readline()

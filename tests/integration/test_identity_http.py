"""Identity through a whole gateway: what bad tokens get, what reaches the upstream, how streams end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from harness import SIGNING_KEY, Stage, running
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
async def stage(idp: Issuer, tmp_path: Path, valkey_url: str) -> AsyncIterator[Stage]:
    """A gateway that believes its own tokens, those of `corp` by its published keys, and those of `shared`."""
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


async def exchange(stage: Stage, *headers: str) -> tuple[int, str]:
    """One request with these raw header lines, over a socket of its own: no client tidies them up."""
    parts = urlsplit(stage.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        lines = ["GET /api/v1/bot/list HTTP/1.1", "Host: gateway", "Connection: close", *headers, "", ""]
        writer.write("\r\n".join(lines).encode("utf-8", "surrogatepass"))
        answer = (await reader.read()).decode()
    finally:
        writer.close()
        await writer.wait_closed()
    return int(answer.split(" ", 2)[1]), answer


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


async def test_a_revoked_token_is_refused_though_its_answer_is_cached(stage: Stage, forge: Forge) -> None:
    header = f"Authorization: Bearer {forge.token()}"
    assert [(await exchange(stage, header))[0] for _ in range(2)] == [200, 200]
    assert "hit" in (await exchange(stage, header))[1]
    sent = len(stage.sandbox.requests)
    principal = {"token_id": "t-1"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{stage.admin_url}/admin/tokens/revoke",
            json=principal,
            headers={"Authorization": "Bearer an-operators-token-for-tests"},
        ) as answer,
    ):
        print(answer.status, await answer.text())
    assert (await exchange(stage, header))[0] == 401
    assert len(stage.sandbox.requests) == sent
    assert SIGNING_KEY

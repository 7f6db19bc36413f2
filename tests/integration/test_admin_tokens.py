"""Tokens through the operators' port: minted, revoked in every way, refused at once, lifted again."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import jwt
import orjson
import pytest

from harness import SIGNING_KEY, Stage
from integration.e2e_calls import Said, admin_records, arrived, bearer, change, get, look, post

LIST = "/api/v1/bot/list"


async def minted(stage: Stage, **wanted: Any) -> dict[str, Any]:
    said = await change(stage, "/admin/tokens/mint", {"tenant": "acme", **wanted})
    assert said.status == 200, said.body
    document: dict[str, Any] = said.json
    return document


async def refused(stage: Stage, headers: dict[str, str]) -> Said:
    said = await get(stage, LIST, headers)
    assert (said.status, said.code) == (401, "NOT_AUTHENTICATED"), said.body
    return said


async def test_a_minted_token_opens_the_api_as_far_as_its_scopes_go(stage: Stage) -> None:
    made = await minted(stage, subject="web", scopes=["bot:read"], ttl_s=60)
    headers = bearer(made["token"])
    assert (await get(stage, LIST, headers)).status == 200
    assert (await get(stage, "/api/v1/dataset/list", headers)).status == 403
    assert (await post(stage, "/api/v1/bot/create", {"name": "x"}, headers)).status == 403
    claims = jwt.decode(made["token"], SIGNING_KEY, ["HS256"], audience="cbk-gateway")
    assert (claims["jti"], claims["exp"], claims["sub"]) == (made["token_id"], made["expires_at"], "web")
    assert claims["exp"] - claims["iat"] == 60
    (record,) = admin_records(stage)
    assert (record["token_id"], record["scopes"]) == (made["token_id"], ["bot:read"])
    assert made["token"] not in str(record)


def target_of(way: str, made: dict[str, Any]) -> dict[str, Any]:
    return {
        "token id": {"token_id": made["token_id"]},
        "subject": {"tenant": "acme", "subject": "web"},
        "tenant": {"tenant": "acme"},
        "everybody before": {"issued_before": int(time.time()) + 1},
        "tenant before": {"tenant": "acme", "issued_before": int(time.time()) + 1},
    }[way]


WAYS = {
    # Who is hit beside the token itself: another of its subject, of its tenant, of another tenant.
    "token id": (False, False, False),
    "subject": (True, False, False),
    "tenant": (True, True, False),
    "tenant before": (True, True, False),
    "everybody before": (True, True, True),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_revocation_acts_at_once_on_those_it_names_though_their_answers_are_cached(
    stage: Stage, way: str
) -> None:
    made = await minted(stage, subject="web")
    others = [
        bearer((await minted(stage, subject="web"))["token"]),
        bearer((await minted(stage, subject="app"))["token"]),
        bearer((await minted(stage, tenant="globex", subject="web"))["token"]),
    ]
    everybody = [bearer(made["token"]), *others]
    for headers in everybody:
        await get(stage, LIST, headers)
        assert (await get(stage, LIST, headers)).is_hit
    said = await change(stage, "/admin/tokens/revoke", target_of(way, made))
    assert said.status == 200, said.body
    seen = len(arrived(stage))
    await refused(stage, everybody[0])
    for headers, is_hit_too in zip(others, WAYS[way], strict=True):
        if is_hit_too:
            await refused(stage, headers)
        else:
            assert (await get(stage, LIST, headers)).is_hit
    assert len(arrived(stage)) == seen
    listed = (await look(stage, "/admin/tokens/revocations")).json["items"]
    assert [one["id"] for one in listed] == [said.json["id"]]


async def test_a_lifted_revocation_lets_the_token_in_again(stage: Stage) -> None:
    made = await minted(stage)
    identifier = (await change(stage, "/admin/tokens/revoke", {"token_id": made["token_id"]})).json["id"]
    await refused(stage, bearer(made["token"]))
    assert (await change(stage, "/admin/tokens/lift", {"id": identifier})).status == 200
    assert (await get(stage, LIST, bearer(made["token"]))).status == 200
    assert (await look(stage, "/admin/tokens/revocations")).json == {"items": []}
    assert (await change(stage, "/admin/tokens/lift", {"id": identifier})).status == 404


async def test_a_token_issued_after_the_time_is_not_hit(stage: Stage) -> None:
    made = await minted(stage)
    await change(stage, "/admin/tokens/revoke", {"issued_before": int(time.time()) - 60})
    assert (await get(stage, LIST, bearer(made["token"]))).status == 200


@pytest.mark.parametrize("how", ["token", "tenant", "disabled"])
async def test_open_streams_of_who_may_not_go_on_are_ended(
    stage: Stage, client: aiohttp.ClientSession, how: str
) -> None:
    made, kept = await minted(stage), await minted(stage, tenant="partner")
    url = f"{stage.url}/api/v1/channel/news/subscribe"

    async def subscribed(document: dict[str, Any]) -> aiohttp.ClientResponse:
        headers = {**bearer(document["token"]), "Accept": "application/jsonl"}
        answer = await client.post(url, json={}, headers=headers)
        assert answer.status == 200
        assert b"nop" in await answer.content.readline()
        return answer

    condemned, other = await subscribed(made), await subscribed(kept)
    ending = asyncio.create_task(read_out(condemned))
    path, body = {
        "token": ("tokens/revoke", {"token_id": made["token_id"]}),
        "tenant": ("tokens/revoke", {"tenant": "acme"}),
        "disabled": ("tenants/acme/disable", {}),
    }[how]
    assert (await change(stage, f"/admin/{path}", body)).status == 200
    async with asyncio.timeout(10):
        lines, is_broken = await ending
    # It says why, and then breaks off: a stream that was cut must not look whole.
    assert is_broken
    assert orjson.loads(lines[-1])["type"] == "error", lines
    assert not other.content.at_eof()
    published = await post(stage, "/api/v1/channel/news/publish", {"message": {"n": 1}}, "partner")
    assert published.status == 200, published.body
    async with asyncio.timeout(10):
        assert await other.content.readline()
    condemned.close()
    other.close()


async def read_out(answer: aiohttp.ClientResponse) -> tuple[list[bytes], bool]:
    """The lines that still come, and whether the body broke off."""
    lines: list[bytes] = []
    try:
        while line := await answer.content.readline():
            lines.append(line)
    except aiohttp.ClientPayloadError:
        return lines, True
    return lines, False

"""Creates of very many objects at once, by tenants who share an account: every one of them is owned."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis

from cbk_gateway.secret import Secret
from cbk_gateway.store import Store
from harness import KEYS, Stage, running, tenant
from integration.e2e_calls import get, post
from told_api import Asked, told

SHARED = {"account": "shared", "key": Secret(KEYS["acme"])}
BATCHES = {
    "/api/v1/bot/import": "bots that stand for themselves",
    "/api/v1/conversation/c1/message/batch/create": "messages of a conversation",
}
OWNERS = "cbkgw:{shared}:owners"


@asynccontextmanager
async def importing(folder: Path, store_url: str, **cache: int) -> AsyncIterator[Stage]:
    """Two isolated tenants before an API that makes as many objects as it is asked for."""

    async def answer(one: Asked) -> None:
        count = orjson.loads(one.body or b"{}").get("count", 0)
        await one.say(orjson.dumps({"items": [{"id": f"o{number}"} for number in range(count)]}))

    tenants = tuple(tenant(name, isolation="objects", **SHARED) for name in ("acme", "globex"))
    async with (
        told(answer) as api,
        running(folder, store_url, tenants=tenants, sandbox_url=api.url, cache=cache) as stage,
    ):
        await stage.gateway.parts.ownership.assign("shared", "acme", ["c1"])
        yield stage


async def calls_about_owners(store: Store, stage: Stage, path: str, count: int) -> int:
    """How often the store is asked about owners during a create of so many, by its own account.

    What its scripts do within it is no call.
    """
    asked = 0
    assert isinstance(store.client, Redis)
    async with store.client.monitor() as seen:
        said = await post(stage, path, {"count": count})
        assert said.status == 200, said.body
        await store.client.echo("that was it")
        while "that was it" not in (told_of := await seen.next_command())["command"]:
            asked += OWNERS in told_of["command"] and told_of["client_type"] != "lua"
    return asked


@pytest.mark.parametrize("path", BATCHES)
async def test_all_objects_of_a_batch_are_the_tenants_own(
    tmp_path: Path, valkey_url: str, store: Store, path: str
) -> None:
    async with importing(tmp_path, valkey_url) as stage:
        assert (await post(stage, path, {"count": 250})).status == 200
        owners = await store.client.hgetall(OWNERS)
        assert owners == {b"c1": b"acme", **{b"o%d" % number: b"acme" for number in range(250)}}
        for number in (0, 99, 100, 249):
            assert (await get(stage, f"/api/v1/bot/o{number}/fetch")).status == 200
            assert (await get(stage, f"/api/v1/bot/o{number}/fetch", "globex")).status == 404
            # Not even by name, in a body of its own.
            for who, status in (("acme", 200), ("globex", 404)):
                assert (
                    await post(stage, "/api/v1/bot/create", {"objectId": f"o{number}"}, who)
                ).status == status


@pytest.mark.parametrize(("count", "calls"), [(1, 1), (250, 1), (2500, 3)])
async def test_a_batch_is_claimed_in_few_calls(
    tmp_path: Path, valkey_url: str, store: Store, count: int, calls: int
) -> None:
    async with importing(tmp_path, valkey_url) as stage:
        # The first use of a script also loads it.
        assert (await post(stage, "/api/v1/bot/import", {"count": 1})).status == 200
        assert await calls_about_owners(store, stage, "/api/v1/bot/import", count) == calls
        assert await store.client.hlen(OWNERS) == count + 1


@pytest.mark.parametrize(
    ("count", "max_entry_bytes"), [(250, 1_000_000), (2500, 4096)], ids=["held", "passing"]
)
async def test_the_journal_says_how_many_objects_there_were_beside_those_it_names(
    tmp_path: Path, valkey_url: str, store: Store, count: int, max_entry_bytes: int
) -> None:
    """Also where they are more than are held on to, because the answer was too long to hold."""
    async with importing(tmp_path, valkey_url, max_entry_bytes=max_entry_bytes) as stage:
        assert (await post(stage, "/api/v1/bot/import", {"count": count})).status == 200
        assert await store.client.hlen(OWNERS) == count + 1
        await stage.gateway.stop()
        (outcome,) = [one for one in stage.journal() if one["kind"] == "outcome"]
        assert outcome["answer_ids"] == [f"o{number}" for number in range(16)]
        assert outcome["answer_ids_count"] == count


async def test_a_batch_with_one_object_of_another_tenant_is_not_told(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with importing(tmp_path, valkey_url) as stage:
        await stage.gateway.parts.ownership.assign("shared", "globex", ["o249"])
        said = await post(stage, "/api/v1/bot/import", {"count": 250})
        assert (said.status, said.code) == (404, "NOT_FOUND")

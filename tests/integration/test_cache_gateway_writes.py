"""For every write of the API, through a whole gateway: what it changes is fetched anew right after it, and
equals what the API says; what it has nothing to do with is still answered from the cache.

One gateway serves many writes, each in an account of its own, so that none sees what another left.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cbk_gateway.sandbox.work import DELAY_S
from cbk_gateway.secret import Secret
from cbk_gateway.store import Store
from harness import Stage, tenant
from integration import cache_gateway_writes as writes
from integration.e2e_calls import running_with

LONG = {"config_s": 600, "volatile_s": 600, "global_s": 600, "negative_s": 600}
POSTS = writes.described_posts()
BEYOND = (
    *("/openai/chat/completions", "/ability/{abilityId}/execute", "/ability/create"),
    *("/conversation/{conversationId}/initiate", "/bot/{botId}/realtime/websocket/create"),
    *("/bot/{botId}/frobnicate", "/novelty/{botId}/run", "/team/create", "/ability/{abilityId}/update"),
    *("/integration/skillserver/{skillserverIntegrationId}/invoke", "/rating/create"),
    *("/integration/trigger/{triggerIntegrationId}/event", "/space/{spaceId}/site/create"),
    *(
        "/contact/{contactId}/secret/{secretId}/mint",
        "/integration/widget/{widgetIntegrationId}/session/create",
    ),
)
ROUTES = (*POSTS, *BEYOND)
SHARDS = 8
PROMPT, EXAMPLE = "magic-title", "example-support"


def test_the_expectations_name_paths_that_there_are() -> None:
    named = {*writes.ALSO, *writes.PERHAPS, *writes.BODIES, *writes.ANYTHING, *writes.NOTHING}
    assert named <= {writes.bare(path) for path in ROUTES}
    assert len(POSTS) == 193


@dataclass
class Account:
    """One account with an object of every type, and its two doors: the gateway and the API itself."""

    stage: Stage
    session: aiohttp.ClientSession
    name: str
    key: str
    ids: dict[str, str]
    token: str

    @classmethod
    def furnished(cls, stage: Stage, session: aiohttp.ClientSession, name: str, key: str) -> Account:
        return cls(stage, session, name, key, furnish(stage, name), stage.token(name))

    def target(self, template: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: self.ids[found[1]], template)

    async def get(self, read: str) -> Seen:
        """A read through the gateway."""
        url = f"{self.stage.url}/api/v1/{self.target(read)}"
        async with self.session.get(url, headers={"Authorization": f"Bearer {self.token}"}) as answer:
            said = answer.headers.get("Cache-Status", "")
            return Seen("; hit" in said, said, answer.status, orjson.loads(await answer.read()))

    async def get_directly(self, read: str) -> Seen:
        """The same read, of the API itself."""
        url = f"{self.stage.sandbox.url}/api/v1/{self.target(read)}"
        async with self.session.get(url, headers={"Authorization": f"Bearer {self.key}"}) as answer:
            return Seen(False, "", answer.status, orjson.loads(await answer.read()))

    async def post(self, path: str, body: Any) -> int:
        """A write through the gateway, read to its end; of an endless stream only the beginning."""
        url = f"{self.stage.url}/api/v1{self.target(path)}"
        headers = {"Authorization": f"Bearer {self.token}"}
        if path.endswith("/subscribe"):
            headers["Accept"] = "application/jsonl"
        async with self.session.post(url, json=body, headers=headers) as answer:
            if not path.endswith("/subscribe"):
                await answer.read()
            return answer.status


@dataclass(frozen=True)
class Seen:
    """What a read gave."""

    is_hit: bool
    said: str
    status: int
    document: Any

    @property
    def content(self) -> object:
        """What has to be equal whoever answered; a refusal through the gateway names itself twice."""
        return self.document if self.status == 200 else (self.status, self.document["code"])


def furnish(stage: Stage, owner: str) -> dict[str, str]:
    """Give an account one object of every type, each naming the others; returns ids by path parameter."""
    store = stage.sandbox.world.store

    def add(kind: str, parent: str | None = None, **values: object) -> str:
        return store.add(owner, kind, {"name": kind, **values}, parent=parent).id

    ids = {"promptId": PROMPT, "exampleId": EXAMPLE, "reportId": "usage", "channelId": "channel"}
    ids["path"] = "kept.txt"
    ids["blueprintId"] = blueprint = add("blueprint")
    ids["datasetId"] = dataset = add("dataset", blueprintId=blueprint)
    ids["recordId"] = add("dataset/record", dataset, text="A text")
    ids["skillsetId"] = skillset = add("skillset", blueprintId=blueprint)
    ids["fileId"] = file = add("file", blueprintId=blueprint)
    ids["secretId"] = secret = add("secret", type="plain")
    ids["botId"] = bot = add("bot", blueprintId=blueprint, datasetId=dataset, skillsetId=skillset)
    ids["contactId"] = contact = add("contact", fingerprint="first")
    ids["spaceId"] = space = add("space", contactId=contact)
    add("space/site", space)
    ids["abilityId"] = add(
        "ability",
        skillsetId=skillset,
        secretId=secret,
        fileId=file,
        botId=bot,
        spaceId=space,
        linkedBotId=bot,
    )
    ids["taskId"] = task = add("task", contactId=contact, botId=bot, status="idle")
    links = {"contactId": contact, "botId": bot}
    ids["conversationId"] = conversation = add(
        "conversation", taskId=task, spaceId=space, datasetId=dataset, skillsetId=skillset, **links
    )
    ids["messageId"] = message = add("conversation/message", conversation, type="user", text="Hello")
    ids["taskExecutionId"] = add("task/execution", task, conversationId=conversation, status="running")
    ids["memoryId"] = add("memory", text="A memory", **links)
    ids["policyId"] = add("policy", type="retention", botId=bot)
    ids["portalId"] = add("portal")
    add("rating", conversationId=conversation, messageId=message, value=1, **links)
    add("team")
    ids["userId"] = user = add("partner/user", email=f"{owner}@example.com")
    ids["contextId"] = add("partner/user/context", user, datasetId=dataset, skillsetId=skillset, **links)
    ids["tokenId"] = add("partner/user/token", user)
    for param in sorted({one for path in ROUTES for one in re.findall(r"\{(\w+IntegrationId)\}", path)}):
        kind = param.removesuffix("IntegrationId")
        ids[param] = add(f"integration/{kind}", botId=bot, datasetId=dataset, skillsetId=skillset)
    item = {"conversationId": conversation, "data": {}}
    add("integration/extract/item", ids["extractIntegrationId"], **item)
    return ids


@asynccontextmanager
async def accounts(folder: Path, store_url: str, count: int) -> AsyncIterator[list[Account]]:
    """A gateway in front of a sandbox with that many furnished accounts."""
    keys = {f"sk-writes-{number}-{'0' * 40}": f"account-{number}" for number in range(count)}
    tenants = tuple(
        tenant("acme", id=account, account=account, key=Secret(key)) for key, account in keys.items()
    )
    async with (
        running_with(folder, store_url, {}, tenants=tenants, keys=keys, cache=LONG) as stage,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
    ):
        yield [Account.furnished(stage, session, account, key) for key, account in keys.items()]


def reads_of(kinds: set[str]) -> list[str]:
    return sorted({read for kind in kinds for read in writes.READS[kind]})


async def warmed(account: Account, path: str) -> list[str]:
    """Ask for all that the write is to be held against, until the cache has it; returns what it has not."""
    changed = reads_of(writes.changed_reads(path))
    for read in {*changed, *writes.untouched(path)}:
        await account.get(read)
    return [f"{path}: {read} is not kept" for read in changed if not (await account.get(read)).is_hit]


async def settled(stage: Stage) -> None:
    """Wait for the work that the API does after its answers."""
    async with asyncio.timeout(30):
        while stage.sandbox.world.tasks:
            await asyncio.sleep(DELAY_S / 5)


async def flaws(account: Account, path: str) -> list[str]:
    """What the cache holds or drops wrongly after the write."""
    found = []
    for read in writes.untouched(path):
        seen = await account.get(read)
        if not seen.is_hit:
            found.append(f"{path} drops {read}: {seen.said}")
    log = account.stage.sandbox.log
    for read in reads_of(writes.changed_reads(path)):
        log.clear()
        seen = await account.get(read)
        asked = [f"{one.path.removeprefix('/api/v1/')}?{one.query}".rstrip("?") for one in log.records()]
        if seen.is_hit or account.target(read) not in asked:
            found.append(f"{path} leaves {read}: {seen.said}, {asked}")
        direct = await account.get_directly(read)
        if seen.content != direct.content:
            found.append(f"{path}, {read}: {seen.content} instead of {direct.content}")
    return found


REFUSED = {
    "/bot/{}/frobnicate": 404,
    "/novelty/{}/run": 404,
    "/space/{}/storage/copy/{}": 404,
    "/space/{}/storage/delete/{}": 404,
    "/space/{}/storage/move/{}": 404,
}
"""Writes that the sandbox cannot carry out for an account furnished like these, and its status."""


@pytest.mark.parametrize("shard", range(SHARDS))
async def test_right_after_a_write_what_it_changes_is_fresh_and_the_rest_still_kept(
    tmp_path: Path, valkey_url: str, store: Store, shard: int
) -> None:
    chosen = ROUTES[shard::SHARDS]
    found: list[str] = []
    async with accounts(tmp_path, valkey_url, len(chosen)) as those:
        for account, path in zip(those, chosen, strict=True):
            found += await warmed(account, path)
            status = await account.post(path, writes.BODIES.get(writes.bare(path), {}))
            expected = REFUSED.get(writes.bare(path), 200)
            if status != expected:
                found.append(f"{path} answers {status}, not {expected}")
            await settled(account.stage)
            found += await flaws(account, path)
    assert not found, "\n".join(found)


REFUSED_BODIES = [
    *(f"/{kind}/create" for kind in ("bot", "dataset", "memory", "policy", "task")),
    "/bot/{botId}/update",
    "/contact/{contactId}/update",
    "/conversation/{conversationId}/message/{messageId}/update",
    "/dataset/{datasetId}/record/{recordId}/update",
    "/skillset/{skillsetId}/ability/{abilityId}/update",
    "/conversation/{conversationId}/complete",
]


async def test_a_write_that_is_refused_makes_old_what_it_could_have_changed(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    """What became of a refused write is not for the cache to guess."""
    found: list[str] = []
    async with accounts(tmp_path, valkey_url, len(REFUSED_BODIES)) as those:
        for account, path in zip(those, REFUSED_BODIES, strict=True):
            found += await warmed(account, path)
            assert await account.post(path, {"name": 1, "text": 1}) == 400, path
            found += await flaws(account, path)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("kind", ["bot", "dataset", "skillset", "portal", "space"])
async def test_what_was_missing_is_found_as_soon_as_it_was_made(
    tmp_path: Path, valkey_url: str, store: Store, kind: str
) -> None:
    async with accounts(tmp_path, valkey_url, 1) as (account,):
        first, second = [await account.get(f"{kind}/@made/fetch") for _ in range(2)]
        assert (first.status, second.status, second.is_hit) == (404, 404, True)
        assert await account.post(f"/{kind}/create", {"name": "Made", "alias": "made"}) == 200
        found = await account.get(f"{kind}/@made/fetch")
        assert (found.status, found.document["name"]) == (200, "Made")

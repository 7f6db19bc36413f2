"""For every write of the API: what it makes old is old right after it, and nothing else is.

The expectations are written down here from the description of the API's side effects, not taken from the
table under test. A write under `ANYTHING` may change any type. Types that are never kept are left out.
"""

from __future__ import annotations

import asyncio

import pytest

from cbk_gateway.cache import Cache, CacheKeyParts, CacheOptions, Fill
from cbk_gateway.operation import Effect, Operation, Route, routes, understand
from cbk_gateway.store import Store

PARTS = CacheKeyParts("acme", "key", None, "", "")
HEADERS = (("Content-Type", "application/json"),)
BODY = b'{"id":"x","items":[]}'
ANYTHING = "anything"

ALIASES = {
    "ability": "skillset/ability",
    "user": "partner/user",
    "user/context": "partner/user/context",
}

# What a view shows beside its own type; a parent in the path counts too.
SHOWS = {
    "contact/conversation": {"conversation"},
    "contact/memory": {"memory"},
    "contact/rating": {"rating"},
    "contact/space": {"space"},
    "contact/task": {"task"},
    "dataset/file": {"file"},
}

# Beyond the type itself.
ALSO = {
    "bot:delete": {
        *("memory", "policy", "conversation", "task", "rating", "partner/user/context", "skillset/ability"),
        *("integration/email", "integration/extract", "integration/sitemap", "integration/support"),
        "integration/widget",
    },
    "dataset:delete": {
        *("dataset/record", "dataset/file", "bot", "conversation", "partner/user/context"),
        "integration/sitemap",
    },
    "skillset:delete": {"bot", "conversation", "partner/user/context", "skillset/ability"},
    "file:delete": {"dataset/file", "integration/widget", "integration/widget/file", "skillset/ability"},
    "secret:delete": {"skillset/ability"},
    "contact:delete": {"task", "memory", "partner/user/context", "conversation", "space", "rating"},
    "conversation:delete": {
        *("conversation/message", "integration/extract/item", "rating", "task/execution"),
    },
    "conversation/message:delete": {"rating", "task/execution"},
    "task:delete": {"task/execution", "conversation"},
    "task:cancel": {"task/execution", "conversation"},
    "task/execution:cancel": {"task", "conversation"},
    "space:delete": {"space/site", "conversation", "skillset/ability"},
    "integration/extract:delete": {"integration/extract/item"},
    "dataset/file:detach": {"dataset/record"},
    "dataset/file:sync": {"dataset/record"},
    "file:sync": {"dataset/record"},
    "file:upload": {"dataset/file"},
    "integration/sitemap:sync": {"dataset/record"},
    "integration/notion:sync": {"dataset/record"},
    "conversation:create": {"contact"},
    "conversation/contact:upsert": {"contact", "conversation"},
    "conversation/message:upvote": {"rating"},
    "conversation/message:downvote": {"rating"},
    "bot/session:create": {"conversation", "contact"},
    "integration/widget/session:create": {"conversation", "contact"},
    "conversation/message/batch:create": {"conversation/message"},
}

CHANGES_ANYTHING = {
    *("blueprint:clone", "blueprint:delete", "blueprint/resource:import", "platform/example:clone"),
    *("partner/user:delete", "user:delete", "partner/user/token:delete", "user/token:delete"),
    *("conversation:complete", "conversation:compact", "conversation:dispatch", "conversation:send"),
    *("conversation:receive", "conversation:initiate", "conversation:apply"),
    *("skillset/ability:execute", "ability:execute", "openai/chat/completions:create", "graphql:execute"),
    *("task:trigger", "integration/extract:trigger", "integration/support:trigger"),
    *("integration/email:initiate", "integration/slack:initiate", "integration/twilio:initiate"),
    *("integration/trigger:invoke", "integration/trigger:event", "integration/skillserver:invoke"),
    *("bot/realtime/websocket:create", "conversation/realtime/websocket:create"),
}


def of_one_set(resource: str) -> str:
    return ALIASES.get(resource, resource)


def path_of(route: Route) -> str:
    parts = [
        f"x{number}" if part.startswith("{") else part
        for number, part in enumerate(route.template.split("/"))
    ]
    return "/v1" + "/".join(parts)


WRITES = [route for route in routes() if route.effect is Effect.WRITE and route.template]
READS = [
    understand("GET", path_of(route))
    for route in routes()
    if "GET" in route.methods and understand("GET", path_of(route)).is_cacheable
]


def must_change(route: Route, read: Operation) -> bool:
    """Whether the description says that this write changes what this read answers."""
    name = f"{route.resource}:{route.action}"
    if name in CHANGES_ANYTHING:
        return True
    own = of_one_set(route.resource)
    changed = {own} | ALSO.get(f"{own}:{route.action}", set())
    if read.resource == "rating" and route.action in {"upvote", "downvote"}:
        return True
    return bool(changed & {of_one_set(read.resource), *SHOWS.get(read.resource, set())})


def test_the_table_names_no_read_of_a_platform_type_in_any_ordinary_write() -> None:
    assert len(READS) > 60
    assert len(WRITES) > 120


@pytest.mark.parametrize("shard", range(4))
async def test_every_write_makes_old_what_it_changes(store: Store, shard: int) -> None:
    """One gateway, every write in turn: whatever may have changed is fetched anew, and bystanders are not."""
    cache = Cache(store, CacheOptions(volatile_ttl_s=600, config_ttl_s=600))
    await cache.start()
    async with asyncio.timeout(10):
        while not cache.is_live:
            await asyncio.sleep(0.005)
    missed: list[str] = []
    for route in WRITES[shard::4]:
        for read in READS:
            if cache.recall_now(read, PARTS) is None:
                fill = await cache.recall(read, PARTS)
                assert isinstance(fill, Fill), (route.template, read.path, fill)
                await fill.store(200, HEADERS, BODY)
        mark = await cache.begin_write("acme", route.invalidates, is_open_ended=route.runs_model)
        await mark.finish()
        kept = {read.path for read in READS if cache.recall_now(read, PARTS) is not None}
        missed += [
            f"{route.template} leaves {read.path}"
            for read in READS
            if must_change(route, read) and read.path in kept
        ]
        if f"{route.resource}:{route.action}" not in CHANGES_ANYTHING:
            missed += [
                f"{route.template} drops {path}"
                for path in BYSTANDERS
                if path not in kept and not path.startswith(f"/{route.resource}/")
            ]
    await cache.stop()
    assert missed == []


BYSTANDERS = ("/portal/list", "/platform/model/list", "/team/list")
"""Kept through every write but their own and those that may change anything."""

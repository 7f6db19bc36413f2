"""The cache as clients and operators meet it: who may pass it by, what confirms, what makes it forget."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from harness import Stage
from integration.e2e_calls import arrived, change, get, look, made, names, post

LIST = "/api/v1/bot/list"


async def warmed(stage: Stage, headers: dict[str, str], path: str = LIST) -> None:
    """Make an answer be remembered; on a machine that stalls the loop it may take a second try."""
    async with asyncio.timeout(20):
        while not (await get(stage, path, headers)).is_hit:
            await asyncio.sleep(0)


async def test_a_known_tag_is_confirmed_without_a_body(stage: Stage) -> None:
    headers = stage.bearer()
    await made(stage, "bot", "Ada", headers)
    said = await get(stage, LIST, headers)
    tag = said.headers["ETag"]
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await get(stage, LIST, headers, If_None_Match=given)
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
        assert again.is_hit
    assert (await get(stage, LIST, headers, If_None_Match='"other"')).status == 200
    await made(stage, "bot", "Bea", headers)
    changed = await get(stage, LIST, headers, If_None_Match=tag)
    assert (changed.status, len(changed.json["items"])) == (200, 2)
    assert changed.headers["ETag"] != tag


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/v1/bot/list", r"cbk-gateway; (fwd=miss; fwd-status=200; ttl=\d+; stored|hit; ttl=\d+)"),
        (
            "/api/v1/bot/nobody/fetch",
            r"cbk-gateway; (fwd=miss; fwd-status=404; ttl=\d+; stored|hit; ttl=\d+)",
        ),
        ("/api/v1/secret/list", r"cbk-gateway; fwd=bypass; detail=not-cacheable"),
        ("/api/v1/usage/fetch", r"cbk-gateway; fwd=bypass; detail=not-cacheable"),
        ("/api/v1/file/f1/download", r"cbk-gateway; fwd=bypass; detail=not-cacheable"),
    ],
)
async def test_every_get_says_what_the_cache_did(stage: Stage, path: str, said: str) -> None:
    headers = stage.bearer()
    # Three times: the shorter ways of repeated requests say it too.
    for _ in range(3):
        assert re.fullmatch(said, (await get(stage, path, headers)).cache)


async def test_only_a_tenant_that_may_passes_the_cache_by(stage: Stage) -> None:
    for name, is_obeyed in (("acme", True), ("partner", False)):
        headers = stage.bearer(name)
        await warmed(stage, headers)
        before = len(arrived(stage))
        said = await get(stage, LIST, headers, X_CBK_Cache="bypass")
        assert (len(arrived(stage)) > before) is is_obeyed
        assert said.is_hit is not is_obeyed
        assert "x-cbk-cache" not in arrived(stage)[-1].headers


@pytest.mark.parametrize(
    "asked", [{"Cache_Control": "max-age=0"}, {"Cache_Control": "no-cache"}, {"Pragma": "no-cache"}]
)
async def test_what_clients_send_of_their_own_accord_is_not_obeyed(
    stage: Stage, asked: dict[str, str]
) -> None:
    """The official Node SDK sends max-age=0 with every call: obeyed, the cache would never hit."""
    headers = stage.bearer()
    await warmed(stage, headers)
    assert (await get(stage, LIST, headers, **asked)).is_hit


@pytest.mark.parametrize("accept", ["application/jsonl", "text/event-stream", "text/csv"])
async def test_a_walk_over_the_whole_collection_is_not_remembered(stage: Stage, accept: str) -> None:
    headers = stage.bearer()
    for number in range(3):
        await made(stage, "bot", f"b{number}", headers)
    before = len(arrived(stage))
    for _ in range(2):
        said = await get(stage, LIST, headers, Accept=accept)
        assert said.status == 200
        assert not said.is_hit
        assert b"b2" in said.body
    assert len(arrived(stage)) == before + 2


MAGIC = {"messages": [{"type": "user", "text": "!create bot Made-by-a-model"}]}


@pytest.mark.parametrize("accept", ["application/json", "application/jsonl", "text/event-stream"])
async def test_what_a_model_makes_at_the_end_of_its_run_is_seen_right_after_it(
    stage: Stage, accept: str
) -> None:
    headers = stage.bearer()
    for path in (LIST, "/api/v1/dataset/list"):
        await warmed(stage, headers, path)
    said = await post(stage, "/api/v1/conversation/complete", MAGIC, headers, Accept=accept)
    assert said.status == 200
    assert "Made-by-a-model" in await names(stage, who=headers)
    assert not (await get(stage, "/api/v1/dataset/list", headers)).is_hit


GRAPH: list[tuple[dict[str, Any], bool]] = [
    ({"query": "{ bots(first: 1) { edges { node { id } } } }"}, False),
    ({"query": "query A { __typename }"}, False),
    ({"query": "query A { __typename } mutation B { __typename }", "operationName": "A"}, False),
    ({"query": "query A { __typename } mutation B { __typename }", "operationName": "B"}, True),
    ({"query": "mutation { __typename }"}, True),
    ({"query": "# query\nmutation { __typename }"}, True),
    ({"query": "this is no document"}, True),
]


@pytest.mark.parametrize(("body", "forgets"), GRAPH)
async def test_a_graph_query_changes_nothing_and_whatever_may_be_more_changes_all(
    stage: Stage, body: dict[str, Any], forgets: bool
) -> None:
    headers = stage.bearer()
    kept: list[bool] = []
    # The first document loads its parser; a stall of the loop makes the cache forget, to be sure.
    for _ in range(3):
        await warmed(stage, headers)
        said = await post(stage, "/api/v1/graphql", body, headers)
        assert said.status in {200, 400}, said.body
        assert not said.is_hit
        kept.append((await get(stage, LIST, headers)).is_hit)
    assert any(kept) is not forgets
    intents = [one for one in stage.journal() if one["kind"] == "intent"]
    assert len(intents) == (3 if forgets else 0)


async def test_a_deleted_child_account_takes_everything_cached_with_it(stage: Stage) -> None:
    parent, child = stage.bearer("partner"), stage.bearer("partner-one")
    as_child = {**parent, "X-RunAs-User-ID": "user_child1"}
    await made(stage, "bot", "of the child", child)
    for headers in (parent, child):
        await warmed(stage, headers)
    assert (await post(stage, "/api/v1/partner/user/user_child1/delete", {}, parent)).status == 200
    assert not (await get(stage, LIST, parent)).is_hit
    # Which account a child of the client's choice is, the gateway cannot know: never kept.
    assert not (await get(stage, LIST, as_child)).is_hit
    said = await get(stage, LIST, child)
    assert not said.is_hit
    assert b"of the child" not in said.body


async def test_operators_see_what_is_kept_and_make_it_forgotten(stage: Stage) -> None:
    headers = stage.bearer()
    bot = await made(stage, "bot", "Ada", headers)
    fetch, datasets = f"/api/v1/bot/{bot}/fetch", "/api/v1/dataset/list"
    for path in (LIST, fetch, datasets):
        await warmed(stage, headers, path)

    async def shown(query: str = "") -> list[str]:
        said = await look(stage, f"/admin/cache?account=acme-account{query}")
        return sorted(one["label"].partition(" ")[0] for one in said.json["items"])

    assert await shown() == ["bot", "bot", "dataset"]
    assert await shown("&type=dataset") == ["dataset"]
    assert await shown(f"&id={bot}") == ["bot", "bot"], "the list holds it too"
    assert await shown(f"&type=dataset&id={bot}") == []
    assert await shown("&id=nothing") == await shown("&type=bo") == []
    assert (await look(stage, "/admin/cache?account=partner-account")).json == {"items": []}

    other = await made(stage, "bot", "Bob", headers)
    fetch_other, filtered = f"/api/v1/bot/{other}/fetch", "/api/v1/bot/list?blueprintId=nobodys"
    for path in (LIST, fetch, fetch_other, filtered, datasets):
        await warmed(stage, headers, path)
    purge = {"account": "acme-account", "types": ["bot"], "id": bot}
    purged = await change(stage, "/admin/cache/purge", purge)
    assert (purged.status, purged.json["dropped"]) == (200, 2)
    kept = [
        (await get(stage, path, headers)).is_hit for path in (LIST, fetch, fetch_other, filtered, datasets)
    ]
    assert kept == [False, False, True, True, True], "what does not speak of it stays"

    for path in (LIST, fetch):
        await warmed(stage, headers, path)
    assert (
        await change(stage, "/admin/cache/purge", {"account": "acme-account", "types": ["bot"]})
    ).status == 200
    assert [(await get(stage, path, headers)).is_hit for path in (LIST, fetch, datasets)] == [
        False,
        False,
        True,
    ]
    assert (await change(stage, "/admin/cache/purge", {"account": "acme-account"})).status == 200
    assert [(await get(stage, path, headers)).is_hit for path in (LIST, fetch, datasets)] == [False] * 3


@pytest.mark.parametrize(
    ("asked", "path"), [("ability", "/api/v1/ability/list"), ("user", "/api/v1/user/list")]
)
async def test_a_type_of_two_names_is_purged_under_either(stage: Stage, asked: str, path: str) -> None:
    headers = stage.bearer()
    await warmed(stage, headers, path)
    await change(stage, "/admin/cache/purge", {"account": "acme-account", "types": [asked]})
    assert not (await get(stage, path, headers)).is_hit


async def test_a_purge_of_one_account_leaves_the_others(stage: Stage) -> None:
    acme, partner = stage.bearer(), stage.bearer("partner")
    for headers in (acme, partner):
        await warmed(stage, headers)
    await change(stage, "/admin/cache/purge", {"account": "partner-account"})
    assert (await get(stage, LIST, acme)).is_hit
    assert not (await get(stage, LIST, partner)).is_hit

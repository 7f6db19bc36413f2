"""Two tenants on one upstream account: what each may see of the other, in both modes, cached or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cbk_gateway.secret import Secret
from cbk_gateway.store import Store
from harness import KEYS, Stage, running, tenant
from integration.e2e_calls import arrived, get, made, names, post

SHARED = {"account": "shared", "key": Secret(KEYS["acme"])}
LIST = "/api/v1/bot/list"


@pytest.fixture
async def shared(tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[Stage]:
    """Two isolated tenants, one that only reports, and one that is not looked at, on one account."""
    tenants = (
        tenant("acme", isolation="objects", **SHARED),
        tenant("globex", isolation="objects", **SHARED),
        tenant("mallory", isolation="report", **SHARED),
        tenant("partner", **SHARED),
    )
    async with running(tmp_path, valkey_url, tenants=tenants) as stage:
        yield stage


async def test_what_a_tenant_made_it_can_use_at_once(shared: Stage) -> None:
    bot = await made(shared, "bot", "Ada")
    assert (await get(shared, f"/api/v1/bot/{bot}/fetch")).json["name"] == "Ada"
    assert (await post(shared, f"/api/v1/bot/{bot}/update", {"name": "Bea"})).status == 200
    assert await names(shared) == {"Bea"}
    assert (await post(shared, f"/api/v1/bot/{bot}/delete")).status == 200
    assert (await get(shared, f"/api/v1/bot/{bot}/fetch")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/bot/{id}/fetch", None),
        ("POST", "/api/v1/bot/{id}/update", {"name": "mine"}),
        ("POST", "/api/v1/bot/{id}/delete", {}),
        ("GET", "/api/v1/conversation/list?botId={id}", None),
        ("POST", "/api/v1/conversation/create", {"botId": "{id}"}),
        ("GET", "/v1/bot/{id}/fetch", None),
    ],
)
async def test_a_foreign_object_is_not_there_even_when_its_answer_is_cached(
    shared: Stage, method: str, path: str, body: dict[str, str] | None
) -> None:
    bot = await made(shared, "bot", "Ada")
    fetch = f"/api/v1/bot/{bot}/fetch"
    await get(shared, fetch)
    assert (await get(shared, fetch)).is_hit
    seen = len(arrived(shared))
    if body is None:
        said = await get(shared, path.replace("{id}", bot), "globex")
    else:
        given = {name: value.replace("{id}", bot) for name, value in body.items()}
        said = await post(shared, path.replace("{id}", bot), given, "globex")
    assert (said.status, said.code) == (404, "NOT_FOUND")
    assert b"Ada" not in said.body
    assert len(arrived(shared)) == seen
    assert (await get(shared, fetch)).json["name"] == "Ada"


async def test_lists_hold_ones_own_also_when_they_come_from_the_cache(shared: Stage) -> None:
    await made(shared, "bot", "of acme", "acme")
    await made(shared, "bot", "of globex", "globex")
    await made(shared, "bot", "of nobody known", "partner")
    for _ in range(2):
        assert await names(shared, who="acme") == {"of acme"}
        assert await names(shared, who="globex") == {"of globex"}
    said = await get(shared, LIST, "globex")
    assert said.is_hit
    assert [item["name"] for item in said.json["items"]] == ["of globex"]
    assert len([one for one in arrived(shared) if one.method == "GET"]) == 1


async def test_a_filtered_list_has_no_tag_that_could_confirm_anothers(shared: Stage) -> None:
    await made(shared, "bot", "of acme", "acme")
    whole = await get(shared, LIST, "partner")
    tag = whole.headers["ETag"]
    said = await get(shared, LIST, "globex", If_None_Match=tag)
    assert (said.status, said.json["items"]) == (200, [])
    assert "ETag" not in said.headers


async def test_json_lines_are_filtered_too(shared: Stage) -> None:
    await made(shared, "bot", "of acme", "acme")
    await made(shared, "bot", "of globex", "globex")
    said = await get(shared, LIST, "globex", Accept="application/jsonl")
    assert said.status == 200
    assert b"of globex" in said.body
    assert b"of acme" not in said.body


async def test_what_shows_the_whole_account_is_closed(shared: Stage) -> None:
    for path in ("/api/v1/event/log/list", "/api/v1/usage/fetch", "/api/v1/partner/user/list"):
        assert (await get(shared, path)).status == 403
    assert (await post(shared, "/api/v1/graphql", {"query": "{ bots { id } }"})).status == 403
    assert arrived(shared) == []


async def test_report_refuses_nothing_and_counts_what_would_have_been_refused(shared: Stage) -> None:
    bot = await made(shared, "bot", "Ada", "acme")
    assert (await get(shared, f"/api/v1/bot/{bot}/fetch", "mallory")).status == 200
    assert await names(shared, who="mallory") == {"Ada"}
    body, _ = shared.gateway.parts.metrics.exposition("")
    counted = [
        line
        for line in body.decode().splitlines()
        if "foreign" in line and 'tenant="mallory"' in line and not line.endswith(" 0.0")
    ]
    assert counted

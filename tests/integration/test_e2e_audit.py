"""The journal of a whole run, read back by operators; and what happens while it cannot be written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.store import Store
from harness import Stage, running, tenant
from integration.e2e_calls import all_closed, arrived, get, look, made, post, without_journal


async def test_without_its_directory_no_write_is_sent_and_reads_go_on(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    tenants = (tenant("acme"), tenant("globex", audit_on_failure="allow"), tenant("partner"))
    audit = {"deadline_ms": 300}
    async with running(tmp_path, valkey_url, tenants=tenants, audit=audit) as stage:
        bot = await made(stage, "bot", "before")
        with without_journal(stage):
            before = len(arrived(stage))
            for path in (
                "bot/create",
                f"bot/{bot}/delete",
                "conversation/complete",
                "graphql",
                "unknown/thing",
            ):
                said = await post(stage, f"/api/v1/{path}", {"name": "x"})
                assert (said.status, said.code) == (503, "AUDIT_UNAVAILABLE"), path
            assert len(arrived(stage)) == before
            assert (await get(stage, f"/api/v1/bot/{bot}/fetch")).status == 200
            assert (await post(stage, "/api/v1/dataset/none/search", {"search": "x"})).status != 503
            assert (await post(stage, "/api/v1/bot/create", {"name": "x"}, "globex")).status == 200
            assert (await look(stage, "/readyz")).json["checks"]["journal"] == "failing"
        await until_ready(stage)
        assert (await post(stage, "/api/v1/bot/create", {"name": "after"})).status == 200


async def until_ready(stage: Stage) -> None:
    """Wait until the journal has noticed that its disk is well."""
    async with asyncio.timeout(20):
        while (await look(stage, "/readyz")).json["checks"]["journal"] != "ok":
            await asyncio.sleep(0.05)


async def test_a_write_is_told_as_one_story_with_everything_it_was(stage: Stage) -> None:
    said = await post(
        stage, "/api/v1/bot/create", {"name": "Ada"}, User_Agent="tests/1", X_Request_Id="story-1"
    )
    identifier = said.headers["X-Request-Id"]
    await all_closed(stage)
    (story,) = (await look(stage, f"/admin/audit/{identifier}")).json["items"]
    intent, outcome = story["intent"], story["outcome"]
    assert (intent["tenant"], intent["subject"], intent["operation"]) == ("acme", "tester", "bot.create")
    assert intent["request_id"] == outcome["request_id"] == identifier
    assert (outcome["result"], outcome["status"], outcome["answer_ids"]) == (
        "answered",
        200,
        [said.json["id"]],
    )
    assert intent["seq"] < outcome["seq"]
    assert "tests/1" in str(intent)
    assert story["others"] == []


async def test_a_refused_write_has_a_story_too(stage: Stage) -> None:
    said = await post(stage, "/api/v1/bot/create", {"name": "x"}, "globex")
    assert said.status == 403
    path = f"/admin/audit/{said.headers['X-Request-Id']}"
    items = await until_told(stage, path)
    (other,) = items[0]["others"]
    assert (items[0]["intent"], other["kind"], other["status"], other["tenant"]) == (
        None,
        "refused",
        403,
        "globex",
    )


async def until_told(stage: Stage, path: str) -> list[dict[str, Any]]:
    """Refusals are noted, not waited for: look until it is there."""
    async with asyncio.timeout(10):
        while (said := await look(stage, path)).status == 404:
            await asyncio.sleep(0.02)
    items: list[dict[str, Any]] = said.json["items"]
    return items


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("tenant=partner", {"partner"}),
        ("tenant=nobody", set()),
        ("resource=bot&result=answered", {"acme", "partner"}),
        ("resource=dataset", {"acme"}),
        ("since=2999", set()),
        ("until=2020", set()),
        ("subject=tester&action=create", {"acme", "partner"}),
        ("text=not-in-any-record", set()),
    ],
)
async def test_records_are_found_by_what_is_asked(stage: Stage, query: str, wanted: set[str]) -> None:
    for kind, name in (("bot", "acme"), ("bot", "partner"), ("dataset", "acme")):
        await made(stage, kind, "x", name)
    await all_closed(stage)
    said = await look(stage, f"/admin/audit?{query}")
    assert {one["tenant"] for one in said.json["items"]} == wanted


async def test_pages_walk_the_whole_journal_newest_first_and_once(stage: Stage) -> None:
    headers = stage.bearer()
    ids = [await made(stage, "bot", f"b{number}", headers) for number in range(7)]
    await all_closed(stage)
    seen: list[str] = []
    query = "/admin/audit?result=answered&limit=3"
    cursor = ""
    while True:
        page = (await look(stage, query + (f"&cursor={cursor}" if cursor else ""))).json
        assert len(page["items"]) <= 3
        seen += [one["answer_ids"][0] for one in page["items"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]


async def test_an_object_is_found_by_its_id_from_birth_to_death(stage: Stage) -> None:
    headers = stage.bearer()
    bot = await made(stage, "bot", "Ada", headers)
    await post(stage, f"/api/v1/bot/{bot}/update", {"name": "Bea"}, headers)
    await post(stage, f"/api/v1/bot/{bot}/delete", {}, headers)
    await all_closed(stage)
    said = await look(stage, f"/admin/audit?object_id={bot}&result=answered")
    assert [one["operation"] for one in said.json["items"]] == ["bot.delete", "bot.update", "bot.create"]

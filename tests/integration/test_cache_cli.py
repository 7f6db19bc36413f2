"""`cbk-gateway cache`, as a real process beside a running gateway: by account, by type, by id."""

from __future__ import annotations

import asyncio

import pytest

from harness import Stage
from integration.e2e_calls import admin_records, command, get, made

LIST = "/api/v1/bot/list"


@pytest.fixture
async def paths(stage: Stage) -> list[str]:
    """Reads that are kept: a bot's, another's, the list of both, and one that has to do with neither."""
    headers = stage.bearer()
    one, other = [await made(stage, "bot", name, headers) for name in ("One", "Other")]
    found = [f"/api/v1/bot/{one}/fetch", f"/api/v1/bot/{other}/fetch", LIST, "/api/v1/dataset/list"]
    async with asyncio.timeout(30):
        while not all([(await get(stage, path, headers)).is_hit for path in found]):
            await asyncio.sleep(0.01)
    return found


async def test_answers_are_shown_and_purged_by_id(stage: Stage, paths: list[str]) -> None:
    one = paths[0].split("/")[-2]
    shown = await command(stage, "cache", "show", "acme-account", "--type", "bot", "--id", one)
    labels = {item["label"].partition("?")[0] for item in shown.json["items"]}
    assert labels == {f"bot /bot/{one}/fetch", "bot /bot/list"}
    purged = await command(stage, "cache", "purge", "acme-account", "--type", "bot", "--id", one)
    assert (purged.code, purged.json["dropped"]) == (0, 2)
    headers = stage.bearer()
    assert [(await get(stage, path, headers)).is_hit for path in paths] == [False, True, False, True]
    (record,) = [record for record in admin_records(stage) if record["change"] == "cache.purge"]
    assert (record["account"], record["types"], record["id"]) == ("acme-account", ["bot"], one)


async def test_a_type_that_there_is_not_is_refused_and_purges_nothing(stage: Stage, paths: list[str]) -> None:
    ran = await command(stage, "cache", "purge", "acme-account", "--type", "bto", "--id", "x")
    assert ran.code != 0
    assert "types" in ran.err
    headers = stage.bearer()
    assert all([(await get(stage, path, headers)).is_hit for path in paths])

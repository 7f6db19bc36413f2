"""The generic pattern over HTTP, for every type of the table and for types nobody heard of."""

from __future__ import annotations

from typing import Any

import pytest

from cbk_gateway.sandbox.resources import CRUD_ACTIONS, RESOURCES

from .conftest import Api

TOP_LEVEL = [
    name
    for name, resource in RESOURCES.items()
    if resource.actions >= CRUD_ACTIONS and (name.count("/") == 0 or name.startswith("integration/"))
]
REQUIRED: dict[str, dict[str, Any]] = {"memory": {"text": "t"}, "policy": {"type": "retention"}}


@pytest.mark.parametrize("kind", [*TOP_LEVEL, "partner/user", "planet", "integration/carrierpigeon"])
async def test_a_resource_is_made_found_changed_and_deleted(api: Api, kind: str) -> None:
    body = {**REQUIRED.get(kind, {}), "name": "first", "meta": {"k": "v"}}
    made = await api.make(kind, body)
    _, fetched = await api.get(f"/v1/{kind}/{made}/fetch")
    assert fetched["id"] == made
    assert fetched["name"] == "first"
    assert isinstance(fetched["createdAt"], int)
    assert isinstance(fetched["updatedAt"], int)
    assert await api.post(f"/v1/{kind}/{made}/update", {"name": "second"}) == (200, {"id": made})
    _, page = await api.get(f"/v1/{kind}/list?meta.k=v")
    assert [item["name"] for item in page["items"]] == ["second"]
    assert page["cursor"] == made
    assert await api.get(f"/v1/{kind}/list?meta.k=v&cursor={made}") == (200, {"items": []})
    assert await api.post(f"/v1/{kind}/{made}/delete") == (200, {"id": made})
    assert (await api.get(f"/v1/{kind}/{made}/fetch"))[0] == 404
    assert (await api.post(f"/v1/{kind}/{made}/delete"))[0] == 404


@pytest.mark.parametrize(
    ("outer", "inner", "body"),
    [
        ("dataset", "record", {"text": "t"}),
        ("conversation", "message", {"type": "user", "text": "t"}),
        ("skillset", "ability", {"name": "a", "instruction": "i"}),
        ("space", "site", {"name": "s"}),
        ("blueprint", "bulletin", {"text": "t"}),
        ("planet", "moon", {"anything": 1}),
    ],
)
async def test_a_nested_resource_lives_in_its_parent(
    api: Api, outer: str, inner: str, body: dict[str, Any]
) -> None:
    first, second = await api.make(outer), await api.make(outer)
    made = await api.make(f"{outer}/{first}/{inner}", body)
    assert (await api.get(f"/v1/{outer}/{first}/{inner}/{made}/fetch"))[1]["id"] == made
    assert (await api.get(f"/v1/{outer}/{second}/{inner}/{made}/fetch"))[0] == 404
    assert (await api.get(f"/v1/{outer}/{second}/{inner}/list"))[1]["items"] == []
    assert (await api.get(f"/v1/{outer}/unknown/{inner}/list"))[0] == 404
    assert (await api.post(f"/v1/{outer}/unknown/{inner}/create", body))[0] == 404
    assert (await api.post(f"/v1/{outer}/{first}/{inner}/{made}/delete"))[0] == 200


async def test_an_ability_is_one_row_under_two_paths(api: Api) -> None:
    skillset = await api.make("skillset")
    made = await api.make(f"skillset/{skillset}/ability", {"name": "a"})
    await api.post(f"/v1/ability/{made}/update", {"name": "b"})
    _, page = await api.get(f"/v1/skillset/{skillset}/ability/list")
    assert [item["name"] for item in page["items"]] == ["b"]
    await api.post(f"/v1/skillset/{skillset}/delete")
    _, ability = await api.get(f"/v1/ability/{made}/fetch")
    assert ability["skillsetId"] is None


@pytest.mark.parametrize(
    ("reference", "status"),
    [
        ("@first", 200),
        ("%40first", 200),
        ("(One)", 200),
        ("%28One%29", 200),
        ("@second", 404),
        ("(Two)", 404),
    ],
)
async def test_a_resource_answers_to_its_alias_and_its_name(api: Api, reference: str, status: int) -> None:
    bot = await api.make("bot", {"name": "One", "alias": "first"})
    answered, fetched = await api.get(f"/v1/bot/{reference}/fetch")
    assert answered == status
    if status == 200:
        assert fetched["id"] == bot
        assert await api.post(f"/v1/bot/{reference}/update", {"description": "d"}) == (200, {"id": bot})


async def test_aliases_reach_parents_and_siblings_and_not_conversations(api: Api) -> None:
    parents = await api.make("bot", {"alias": "shared"})
    as_kid = {"X-RunAs-User-ID": "user_kid"}
    await api.make("partner/user", {"alias": "sister", "email": "s@acme.example"})
    sisters = await api.make("bot", {"alias": "hers"}, headers={"X-RunAs-Child-User-Email": "s@acme.example"})
    assert (await api.get("/v1/bot/@@shared/fetch"))[0] == 404
    assert (await api.get("/v1/bot/@sister@hers/fetch", headers=as_kid))[1]["id"] == sisters
    found, bot = await api.get("/v1/bot/@@shared/fetch", headers=as_kid)
    assert (found, bot["id"]) == (200, parents)
    await api.make("conversation", {"name": "Talk"})
    assert (await api.get("/v1/conversation/(Talk)/fetch"))[0] == 404


async def test_an_alias_belongs_to_one_resource_of_a_type(api: Api) -> None:
    first = await api.make("bot", {"alias": "a"})
    assert (await api.post("/v1/bot/create", {"alias": "a"}))[0] == 409
    await api.make("dataset", {"alias": "a"})
    assert (await api.post(f"/v1/bot/{first}/update", {"alias": "a"}))[0] == 200
    second = await api.make("bot", {"alias": ""})
    assert (await api.post(f"/v1/bot/{second}/update", {"alias": "a"}))[0] == 409


async def test_a_store_is_chosen_once(api: Api) -> None:
    dataset = await api.make("dataset", {"store": "big"})
    assert (await api.post(f"/v1/dataset/{dataset}/update", {"store": "small"}))[0] == 400


async def test_a_line_list_walks_all_pages(api: Api) -> None:
    for index in range(120):
        await api.make("contact", {"name": f"c{index}"})
    events = await api.events("/v1/contact/list")
    assert {event["type"] for event in events} == {"item"}
    assert [event["data"]["name"] for event in events] == [f"c{index}" for index in reversed(range(120))]
    assert len(await api.events("/v1/contact/list?take=110")) == 110
    assert len((await api.get("/v1/contact/list?take=110"))[1]["items"]) == 100


@pytest.mark.parametrize(
    ("accept", "head"),
    [
        ("text/event-stream", b"event: item\ndata: {"),
        ("text/csv", b"id,name,"),
        ("application/jsonl, application/json", b'{"type":"item","data":{'),
        ("application/json;q=0.1, application/jsonl", b'{"items":['),
        ("*/*", b'{"items":['),
    ],
)
async def test_only_the_first_media_type_decides_the_format(api: Api, accept: str, head: bytes) -> None:
    await api.make("portal", {"name": 'say "hi"'})
    status, headers, body = await api.raw("GET", "/v1/portal/list", headers={"Accept": accept})
    assert status == 200
    assert body.startswith(head)
    if accept == "text/csv":
        assert headers["Content-Type"] == "text/csv"
        assert b'"say ""hi"""' in body


async def test_messages_run_from_old_to_new(api: Api) -> None:
    talk = await api.make("conversation")
    for text in "abc":
        await api.make(f"conversation/{talk}/message", {"type": "user", "text": text})
    _, page = await api.get(f"/v1/conversation/{talk}/message/list")
    assert [item["text"] for item in page["items"]] == ["a", "b", "c"]
    _, page = await api.get(f"/v1/conversation/{talk}/message/list?order=desc&take=1")
    assert [item["text"] for item in page["items"]] == ["c"]


async def test_a_deleted_blueprint_takes_its_resources_only_when_told(api: Api) -> None:
    for takes_all in (False, True):
        blueprint = await api.make("blueprint")
        bot = await api.make("bot", {"blueprintId": blueprint})
        _, listed = await api.get(f"/v1/blueprint/{blueprint}/resource/list")
        assert [row["id"] for row in listed["resources"]["bot"]] == [bot]
        await api.post(f"/v1/blueprint/{blueprint}/delete", {"deleteResources": takes_all})
        status, left = await api.get(f"/v1/bot/{bot}/fetch")
        assert status == (404 if takes_all else 200)
        if not takes_all:
            assert left["blueprintId"] is None


async def test_a_deleted_child_takes_everything_it_owns(api: Api) -> None:
    as_kid = {"X-RunAs-User-ID": "user_kid"}
    bot = await api.make("bot", headers=as_kid)
    assert (await api.get("/v1/bot/list"))[1]["items"] == []
    assert (await api.post("/v1/partner/user/user_kid/delete"))[0] == 200
    assert api.sandbox.world.store.get(bot) is None
    assert (await api.get("/v1/bot/list", headers=as_kid))[0] == 401

"""Everything else the API offers: GraphQL, search, platform lists, reports, the published document."""

from __future__ import annotations

from typing import Any

import pytest

from cbk_gateway.sandbox.graph import graph_schema, plural, served_kinds, type_name
from cbk_gateway.sandbox.paths import read_path
from cbk_gateway.sandbox.routes import ROUTES, find_handler
from cbk_gateway.sandbox.spec import document

from .conftest import Api


@pytest.mark.parametrize("path", ["/graphql", "/api/graphql", "/v1/graphql", "/api/v1/graphql"])
async def test_graphql_answers_on_all_its_paths(api: Api, path: str) -> None:
    bot = await api.make("bot", {"name": "b", "meta": {"k": 1}})
    query = "query Q($c: ID) { bots(first: 5, after: $c) { edges { node { id name meta createdAt } } } }"
    status, answer = await api.post(path, {"query": query, "variables": {}, "operationName": "Q"})
    assert status == 200
    node = answer["data"]["bots"]["edges"][0]["node"]
    assert (node["id"], node["name"], node["meta"]) == (bot, "b", {"k": 1})
    assert isinstance(node["createdAt"], int)


async def test_graphql_writes_the_same_rows(api: Api) -> None:
    async def ask(query: str, **variables: Any) -> Any:
        _, answer = await api.post("/graphql", {"query": query, "variables": variables})
        assert "errors" not in answer
        return answer["data"]

    create = "mutation($input: BotCreateRequest!) { createBot(input: $input) { id } }"
    bot = (await ask(create, input={"name": "g"}))["createBot"]["id"]
    update = "mutation($id: ID!, $input: BotUpdateRequest!) { updateBot(botId: $id, input: $input) { id } }"
    await ask(update, id=bot, input={"name": "h"})
    assert (await api.get(f"/v1/bot/{bot}/fetch"))[1]["name"] == "h"
    assert (await ask("query($id: ID!) { bot(botId: $id) { name } }", id=bot))["bot"]["name"] == "h"
    await ask("mutation($id: ID!) { deleteBot(botId: $id) { id } }", id=bot)
    assert (await api.get(f"/v1/bot/{bot}/fetch"))[0] == 404


@pytest.mark.parametrize(
    "query",
    [
        "{",
        "{ nothing }",
        '{ bot(botId: "unknown") { id } }',
        "mutation { createBot(input: {name: 5}) { id } }",
        'mutation { createBot(input: {visibility: "odd"}) { id } }',
    ],
)
async def test_a_graphql_failure_is_a_success_with_errors(api: Api, query: str) -> None:
    status, answer = await api.post("/graphql", {"query": query})
    assert status == 200
    assert answer["errors"][0]["message"]


async def test_graphql_refuses_strangers_and_non_requests(api: Api) -> None:
    assert (await api.post("/graphql", {"query": "{ bots { edges { cursor } } }"}, key=None))[0] == 401
    assert (await api.post("/graphql", {}))[0] == 400
    assert (await api.post("/graphql", {"query": "{x}", "variables": []}))[0] == 400


async def test_graphql_reads_over_get_and_does_not_write(api: Api) -> None:
    assert (await api.get("/graphql?query=%7Bbots%7Bedges%7Bcursor%7D%7D%7D"))[1]["data"] == {
        "bots": {"edges": []}
    }
    _, answer = await api.get("/graphql?query=mutation%7BcreateBot(input:%7B%7D)%7Bid%7D%7D")
    assert answer["errors"]
    assert (await api.get("/v1/bot/list"))[1]["items"] == []


async def test_a_graphql_connection_is_walked_by_cursor(api: Api) -> None:
    made = [await api.make("contact") for _ in range(5)]
    met: list[str] = []
    cursor, more = "", True
    while more:
        query = "query($c: ID) { contacts(first: 2, after: $c) { edges { cursor } pageInfo { hasNextPage }}}"
        _, answer = await api.post("/graphql", {"query": query, "variables": {"c": cursor}})
        page = answer["data"]["contacts"]
        met += [edge["cursor"] for edge in page["edges"]]
        cursor, more = met[-1], page["pageInfo"]["hasNextPage"]
    assert met == made[::-1]


def test_the_graphql_schema_has_a_type_and_a_list_for_every_served_kind() -> None:
    schema = graph_schema()
    assert schema.query_type is not None
    for kind in served_kinds():
        assert type_name(kind) in schema.type_map
        assert plural(kind) in schema.query_type.fields


@pytest.mark.parametrize(
    "kind",
    [
        "model",
        "ability",
        "action",
        "secret",
        "example",
        "doc",
        "guide",
        "manual",
        "tutorial",
        "report",
        "limit",
        "subscription",
    ],
)
async def test_platform_lists_are_one_page_long(api: Api, kind: str) -> None:
    status, page = await api.get(f"/v1/platform/{kind}/list?take=1")
    assert status == 200
    assert page["items"]
    assert (await api.get(f"/v1/platform/{kind}/list?cursor={page['cursor']}"))[1] == {"items": []}


async def test_platform_documents_are_found_and_fetched(api: Api) -> None:
    _, found = await api.post("/v1/platform/doc/search", {"search": "datasets", "take": 1})
    assert [item["id"] for item in found["items"]] == ["doc-datasets"]
    _, doc = await api.get("/v1/platform/doc/doc-datasets/fetch")
    assert doc["content"].startswith("#")
    assert (await api.get("/v1/platform/doc/nothing/fetch"))[0] == 404
    assert (await api.get("/v1/platform/limit/list", key=None))[0] == 200
    assert (await api.get("/v1/platform/model/list", key=None))[0] == 401


async def test_an_example_is_cloned_into_real_resources(api: Api) -> None:
    _, made = await api.post("/v1/platform/example/example-support/clone")
    assert (await api.get(f"/v1/bot/{made['resources']['bot'][0]['id']}/fetch"))[0] == 200


async def test_records_and_memories_are_searched(api: Api) -> None:
    dataset, contact = await api.make("dataset"), await api.make("contact")
    for text, number in (("the brown fox", 1), ("a brown cow", 2), ("nothing", 3)):
        await api.make(f"dataset/{dataset}/record", {"text": text, "meta": {"n": number}})
        await api.make("memory", {"text": text, "contactId": contact})
    path = f"/v1/dataset/{dataset}/search"
    _, found = await api.post(path, {"search": "brown fox"})
    assert [(record["text"], record["score"]) for record in found["records"]] == [
        ("the brown fox", 1.0),
        ("a brown cow", 0.5),
    ]
    _, found = await api.post(path, {"search": "brown", "filter": {"n": {"$gt": 1}}})
    assert [record["text"] for record in found["records"]] == ["a brown cow"]
    for where in ("/v1/memory/search", f"/v1/contact/{contact}/memory/search"):
        assert len((await api.post(where, {"search": "brown"}))[1]["items"]) == 2
    assert (await api.post("/v1/memory/search", {"search": "brown", "botId": "x"}))[0] == 400


async def test_dataset_files_are_attached_and_detached(api: Api) -> None:
    dataset, file = await api.make("dataset"), await api.make("file", {"name": "f"})
    base = f"/v1/dataset/{dataset}/file"
    for _ in range(2):
        assert (await api.post(f"{base}/{file}/attach", {"type": "source"}))[1] == {"id": file}
    assert [row["id"] for row in (await api.get(f"{base}/list"))[1]["items"]] == [file]
    await api.make(f"dataset/{dataset}/record", {"text": "t", "source": file})
    await api.post(f"{base}/{file}/detach", {"deleteRecords": True})
    assert (await api.get(f"{base}/list"))[1]["items"] == []
    assert (await api.get(f"/v1/dataset/{dataset}/record/list"))[1]["items"] == []


async def test_a_contact_is_ensured_once_and_left_unchanged(api: Api) -> None:
    _, first = await api.post("/v1/contact/ensure", {"fingerprint": "f", "name": "a"})
    _, second = await api.post("/v1/contact/ensure", {"fingerprint": "f", "name": "b"})
    assert first == second
    assert (await api.get(f"/v1/contact/{first['id']}/fetch"))[1]["name"] == "a"
    talk = await api.make("conversation")
    await api.post(f"/v1/conversation/{talk}/contact/upsert", {"fingerprint": "f"})
    assert (await api.get(f"/v1/conversation/{talk}/fetch"))[1]["contactId"] == first["id"]
    assert len((await api.get(f"/v1/contact/{first['id']}/conversation/list"))[1]["items"]) == 1


async def test_a_blueprint_is_exported_imported_and_cloned(api: Api) -> None:
    blueprint = await api.make("blueprint", {"name": "B"})
    await api.make("bot", {"name": "one", "alias": "one", "blueprintId": blueprint})
    _, exported = await api.get(f"/v1/blueprint/{blueprint}/resource/export")
    other = await api.make("blueprint")
    changed = {"bot": [{**exported["resources"]["bot"][0], "name": "two"}]}
    status, made = await api.post(f"/v1/blueprint/{other}/resource/import", {"resources": changed})
    assert status == 200
    assert made["resources"] == {"bot": [exported["resources"]["bot"][0]["id"]]}
    assert (await api.get("/v1/bot/@one/fetch"))[1]["name"] == "two"
    _, clone = await api.post(f"/v1/blueprint/{other}/clone")
    assert len((await api.get("/v1/bot/list"))[1]["items"]) == 2
    hcl = await api.raw(
        "GET",
        f"/v1/blueprint/{clone['id']}/resource/export",
        headers={"Accept": "application/terraform+hcl"},
    )
    assert b'resource "chatbotkit_bot"' in hcl[2]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("integration/email", {"email": "a@b.c", "subject": "s", "text": "t"}),
        ("integration/slack", {"channel": "c", "text": "t"}),
        ("integration/twilio", {"from": "1", "to": "2", "text": "t", "channel": "sms"}),
    ],
)
async def test_an_integration_begins_a_conversation(api: Api, path: str, body: dict[str, str]) -> None:
    made = await api.make(path)
    _, talk = await api.post(f"/v1/{path}/{made}/initiate", body)
    assert (await api.get(f"/v1/conversation/{talk['id']}/fetch"))[0] == 200
    assert (await api.post(f"/v1/{path}/{made}/initiate", {}))[0] == 400


async def test_reports_say_what_failed_in_their_own_place(api: Api) -> None:
    _, reports = await api.post("/v1/platform/report/generate", {"usage": {}, "weather": {}})
    assert "totals" in reports["usage"]
    assert "error" in reports["weather"]
    assert (await api.post("/v1/platform/report/weather/generate"))[0] == 404


async def test_an_ability_and_a_prompt_run_the_model(api: Api) -> None:
    skillset = await api.make("skillset")
    ability = await api.make(f"skillset/{skillset}/ability", {"name": "a"})
    path = f"/v1/skillset/{skillset}/ability/{ability}/execute"
    _, result = await api.post(path, {"input": "!create bot Zed"})
    assert result["usage"]["token"] > 0
    assert [bot["name"] for bot in (await api.get("/v1/bot/list"))[1]["items"]] == ["Zed"]
    events = await api.events(path, {"input": "x"})
    assert [event["type"] for event in events] == ["ping", "result"]
    _, magic = await api.post("/v1/magic/title/generate", {"text": "x"})
    assert magic["text"]
    assert (await api.post("/v1/magic/nothing/generate", {"text": "x"}))[0] == 404


async def test_the_published_document_needs_no_key_and_names_the_asked_host(api: Api) -> None:
    status, spec = await api.get("/v1/spec", key=None, headers={"Host": "asked.example"})
    assert status == 200
    assert spec["openapi"].startswith("3.")
    assert spec["servers"] == [{"url": "http://asked.example/api/v1"}]


def test_every_path_of_the_published_document_is_served() -> None:
    for path in document()["paths"]:
        target = read_path("/api/v1" + path.replace("{", "").replace("}", ""))
        assert target is not None, path
        assert find_handler(target) is not None, path


IRREGULAR = {
    "graphql": "/graphql",
    "spec": "/v1/spec",
    "openai/chat": "/v1/openai/chat/completions",
}
ONE_NAME = {
    *("integration", "platform", "partner", "event", "audit", "realtime"),
    *("usage/series", "message/batch"),
}


def path_of(kind: str, *, on_item: bool, action: str) -> str:
    """A path that ought to reach that route."""
    if kind in IRREGULAR:
        return IRREGULAR[kind]
    words, names = [], kind.split("/")
    while names:
        name = names.pop(0)
        if names and (name in ONE_NAME or f"{name}/{names[0]}" in ONE_NAME):
            name = f"{name}/{names.pop(0)}"
        words += [name, "id"]
    return f"/v1/{'/'.join(words if on_item else words[:-1])}/{action}"


@pytest.mark.parametrize(("kind", "on_item", "action"), sorted(ROUTES))
def test_every_special_route_is_reached_by_its_path(kind: str, on_item: bool, action: str) -> None:
    target = read_path(path_of(kind, on_item=on_item, action=action))
    assert target is not None
    assert (target.kind, target.on_item, target.action) == (kind, on_item, action)


@pytest.mark.parametrize("odd", [None, 5, 1e300, "", "x", True, [None], [{}], {"a": None}])
async def test_no_odd_value_makes_a_special_route_fail(api: Api, odd: object) -> None:
    names = ("text", "messages", "file", "search", "sample", "contactId", "query", "resources")
    for kind, on_item, action in ROUTES:
        if action in {"list", "fetch", "export", "download", "subscribe"}:
            continue
        path = path_of(kind, on_item=on_item, action=action)
        outer = "/".join(kind.split("/")[: 2 if kind.startswith(("integration", "partner")) else 1])
        if "/id/" in path and outer not in {"url", "magic", "channel", "platform", "audit", "event"}:
            rows = api.sandbox.world.store.rows("acme", outer)
            needed = {"memory": {"text": "t"}}.get(outer)
            path = path.replace("/id/", f"/{next(iter(rows), None) or await api.make(outer, needed)}/", 1)
        for name in names:
            status, _, _ = await api.raw("POST", path, json={name: odd})
            assert status < 500, (path, name, odd)

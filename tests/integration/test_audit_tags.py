"""Tagged creates through a whole gateway: found again when their answer was lost; untouched by default."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cbk_gateway.audit.tag import KEY, TAGGED_TYPES
from cbk_gateway.sandbox.resources import RESOURCES
from cbk_gateway.sandbox.schema import Field
from cbk_gateway.store import Store
from harness import Stage, running, tenant
from integration.e2e_calls import all_closed, look, post

LOST = [
    pytest.param("status", {"status": 502, "after_effect": True}, id="502-after-it-was-done"),
    pytest.param("drop_after_effect", None, id="dropped-after-it-was-done"),
]
# What cannot be told from the list by its fields: the value is never shown.
SECRET = {"name": "s", "kind": "shared", "type": "plain", "value": "not shown again"}


@pytest.fixture
async def tagging(tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[Stage]:
    """A gateway that tags creates."""
    audit = {"tag_creates": True, "resolve_after_s": 0.1}
    async with running(tmp_path, valkey_url, tenants=(tenant("acme"),), audit=audit) as one:
        yield one


def made(stage: Stage, kind: str) -> list[str]:
    """Ids of the objects of a type that there are."""
    return [row.id for row in stage.sandbox.world.store.all_rows() if row.kind == kind]


def sent(stage: Stage, path: str) -> list[Any]:
    """The bodies that reached the API under a path."""
    return [one.body for one in stage.sandbox.requests if one.path.endswith(path)]


async def test_nothing_is_added_unless_it_is_asked_for(stage: Stage, client: aiohttp.ClientSession) -> None:
    body = b'{ "name": "Ada",\n "meta": {"a": 1.0} }'
    fields = {**stage.bearer(), "Content-Type": "application/json"}
    async with client.post(f"{stage.url}/api/v1/bot/create", data=body, headers=fields) as answer:
        assert answer.status == 200
    (arrived,) = [one for one in stage.sandbox.requests if one.path.endswith("/bot/create")]
    assert (arrived.body_size, arrived.body_sha256) == (len(body), hashlib.sha256(body).hexdigest())


async def test_a_tagged_create_differs_by_the_tag_alone_and_the_record_says_so(
    tagging: Stage, client: aiohttp.ClientSession
) -> None:
    body = b'{ "name": "Ada",\n "meta": {"a": "b"} }'
    fields = {**tagging.bearer(), "Content-Type": "application/json"}
    async with client.post(f"{tagging.url}/api/v1/bot/create", data=body, headers=fields) as answer:
        assert answer.status == 200
    await all_closed(tagging)
    intent, outcome = (
        next(one for one in tagging.journal() if one["kind"] == kind) for kind in ("intent", "outcome")
    )
    tag = intent["tag"]
    spliced = body.replace(b'{"a"', b'{"%b":"%b","a"' % (KEY.encode(), tag.encode()))
    (arrived,) = [one for one in tagging.sandbox.requests if one.path.endswith("/bot/create")]
    assert arrived.body_sha256 == hashlib.sha256(spliced).hexdigest()
    assert intent["request_sha256"] == outcome["request_sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize(("fault", "value"), LOST)
@pytest.mark.parametrize(
    ("kind", "body"), [("bot", {"name": "Ada"}), ("secret", SECRET)], ids=["bot", "secret"]
)
async def test_a_create_whose_answer_was_lost_is_answered_with_the_object_it_made(
    tagging: Stage, kind: str, body: dict[str, Any], fault: str, value: Any
) -> None:
    tagging.sandbox.add_fault(f"/v1/{kind}/create", fault, value=value)
    headers = tagging.bearer()
    first = await post(tagging, f"/api/v1/{kind}/create", body, headers)
    assert first.status == 502
    again = await post(tagging, f"/api/v1/{kind}/create", body, headers)
    assert (again.status, [again.json["id"]]) == (200, made(tagging, kind))
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(sent(tagging, f"/{kind}/create")) == 1


async def test_without_a_tag_what_is_not_shown_is_not_told(stage: Stage) -> None:
    """The control: the same loss, and the gateway must refuse rather than guess."""
    stage.sandbox.add_fault("/v1/secret/create", "drop_after_effect")
    headers = stage.bearer()
    assert (await post(stage, "/api/v1/secret/create", SECRET, headers)).status == 502
    assert (await post(stage, "/api/v1/secret/create", SECRET, headers)).code == "CONFLICT"


async def test_a_create_that_was_not_done_is_done_by_its_repetition_under_a_tag_of_its_own(
    tagging: Stage,
) -> None:
    tagging.sandbox.add_fault("/v1/secret/create", "drop_before", times=1)
    headers = tagging.bearer()
    assert (await post(tagging, "/api/v1/secret/create", SECRET, headers)).status == 502
    again = await post(tagging, "/api/v1/secret/create", SECRET, headers)
    assert [again.json["id"]] == made(tagging, "secret")
    await all_closed(tagging)
    tags = [one["tag"] for one in tagging.journal() if one["kind"] == "intent"]
    assert len(set(tags)) == 2


async def test_a_list_that_cannot_be_seen_proves_nothing(tagging: Stage) -> None:
    headers = tagging.bearer()
    tagging.sandbox.add_fault("/v1/secret/create", "drop_after_effect")
    assert (await post(tagging, "/api/v1/secret/create", SECRET, headers)).status == 502
    tagging.sandbox.add_fault("/v1/secret/list", "status", value=403)
    assert (await post(tagging, "/api/v1/secret/create", SECRET, headers)).code == "CONFLICT"


@pytest.mark.parametrize(
    ("fault", "result", "reason"),
    [("drop_after_effect", "happened", "found"), ("drop_before", "did_not_happen", "not_there")],
)
async def test_the_resolver_tells_what_became_of_a_tagged_create(
    tagging: Stage, fault: str, result: str, reason: str
) -> None:
    tagging.sandbox.add_fault("/v1/secret/create", fault)
    said = await post(tagging, "/api/v1/secret/create", SECRET)
    verdict = await verdict_on(tagging, said.headers["X-Request-Id"])
    assert (verdict["result"], verdict["reason"]) == (result, reason)
    assert verdict.get("answer_ids", []) == made(tagging, "secret")


async def test_of_a_create_without_a_tag_nothing_is_claimed(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with running(tmp_path, valkey_url, audit={"resolve_after_s": 0.1}) as stage:
        stage.sandbox.add_fault("/v1/bot/create", "drop_after_effect")
        said = await post(stage, "/api/v1/bot/create", {"name": "Ada"})
        verdict = await verdict_on(stage, said.headers["X-Request-Id"])
    assert (verdict["result"], verdict["reason"]) == ("undecidable", "no_tag")


async def verdict_on(stage: Stage, request_id: str) -> dict[str, Any]:
    """What the resolver said of a request, once it has."""
    async with asyncio.timeout(30):
        while True:
            said = await look(stage, f"/admin/audit/{request_id}")
            for story in said.json["items"] if said.status == 200 else ():
                if story["verdict"] is not None:
                    verdict: dict[str, Any] = story["verdict"]
                    return verdict
            await asyncio.sleep(0.05)


def sample_of(field: Field) -> object:
    """A value that a field takes."""
    if field.choices:
        return field.choices[0]
    return {"string": "x", "object": {}, "array": [], "number": 1, "integer": 1, "boolean": True}[field.kind]


async def parent(stage: Stage, kind: str, headers: dict[str, str]) -> str:
    said = await post(stage, f"/api/v1/{kind}/create", body_of(kind), headers)
    return f"{kind}/{said.json['id']}"


def body_of(kind: str) -> dict[str, object]:
    known = RESOURCES.get("ability" if kind == "skillset/ability" else kind)
    assert known is not None, kind
    assert known.fields is not None, kind
    return {name: sample_of(field) for name, field in known.fields.items() if field.required}


async def test_every_type_that_is_tagged_takes_the_tag_and_is_listed_by_it(tagging: Stage) -> None:
    headers = tagging.bearer()
    for kind in sorted(TAGGED_TYPES):
        above, _, last = kind.rpartition("/")
        place = f"{await parent(tagging, above, headers)}/{last}" if above in TAGGED_TYPES else kind
        said = await post(tagging, f"/api/v1/{place}/create", body_of(kind), headers)
        assert said.status == 200, (kind, said.body)
        body = sent(tagging, f"{place}/create")[-1]
        query = f"meta.{KEY}={body['meta'][KEY]}&order=asc&take=10"
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{tagging.url}/api/v1/{place}/list?{query}") as answer,
        ):
            listed = orjson.loads(await answer.read())["items"]
        assert [item["id"] for item in listed] == [said.json["id"]], kind

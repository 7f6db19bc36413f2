"""The description of the operators' API: whole, consistent, and true to what the port does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from cbk_gateway.admin import commands
from cbk_gateway.admin.answers import Items
from cbk_gateway.admin.commands import Command
from cbk_gateway.admin.openapi import description
from cbk_gateway.admin.routes import Route
from described import assert_described
from harness import ADMIN_TOKEN, Stage
from integration.e2e_calls import ask, bearer, change, look


@pytest.fixture
async def document(stage: Stage) -> dict[str, Any]:
    """The description, as the port serves it."""
    said = await look(stage, "/admin/openapi.json")
    assert said.headers["Content-Type"].startswith("application/json")
    found: dict[str, Any] = said.json
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def references(value: object) -> Iterator[str]:
    """Every reference of a document, at any depth."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


async def test_it_is_a_whole_openapi_document(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(document["info"])
    assert document["security"] == [{"operator": []}]
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)


async def test_every_operation_says_its_role_its_parameters_and_its_refusals(
    document: dict[str, Any],
) -> None:
    for method, path, operation in operations(document):
        assert operation["summary"].endswith("."), path
        assert operation["x-role"] in {"viewer", "operator", "admin"}
        in_path = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))
        assert all(one["description"] for one in operation["parameters"])
        assert {"200", "400", "401", "403", "404", "503"} <= set(operation["responses"])
        assert ("requestBody" in operation) == (method == "POST")


async def test_every_command_is_described_field_by_field(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    models = [one for one in vars(commands).values() if isinstance(one, type) and issubclass(one, Command)]
    for model in models:
        if model is Command:
            continue
        schema = schemas[model.__name__]
        assert schema["additionalProperties"] is False
        assert set(schema.get("properties", {})) == set(model.model_fields)
        for name, field in schema.get("properties", {}).items():
            assert field.get("description"), (model, name)


async def test_what_is_described_is_served_and_nothing_else(stage: Stage, document: dict[str, Any]) -> None:
    for method, path, _ in operations(document):
        url = stage.admin_url + re.sub(r"{\w+}", "nobody", path)
        body = {"surprise": 1} if method == "POST" else None
        said = await ask(method, url, bearer(ADMIN_TOKEN), body)
        # A route that is not served says so in these words.
        assert b"There is nothing here." not in said.body, path
        assert said.status in {200, 400, 404}
        other = "GET" if method == "POST" else "POST"
        if other.lower() not in document["paths"][path]:
            said = await ask(other, url, bearer(ADMIN_TOKEN))
            assert said.status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/limits/acme"),
        ("GET", "/admin/tenants"),
        ("GET", "/admin/tenants/acme"),
        ("GET", "/admin/tenants/nobody"),
        ("GET", "/admin/settings"),
        ("GET", "/admin/explain?path=/api/v1/bot/list"),
        ("GET", "/admin/tokens/revocations"),
        ("GET", "/admin/cache?account=acme"),
        ("GET", "/admin/audit?limit=1"),
        ("GET", "/admin/audit?limit=0"),
        ("GET", "/admin/openapi.json"),
        ("POST", "/admin/log-level"),
        ("POST", "/admin/reload"),
        ("POST", "/admin/limits/acme/reset"),
        ("POST", "/admin/tenants/acme/disable"),
        ("POST", "/admin/tenants/nobody/disable"),
    ],
)
async def test_answers_have_the_described_shape(stage: Stage, method: str, path: str) -> None:
    """`look` and `change` hold every answer against the document, here and in all suites of operators."""
    said = await look(stage, path) if method == "GET" else await change(stage, path)
    assert said.status in {200, 400, 404}


def test_an_answer_that_is_not_described_is_noticed() -> None:
    routes = [Route("GET", "/admin/x/{id}", "viewer", answer_nothing, "Nothing.", gives=Items)]
    document = description(routes)
    assert_described(document, "GET", "/admin/x/1?a=b", 200, {"items": []})
    for method, path, status, answer in (
        ("GET", "/admin/x/1", 200, {"items": {}}),
        ("GET", "/admin/x/1", 200, {}),
        ("GET", "/admin/x/1", 404, {"message": "no code"}),
        ("GET", "/admin/x/1", 418, {}),
        ("POST", "/admin/x/1", 200, {"items": []}),
        ("GET", "/admin/y", 200, {"items": []}),
    ):
        with pytest.raises(AssertionError):
            assert_described(document, method, path, status, answer)


async def answer_nothing(_: web.Request) -> web.Response:
    return web.json_response({"items": []})

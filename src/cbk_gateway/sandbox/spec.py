"""The OpenAPI document of the sandbox, made from the same table that it checks bodies with.

It covers the generic pattern for all known types and the calls with bodies of their own; it is what a
contract test can hold the sandbox, or a gateway in front of it, to.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from cbk_gateway.sandbox.answers import JSON, JSONL, Answer, JsonObject, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.contacts import ENSURE
from cbk_gateway.sandbox.resources import LINKED_VIEWS, RESOURCES, ResourceType, resource_type
from cbk_gateway.sandbox.runs import COMPLETE, RECEIVE, SEND, STATELESS
from cbk_gateway.sandbox.schema import META, OBJECT, TEXT, Field, Fields, required

_ID: Final[JsonObject] = {
    "type": "object",
    "properties": {"id": {"type": "string"}},
    "required": ["id"],
}
_TIMES: Final[JsonObject] = {
    "id": {"type": "string"},
    "createdAt": {"type": "integer"},
    "updatedAt": {"type": "integer"},
}
_USAGE: Final[JsonObject] = {
    "type": "object",
    "properties": {"token": {"type": "integer"}},
    "required": ["token"],
}
_RESULT: Final[JsonObject] = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "usage": _USAGE, "end": {"type": "object"}},
    "required": ["text", "usage"],
}
_SENT: Final[JsonObject] = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "entities": {"type": "array"}},
    "required": ["id", "entities"],
}
_EVENT: Final[JsonObject] = {
    "type": "object",
    "properties": {"type": {"type": "string"}, "data": {"type": "object"}},
    "required": ["type", "data"],
}
_ERROR: Final[JsonObject] = {
    "type": "object",
    "properties": {
        "message": {"type": "string"},
        "code": {"type": "string"},
        "error": {"type": "object"},
    },
    "required": ["message", "code"],
}
_SEARCH: Final[Fields] = {"search": Field("string", required=True, nullable=False, min_length=1)}
#: Calls whose body and answer are not of the generic pattern: path, body, answer, whether it can stream.
_SPECIAL: Final[tuple[tuple[str, Fields, JsonObject, bool], ...]] = (
    ("conversation/complete", STATELESS, _RESULT, True),
    ("conversation/{conversationId}/complete", COMPLETE, _RESULT, True),
    ("conversation/{conversationId}/receive", RECEIVE, _RESULT, True),
    ("conversation/{conversationId}/send", SEND, _SENT, True),
    ("contact/ensure", ENSURE, _ID, False),
    ("memory/search", _SEARCH, {"type": "object", "required": ["items"]}, False),
    ("dataset/{datasetId}/search", _SEARCH, {"type": "object", "required": ["id", "records"]}, False),
    ("channel/{channelId}/publish", {"message": required(OBJECT)}, _ID, False),
    ("graphql", {"query": required(TEXT), "variables": OBJECT}, {"type": "object"}, False),
)
_PAGING: Final[list[JsonObject]] = [
    {"name": "cursor", "in": "query", "schema": {"type": "string"}},
    {"name": "order", "in": "query", "schema": {"type": "string", "enum": ["asc", "desc"]}},
    {"name": "take", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
]


def field_schema(field: Field) -> JsonObject:
    """The JSON Schema of a field; sizes in bytes are given as the characters that surely fit."""
    if field.kind == "any":
        return {}
    schema: JsonObject = {"type": [field.kind, "null"] if field.nullable else field.kind}
    if field.choices:
        schema["enum"] = [*field.choices, None] if field.nullable else list(field.choices)
    if field.max_bytes is not None:
        schema["maxLength"] = field.max_bytes if field.pattern else field.max_bytes // 4
    if field.min_length:
        schema["minLength"] = field.min_length
    if field.pattern is not None:
        schema["pattern"] = f"^{field.pattern}$"
    if field.minimum is not None:
        schema["minimum"] = field.minimum
    if field.maximum is not None:
        schema["maximum"] = field.maximum
    if field is META:
        schema["propertyNames"] = {"pattern": "^[^_]"}
    if field.item is not None:
        schema["items"] = field_schema(field.item)
    if field.members is not None:
        schema.update(body_schema(field.members))
    return schema


def body_schema(fields: Fields, *, is_partial: bool = False) -> JsonObject:
    """The JSON Schema of a body."""
    writable = {name: field for name, field in fields.items() if not field.read_only}
    schema: JsonObject = {
        "type": "object",
        "properties": {name: field_schema(field) for name, field in writable.items()},
        "additionalProperties": False,
    }
    needed = [name for name, field in writable.items() if field.required and not is_partial]
    return {**schema, "required": needed} if needed else schema


def _row_schema(resource: ResourceType) -> JsonObject:
    shown = {
        name: {"type": ["string", "null"]} if field.answer == "masked" else _shown(field)
        for name, field in (resource.fields or {}).items()
        if field.answer != "omitted"
    }
    return {"type": "object", "properties": {**shown, **_TIMES}, "required": list(_TIMES)}


def _shown(field: Field) -> JsonObject:
    schema = field_schema(field)
    return {**schema, "type": [schema["type"], "null"]} if isinstance(schema.get("type"), str) else schema


def _response(schema: JsonObject, *, can_stream: bool = False) -> JsonObject:
    content: JsonObject = {JSON: {"schema": schema}}
    if can_stream:
        content[JSONL] = {"schema": _EVENT}
    return {
        "200": {"description": "Done.", "content": content},
        "default": {"description": "Refused.", "content": {JSON: {"schema": _ERROR}}},
    }


def _post(body: JsonObject, answer: JsonObject, params: list[JsonObject], *, can_stream: bool) -> JsonObject:
    return {
        "parameters": params,
        "requestBody": {"required": True, "content": {JSON: {"schema": body}}},
        "responses": _response(answer, can_stream=can_stream),
    }


def _params(path: str) -> list[JsonObject]:
    return [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for part in path.split("/")
        if part.startswith("{")
    ]


def item_path(kind: str) -> str:
    """The path of one item of a type: `/dataset/{datasetId}/record/{recordId}`."""
    own = LINKED_VIEWS[kind].resource if kind in LINKED_VIEWS else kind
    outer, _, last = kind.rpartition("/")
    param = resource_type(own).param
    if outer in RESOURCES:
        return f"{item_path(outer)}/{last}/{{{param}}}"
    return f"/{kind}/{{{param}}}"


def _paths_of(kind: str, resource: ResourceType, actions: frozenset[str]) -> JsonObject:
    item = item_path(kind)
    collection = item.rpartition("/")[0]
    above, on_item = _params(collection), _params(item)
    fields, row = resource.fields or {}, _row_schema(resource)
    listing = {
        "type": "object",
        "properties": {"items": {"type": "array", "items": row}},
        "required": ["items"],
    }
    partial = {name: field for name, field in fields.items() if name not in resource.create_only}
    paths: JsonObject = {}
    if "create" in actions:
        paths[f"{collection}/create"] = {"post": _post(body_schema(fields), _ID, above, can_stream=False)}
    for action in actions & {"list", "export"}:
        answer = _response(listing, can_stream=True)
        paths[f"{collection}/{action}"] = {"get": {"parameters": [*above, *_PAGING], "responses": answer}}
    if "fetch" in actions:
        paths[f"{item}/fetch"] = {"get": {"parameters": on_item, "responses": _response(row)}}
    if "update" in actions:
        body = body_schema(partial, is_partial=True)
        paths[f"{item}/update"] = {"post": _post(body, _ID, on_item, can_stream=False)}
    if "delete" in actions:
        paths[f"{item}/delete"] = {"post": _post({"type": "object"}, _ID, on_item, can_stream=False)}
    return paths


@cache
def document() -> JsonObject:
    """The document without its servers."""
    paths: JsonObject = {}
    for kind, resource in RESOURCES.items():
        paths.update(_paths_of(kind, resource, resource.actions))
    for kind, view in LINKED_VIEWS.items():
        paths.update(_paths_of(kind, resource_type(view.resource), view.actions))
    for path, fields, answer, can_stream in _SPECIAL:
        body = body_schema(fields)
        paths[f"/{path}"] = {"post": _post(body, answer, _params(path), can_stream=can_stream)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "ChatBotKit API sandbox", "version": "1.0.0"},
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
        "paths": dict(sorted(paths.items())),
    }


async def fetch_spec(call: Call) -> Answer:
    """The document, its server being the host that was asked."""
    host = call.request.headers.get("Host", "localhost")
    return json_answer({**document(), "servers": [{"url": f"http://{host}/api/v1"}]})


ROUTES: Final[Routes] = {("spec", False, "fetch"): fetch_spec}

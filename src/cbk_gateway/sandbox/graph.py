"""GraphQL: queries and mutations over the same rows, in a schema made from the resource table.

Always answered with 200 once the caller is known; what went wrong is in `errors`. Lists are connections
(`edges { node }`), paged by `first`/`after` or by the REST names `take`/`cursor`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

import orjson
from graphql import (
    GraphQLError,
    GraphQLSchema,
    OperationType,
    build_schema,
    get_operation_ast,
    graphql_sync,
    parse,
)

from cbk_gateway.sandbox.answers import Answer, ApiError, JsonObject, bad_request, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.crud import accepted, add_row, check_alias
from cbk_gateway.sandbox.paths import Target
from cbk_gateway.sandbox.query import read_page, select_page
from cbk_gateway.sandbox.resources import RESOURCES
from cbk_gateway.sandbox.schema import Field

_SCALARS: Final[Mapping[str, str]] = {"string": "String", "number": "Number", "boolean": "Boolean"}
_SKIPPED: Final = frozenset({"partner/user", "rating", "team"})
Resolve = Callable[[Call, str, JsonObject], JsonObject]
Resolver = Callable[..., JsonObject]


def served_kinds() -> tuple[str, ...]:
    """The types that GraphQL knows: the top-level ones and the integrations."""
    return tuple(
        kind
        for kind in RESOURCES
        if kind not in _SKIPPED
        and ("/" not in kind or (kind.count("/") == 1 and kind[:12] == "integration/"))
    )


def type_name(kind: str) -> str:
    """Name of the GraphQL type: `Bot`, `WidgetIntegration`."""
    space, _, last = kind.rpartition("/")
    return last.title() + ("Integration" if space else "")


def singular(kind: str) -> str:
    """Name of the field that gives one."""
    name = type_name(kind)
    return name[0].lower() + name[1:]


def plural(kind: str) -> str:
    """Name of the field that lists them."""
    name = singular(kind)
    return name[:-1] + "ies" if name.endswith("y") else name + "s"


def _scalar(field: Field) -> str:
    return _SCALARS.get(field.kind, "Number" if field.kind == "integer" else "JSON")


def _sdl_of(kind: str) -> str:
    name = type_name(kind)
    fields = RESOURCES[kind].fields or {}
    shown = [f"{key}: {_scalar(field)}" for key, field in fields.items() if field.answer != "omitted"]
    writable = [f"{key}: {_scalar(field)}" for key, field in fields.items() if not field.read_only]
    return f"""
type {name} {{ id: ID! createdAt: Number! updatedAt: Number! {" ".join(shown)} }}
type {name}Edge {{ cursor: ID! node: {name}! }}
type {name}Connection {{ edges: [{name}Edge!]! pageInfo: PageInfo! }}
input {name}CreateRequest {{ {" ".join(writable)} }}
input {name}UpdateRequest {{ {" ".join(writable)} }}
"""


@cache
def graph_schema() -> GraphQLSchema:
    """The schema of all served types."""
    queries, mutations, types = [], [], []
    for kind in served_kinds():
        name, param = type_name(kind), f"{singular(kind)}Id"
        types.append(_sdl_of(kind))
        paging = "first: Int after: ID take: Int cursor: ID order: String"
        queries.append(f"{plural(kind)}({paging}): {name}Connection!")
        queries.append(f"{singular(kind)}({param}: ID!): {name}")
        mutations.append(f"create{name}(input: {name}CreateRequest!): Reference!")
        mutations.append(f"update{name}({param}: ID!, input: {name}UpdateRequest!): Reference!")
        mutations.append(f"delete{name}({param}: ID!): Reference!")
    return build_schema(
        f"""
scalar JSON
scalar Number
type PageInfo {{ hasNextPage: Boolean! endCursor: ID }}
type Reference {{ id: ID! }}
type Query {{ {" ".join(queries)} }}
type Mutation {{ {" ".join(mutations)} }}
{"".join(types)}"""
    )


def _call_on(call: Call, kind: str, row_id: str | None, body: JsonObject) -> Call:
    target = Target((kind,), () if row_id is None else (row_id,), "execute")
    return Call(call.world, target, call.caller, {}, body, call.request, call.record)


def _list(call: Call, kind: str, asked: JsonObject) -> JsonObject:
    take = asked.get("first") or asked.get("take")
    cursor = asked.get("after") or asked.get("cursor")
    given = {"take": str(take) if take else "", "cursor": cursor or "", "order": asked.get("order") or ""}
    page = read_page({name: text for name, text in given.items() if text}, None, ascending=False)
    rows = select_page(call.world.store.rows(call.owner, kind), page)
    edges = [{"cursor": row.id, "node": row.view} for row in rows]
    end = rows[-1].id if rows else None
    return {"edges": edges, "pageInfo": {"endCursor": end, "hasNextPage": bool(take) and len(rows) == take}}


def _one(call: Call, kind: str, asked: JsonObject) -> JsonObject:
    return call.lookup(kind, next(iter(asked.values()))).view


def _create(call: Call, kind: str, asked: JsonObject) -> JsonObject:
    inner = _call_on(call, kind, None, asked["input"])
    values = accepted(inner, RESOURCES[kind].fields)
    check_alias(inner, kind, values)
    return {"id": add_row(inner, kind, values).id}


def _update(call: Call, kind: str, asked: JsonObject) -> JsonObject:
    body = asked.pop("input")
    row_id = next(iter(asked.values()))
    inner = _call_on(call, kind, row_id, body)
    values = accepted(inner, RESOURCES[kind].fields, partial=True)
    row = inner.lookup(kind, row_id)
    check_alias(inner, kind, values, row)
    call.world.store.change(row, values)
    return {"id": row.id}


def _delete(call: Call, kind: str, asked: JsonObject) -> JsonObject:
    row = call.lookup(kind, next(iter(asked.values())))
    call.world.store.remove(row)
    return {"id": row.id}


def _resolver(resolve: Resolve, call: Call, kind: str) -> Resolver:
    """A root field as the library calls it: with its context first, and its arguments by name."""

    def answer(_info: object, **asked: object) -> JsonObject:
        return resolve(call, kind, asked)

    return answer


def _root(call: Call) -> dict[str, Resolver]:
    root: dict[str, Resolver] = {}
    for kind in served_kinds():
        name = type_name(kind)
        root[plural(kind)] = _resolver(_list, call, kind)
        root[singular(kind)] = _resolver(_one, call, kind)
        root[f"create{name}"] = _resolver(_create, call, kind)
        root[f"update{name}"] = _resolver(_update, call, kind)
        root[f"delete{name}"] = _resolver(_delete, call, kind)
    return root


def _error_shape(error: GraphQLError) -> JsonObject:
    shape: JsonObject = dict(error.formatted)
    if isinstance(error.original_error, ApiError):
        shape["extensions"] = {"code": error.original_error.code}
    return shape


def _asked(call: Call) -> JsonObject:
    if call.request.method == "POST":
        return call.body
    asked: JsonObject = dict(call.query)
    if "variables" in asked:
        try:
            asked["variables"] = orjson.loads(asked["variables"])
        except orjson.JSONDecodeError as error:
            raise bad_request('"variables" must be JSON') from error
    return asked


async def execute(call: Call) -> Answer:
    """Run one GraphQL operation.

    Raises:
        ApiError: 400 when the request itself is not a GraphQL request.
    """
    asked = _asked(call)
    query, variables, name = asked.get("query"), asked.get("variables"), asked.get("operationName")
    if not isinstance(query, str):
        raise bad_request('"query" must be a string')
    if variables is not None and not isinstance(variables, dict):
        raise bad_request('"variables" must be of type object')
    if call.request.method == "GET" and _is_mutation(query, name):
        return json_answer({"errors": [{"message": "A mutation cannot be sent with GET"}]})
    result = graphql_sync(
        graph_schema(), query, root_value=_root(call), variable_values=variables, operation_name=name
    )
    shape: JsonObject = {"data": result.data}
    if result.errors:
        shape["errors"] = [_error_shape(error) for error in result.errors]
    return json_answer(shape)


def _is_mutation(query: str, name: object) -> bool:
    try:
        operation = get_operation_ast(parse(query), name if isinstance(name, str) else None)
    except GraphQLError:
        return False
    return operation is not None and operation.operation is OperationType.MUTATION


ROUTES: Final[Routes] = {("graphql", False, "execute"): execute}

"""The operators' API described as an OpenAPI 3.1 document, made from the routes it serves.

Nothing is written down twice: paths, roles and query parameters come from the route table, bodies from the
commands, closed answers from their types. How requests are answered does not belong here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from cbk_gateway import __version__
from cbk_gateway.admin.routes import Route

OPENAPI_VERSION: Final = "3.1.0"
_REFERENCE: Final = "#/components/schemas/{model}"
_PARAMETER: Final = re.compile(r"{(\w+)}")

_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "description": "The one shape of errors: a flat pair, and the same nested.",
    "required": ["message", "code", "error"],
    "properties": {
        "message": {"type": "string"},
        "code": {"type": "string"},
        "error": {
            "type": "object",
            "required": ["message", "code"],
            "properties": {"message": {"type": "string"}, "code": {"type": "string"}},
        },
        "problems": {"type": "array", "items": {"type": "string"}},
    },
}
_FAULTS: Final = {
    "400": "The request cannot be understood; the message names fields, never values.",
    "401": "No operator's token.",
    "403": "The operator's role is not enough.",
    "404": "There is no such thing.",
    "409": "It cannot be done as things stand.",
    "413": "The body is larger than any change.",
    "500": "The gateway failed to answer; its log says why.",
    "503": "The store or the journal is away.",
}
_ONLY_OF_CHANGES: Final = {"409", "413"}
_PATH_PARAMETERS: Final = {
    "id": "Id of the tenant.",
    "request_id": "The `X-Request-Id` of an answer.",
}


def description(routes: Iterable[Route]) -> dict[str, Any]:
    """The document of these routes, fit for JSON."""
    rows = tuple(routes)
    commands = [(row.command, "validation") for row in rows if row.command is not None]
    # Pydantic wants its literal type here; the pairs are made just above.
    _, definitions = models_json_schema(commands, ref_template=_REFERENCE)  # type: ignore[arg-type]
    schemas: dict[str, Any] = {"Error": _ERROR, **definitions.get("$defs", {})}
    for row in rows:
        if row.gives is not None:
            schemas |= _answer_schema(row.gives)
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "cbk-gateway operators' API",
            "version": __version__,
            "description": "Administration of one running gateway. Keep its port off the public network.",
        },
        "security": [{"operator": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "operator": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `admin.tokens` in the settings.",
                }
            },
            "schemas": schemas,
        },
    }


def _operation(row: Route) -> dict[str, Any]:
    faults = {
        status: {"description": text, "content": _json({"$ref": "#/components/schemas/Error"})}
        for status, text in _FAULTS.items()
        if status not in _ONLY_OF_CHANGES or row.command is not None
    }
    given = {"$ref": _REFERENCE.format(model=row.gives.__name__)} if row.gives else {"type": "object"}
    operation: dict[str, Any] = {
        "operationId": _name(row),
        "summary": row.summary,
        "tags": [row.path.split("/")[2].partition(".")[0]],
        "x-role": row.role,
        "parameters": _parameters(row),
        "responses": {"200": {"description": "Done.", "content": _json(given)}, **faults},
    }
    if row.command is not None:
        shape = {"$ref": _REFERENCE.format(model=row.command.__name__)}
        operation["requestBody"] = {"required": bool(_required(row)), "content": _json(shape)}
    return operation


def _required(row: Route) -> list[str]:
    fields = row.command.model_fields if row.command is not None else {}
    return [name for name, field in fields.items() if field.is_required()]


def _parameters(row: Route) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "description": _PATH_PARAMETERS[name], "schema": _TEXT}
        for name in _PARAMETER.findall(row.path)
    ]
    in_query = [
        {"name": name, "in": "query", "required": name in row.required, "description": text, "schema": _TEXT}
        for name, text in row.query.items()
    ]
    return in_path + in_query


def _name(row: Route) -> str:
    """`get_admin_tenants_id`: unique, since method and path are."""
    words = re.sub(r"\W+", "_", row.path.strip("/")).strip("_")
    return f"{row.method.lower()}_{words}"


def _answer_schema(given: type) -> dict[str, Any]:
    schema = TypeAdapter(given).json_schema(mode="serialization", ref_template=_REFERENCE)
    inner: dict[str, Any] = schema.pop("$defs", {})
    return {given.__name__: schema, **inner}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


_TEXT: Final = {"type": "string"}

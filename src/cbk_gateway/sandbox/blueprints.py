"""Blueprints: listing, exporting, importing, cloning and deleting the resources that belong to one.

A resource belongs to a blueprint when its `blueprintId` says so.
"""

from __future__ import annotations

from typing import Final

from cbk_gateway.sandbox.answers import Answer, JsonObject, bad_request, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.crud import add_row
from cbk_gateway.sandbox.resources import RESOURCES
from cbk_gateway.sandbox.schema import FLAG, check_body
from cbk_gateway.sandbox.store import Row

HCL: Final = "application/terraform+hcl"


def _members(call: Call, blueprint: Row) -> list[Row]:
    rows = call.world.store.owned(call.owner)
    return [row for row in rows if row.body.get("blueprintId") == blueprint.id]


def _by_kind(rows: list[Row]) -> JsonObject:
    grouped: JsonObject = {}
    for row in rows:
        grouped.setdefault(row.kind, []).append(row.view)
    return grouped


async def list_resources(call: Call) -> Answer:
    """What belongs to the blueprint, by type."""
    blueprint = call.parent()
    return json_answer({"id": blueprint.id, "resources": _by_kind(_members(call, blueprint))})


async def export_resources(call: Call) -> Answer:
    """The same, as JSON or as Terraform code."""
    blueprint = call.parent()
    members = _members(call, blueprint)
    if HCL in call.request.headers.get("Accept", ""):
        blocks = [
            f'resource "chatbotkit_{row.kind.replace("/", "_")}" "{row.id}" {{\n'
            f'  name = "{row.body.get("name") or ""}"\n}}\n'
            for row in members
        ]
        return Answer(body="\n".join(blocks).encode(), content_type=HCL)
    shape: JsonObject = {
        name: blueprint.view[name] for name in ("id", "name", "description") if name in blueprint.view
    }
    return json_answer({**shape, "resources": _by_kind(members)})


async def import_resources(call: Call) -> Answer:
    """Make or update resources from an export; an alias decides which is which.

    The body holds lists of resources by type, under `resources` (or `resource`).
    """
    blueprint = call.parent()
    given = call.body.get("resources") or call.body.get("resource")
    if not isinstance(given, dict):
        raise bad_request('"resources" must be of type object')
    made: dict[str, list[str]] = {}
    for kind, bodies in given.items():
        resource = RESOURCES.get(kind)
        if resource is None or resource.fields is None or not isinstance(bodies, list):
            raise bad_request(f'"resources.{kind}" is not allowed')
        for body in bodies:
            values = {name: value for name, value in body.items() if name in resource.fields}
            values["blueprintId"] = blueprint.id
            alias = values.get("alias")
            row = call.world.store.find_alias(call.owner, kind, alias) if isinstance(alias, str) else None
            if row is None:
                row = add_row(call, kind, values)
            else:
                call.world.store.change(row, values)
            made.setdefault(kind, []).append(row.id)
    return json_answer({"id": blueprint.id, "resources": made})


async def clone(call: Call) -> Answer:
    """A second blueprint with copies of all its resources."""
    blueprint = call.item()
    values = {name: value for name, value in blueprint.body.items() if name != "alias"}
    copy = add_row(call, "blueprint", values)
    made: dict[str, list[str]] = {}
    for row in _members(call, blueprint):
        body = {name: value for name, value in row.body.items() if name != "alias"}
        twin = add_row(call, row.kind, {**body, "blueprintId": copy.id}, row.parent)
        made.setdefault(row.kind, []).append(twin.id)
    return json_answer({"id": copy.id, "resources": made})


async def delete(call: Call) -> Answer:
    """Remove the blueprint, and with `deleteResources` everything in it."""
    check_body({"deleteResources": FLAG}, call.body, open_ended=True)
    blueprint = call.item()
    if call.body.get("deleteResources"):
        for row in _members(call, blueprint):
            call.world.store.remove(row)
    call.world.store.remove(blueprint)
    return json_answer({"id": blueprint.id})


ROUTES: Final[Routes] = {
    ("blueprint/resource", False, "list"): list_resources,
    ("blueprint/resource", False, "export"): export_resources,
    ("blueprint/resource", False, "import"): import_resources,
    ("blueprint", True, "clone"): clone,
    ("blueprint", True, "delete"): delete,
}

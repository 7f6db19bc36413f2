"""The generic pattern: create, list, export, fetch, update and delete of any resource type.

Special actions have handlers of their own elsewhere; what they share with the pattern, they call from here.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from cbk_gateway.sandbox.answers import Answer, ApiError, JsonObject, json_answer
from cbk_gateway.sandbox.calls import Call, Handler
from cbk_gateway.sandbox.lists import list_answer
from cbk_gateway.sandbox.query import read_page
from cbk_gateway.sandbox.resources import LINKED_VIEWS, resource_type
from cbk_gateway.sandbox.schema import Fields, check_body
from cbk_gateway.sandbox.store import Row

#: Values that the server makes up for a new row, by type.
_STARTING: Final[Mapping[str, JsonObject]] = {
    "dataset": {"store": "ada-loom"},
    "task": {"status": "idle", "outcome": "pending", "lastRunAt": None, "nextRunAt": None},
    "integration/sitemap": {"syncStatus": "pending"},
    "integration/notion": {"syncStatus": "pending"},
    "integration/trigger": {"lastTriggerAt": None, "nextTriggerAt": None},
}
_GENERATED: Final[Mapping[str, str]] = {
    "integration/trigger": "secret",
    "integration/whatsapp": "verifyToken",
    "integration/messenger": "verifyToken",
    "integration/instagram": "verifyToken",
    "integration/mcpserver": "accessToken",
    "integration/skillserver": "accessToken",
}


def stored_kind(call: Call) -> str:
    """The type whose rows the path shows."""
    view = LINKED_VIEWS.get(call.target.kind)
    return view.resource if view is not None else call.target.kind


def add_row(call: Call, kind: str, values: Mapping[str, object], parent: str | None = None) -> Row:
    """Create a row for the caller, with what the server makes up for its type."""
    starting = dict(_STARTING.get(kind, {}))
    generated = _GENERATED.get(kind)
    if generated is not None:
        starting[generated] = secrets.token_hex(16)
    if kind == "contact" and "fingerprint" not in values:
        starting["fingerprint"] = secrets.token_hex(12)
    return call.world.store.add(call.owner, kind, {**starting, **values}, parent=parent)


def accepted(call: Call, fields: Fields | None, *, partial: bool = False) -> JsonObject:
    """The body, checked, with its references resolved.

    Raises:
        ApiError: 400 for a body that does not fit.
    """
    if fields is not None:
        check_body(fields, call.body, partial=partial)
    return call.resolve(fields, call.body)


def check_alias(call: Call, kind: str, values: JsonObject, row: Row | None = None) -> None:
    """Refuse an alias that another row of the type has; an empty one means none.

    Raises:
        ApiError: 409.
    """
    if values.get("alias") == "":
        values["alias"] = None
    alias = values.get("alias")
    if isinstance(alias, str):
        holder = call.world.store.find_alias(call.owner, kind, alias)
        if holder is not None and holder is not row:
            raise ApiError(409, f'The alias "{alias}" is already in use')


async def create(call: Call) -> Answer:
    """Make a row and give its id."""
    kind = stored_kind(call)
    view = LINKED_VIEWS.get(call.target.kind)
    values = accepted(call, resource_type(kind).fields)
    parent = call.parent() if len(call.target.chain) > 1 else None
    check_alias(call, kind, values)
    if view is not None and parent is not None:
        values[view.key] = parent.id
        parent = None
    row = add_row(call, kind, values, parent.id if parent is not None else None)
    return json_answer({"id": row.id})


async def fetch(call: Call) -> Answer:
    """The row itself, flat."""
    return json_answer(call.item().view)


async def update(call: Call) -> Answer:
    """Set the given fields."""
    resource = resource_type(stored_kind(call))
    values = accepted(call, resource.fields, partial=True)
    for name in resource.create_only & values.keys():
        raise ApiError(400, f'"{name}" is not allowed')
    row = call.item()
    check_alias(call, row.kind, values, row)
    call.world.store.change(row, values)
    return json_answer({"id": row.id})


async def delete(call: Call) -> Answer:
    """Remove the row and what hangs on it."""
    row = call.item()
    call.world.store.remove(row)
    return json_answer({"id": row.id})


async def list_rows(call: Call) -> Answer:
    """The rows, as a page or as a stream."""
    kind = stored_kind(call)
    resource = resource_type(kind)
    page = read_page(call.query, resource.fields, ascending=resource.ascending)
    store = call.world.store
    view = LINKED_VIEWS.get(call.target.kind)
    if view is not None:
        parent_id = call.parent().id
        rows = {
            row.id: row
            for row in store.rows(call.owner, kind).values()
            if row.body.get(view.key) == parent_id
        }
    else:
        rows = store.rows(call.owner, kind, call.parent().id if len(call.target.chain) > 1 else None)
    return list_answer(call.accept, rows, page)


async def touch(call: Call) -> Answer:
    """An action that has no effect worth imitating beyond the row having changed."""
    row = call.item()
    call.world.store.change(row, {})
    return json_answer({"id": row.id})


async def clone(call: Call) -> Answer:
    """A second row like the first, without its alias."""
    row = call.item()
    values = {name: value for name, value in row.body.items() if name != "alias"}
    copy = add_row(call, row.kind, values, row.parent)
    return json_answer({"id": copy.id})


GENERIC: Final[Mapping[str, Handler]] = {
    "create": create,
    "list": list_rows,
    "export": list_rows,
    "fetch": fetch,
    "update": update,
    "delete": delete,
    "clone": clone,
}

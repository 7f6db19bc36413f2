"""Contacts: finding one by its fingerprint or making it, alone or in the course of another call.

`ensure` returns an existing contact unchanged, as the API does.
"""

from __future__ import annotations

from typing import Final

from cbk_gateway.sandbox.answers import Answer, JsonObject, bad_request, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.crud import add_row
from cbk_gateway.sandbox.resources import RESOURCES
from cbk_gateway.sandbox.schema import NAME, Fields, check_body, required
from cbk_gateway.sandbox.store import Row

_FIELDS: Final[Fields] = RESOURCES["contact"].fields or {}
ENSURE: Final[Fields] = {**_FIELDS, "fingerprint": required(NAME)}


def ensure_contact(call: Call, values: JsonObject) -> Row:
    """The contact with that fingerprint; a new one when there is none."""
    fingerprint = values.get("fingerprint")
    for row in call.world.store.rows(call.owner, "contact").values():
        if fingerprint is not None and row.body.get("fingerprint") == fingerprint:
            return row
    return add_row(call, "contact", values)


def resolve_contact(call: Call, values: JsonObject) -> None:
    """Replace an inline contact (`contactId` or `contact` as an object) by the id of a real one.

    Raises:
        ApiError: 400 for a contact that is neither an id nor a valid object.
    """
    given = values.pop("contact", None) or values.get("contactId")
    if isinstance(given, dict):
        check_body(_FIELDS, given)
        values["contactId"] = ensure_contact(call, given).id
    elif isinstance(given, str):
        values["contactId"] = call.resolve(RESOURCES["conversation"].fields, {"contactId": given})[
            "contactId"
        ]
    elif given is not None:
        raise bad_request('"contactId" must be a string')


async def ensure(call: Call) -> Answer:
    """Find or make a contact."""
    check_body(ENSURE, call.body)
    return json_answer({"id": ensure_contact(call, call.body).id})


async def upsert(call: Call) -> Answer:
    """Find or make a contact and put it into the conversation."""
    check_body(_FIELDS, call.body)
    conversation = call.parent()
    contact = ensure_contact(call, call.body)
    call.world.store.change(conversation, {"contactId": contact.id})
    return json_answer({"id": contact.id})


ROUTES: Final[Routes] = {
    ("contact", False, "ensure"): ensure,
    ("conversation/contact", False, "upsert"): upsert,
}

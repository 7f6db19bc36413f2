"""Secrets, partner users and their keys: the calls that make, check or use a credential.

Stored secrets come back masked (that is the table's doing); what appears here in the clear is what the API
shows once, when it is made.
"""

from __future__ import annotations

from typing import Final

from cbk_gateway.sandbox.answers import Answer, JsonObject, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.crud import accepted, add_row
from cbk_gateway.sandbox.lists import list_answer
from cbk_gateway.sandbox.query import read_page
from cbk_gateway.sandbox.resources import RESOURCES
from cbk_gateway.sandbox.schema import OBJECT, TEXT, Field, Fields, check_body
from cbk_gateway.sandbox.store import Row

_TOKEN: Final[Fields] = RESOURCES["partner/user/token"].fields or {}
_CONTEXT: Final[Fields] = RESOURCES["partner/user/context"].fields or {}
_SESSION: Final[Fields] = {"durationInSeconds": Field("integer", minimum=1, maximum=86_400), "config": OBJECT}


def _secret(call: Call) -> Row:
    """The addressed secret, of the account or as seen by a contact."""
    if call.target.chain[0] == "contact":
        call.lookup("contact", call.target.ids[0])
    return call.lookup("secret", call.target.ids[-1])


def _authorize_url(call: Call, row: Row) -> str:
    return f"{call.world.base_url}/_sandbox/authorize/{row.id}?state={call.world.random.randbytes(8).hex()}"


async def authenticate(call: Call) -> Answer:
    """A one-time link that authorizes the secret."""
    row = _secret(call)
    call.world.store.change(row, {}, {"authenticated": True})
    return json_answer({"id": row.id, "url": _authorize_url(call, row)})


async def verify(call: Call) -> Answer:
    """Whether the secret can be used."""
    row = _secret(call)
    if row.body.get("value") or row.hidden.get("authenticated"):
        return json_answer({"id": row.id, "status": "authenticated"})
    action = {"type": "authenticate", "url": _authorize_url(call, row)}
    return json_answer({"id": row.id, "status": "unauthenticated", "action": action})


async def revoke(call: Call) -> Answer:
    """Forget the value of the secret."""
    row = _secret(call)
    call.world.store.change(row, {"value": None}, {"authenticated": False})
    return json_answer({"id": row.id})


async def mint(call: Call) -> Answer:
    """A live credential made from the secret."""
    row = _secret(call)
    expires_ms = call.world.store.now_ms() + 3_600_000
    token = f"minted-{call.world.random.randbytes(16).hex()}"
    return json_answer({"id": row.id, "token": token, "expiresAt": expires_ms})


async def proxy(call: Call) -> Answer:
    """What a third party answers to a request made with the secret: here, an echo, in its own format."""
    row = _secret(call)
    method, url = call.body.get("method", "GET"), call.body.get("url", "")
    return Answer(
        status=203,
        body=f"third party saw {method} {url} with {row.body.get('name') or row.id}".encode(),
        content_type="text/plain; charset=utf-8",
        headers={"X-Third-Party": "yes"},
    )


async def list_contact_secrets(call: Call) -> Answer:
    """The personal secrets that a contact could authorize."""
    call.parent()
    rows = call.world.store.rows(call.owner, "secret")
    personal = {row.id: row for row in rows.values() if row.body.get("kind") == "personal"}
    return list_answer(call.accept, personal, read_page(call.query, {}, ascending=False), _without_config)


def _without_config(row: Row) -> JsonObject:
    return {name: value for name, value in row.view.items() if name not in ("config", "value")}


async def create_token(call: Call) -> Answer:
    """A secret key of a child account; shown this once."""
    check_body(_TOKEN, call.body)
    child = call.parent()
    row = add_row(call, "partner/user/token", call.body, child.id)
    token = call.world.accounts.mint_key(row)
    return json_answer({"id": row.id, "token": token, "createdAt": row.created})


async def create_context(call: Call) -> Answer:
    """A context of a child account, answered in full."""
    values = accepted(call, _CONTEXT)
    row = add_row(call, "partner/user/context", values, call.parent().id)
    return json_answer(row.view)


async def create_user_session(call: Call) -> Answer:
    """A token that acts as the child account for a while."""
    check_body(_SESSION, call.body)
    child = call.parent()
    duration_s = int(call.body.get("durationInSeconds") or 3_600)
    token, expires_ms = call.world.accounts.mint_session(call.caller, child.id, duration_s, None)
    return json_answer({"id": child.id, "token": token, "expiresAt": expires_ms})


async def unfurl(call: Call) -> Answer:
    """What a link would look like; nothing is fetched."""
    check_body({"url": Field("string", required=True, nullable=False), "text": TEXT}, call.body)
    return json_answer({"url": call.body["url"], "title": "A page", "description": "As the sandbox sees it."})


_SECRET_ACTIONS: Final = {
    "authenticate": authenticate,
    "verify": verify,
    "revoke": revoke,
    "mint": mint,
    "proxy": proxy,
}

ROUTES: Final[Routes] = {
    **{("secret", True, action): handler for action, handler in _SECRET_ACTIONS.items()},
    **{("contact/secret", True, action): handler for action, handler in _SECRET_ACTIONS.items()},
    ("contact/secret", False, "list"): list_contact_secrets,
    ("partner/user/token", False, "create"): create_token,
    ("partner/user/context", False, "create"): create_context,
    ("partner/user/session", False, "create"): create_user_session,
    ("url", False, "unfurl"): unfurl,
}

"""Finds the handler of a call: the special routes first, then the generic pattern.

Also what may be called how: the methods of each action, and the few routes that need no credential. It
neither reads requests nor writes answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cbk_gateway.sandbox import (
    abilities,
    accounting,
    blueprints,
    catalogue,
    chat_completions,
    contacts,
    conversations,
    credentials,
    crud,
    files,
    graph,
    runs,
    search,
    spaces,
    spec,
    subscriptions,
    work,
)
from cbk_gateway.sandbox.accounts import Caller
from cbk_gateway.sandbox.calls import Handler, Routes, offered
from cbk_gateway.sandbox.paths import GET_ACTIONS, Target
from cbk_gateway.sandbox.resources import resource_type
from cbk_gateway.sandbox.store import Store

_MODULES: Final = (
    abilities,
    accounting,
    blueprints,
    catalogue,
    chat_completions,
    contacts,
    conversations,
    credentials,
    files,
    graph,
    runs,
    search,
    spaces,
    spec,
    subscriptions,
    work,
)
ROUTES: Final[Routes] = {key: handler for module in _MODULES for key, handler in module.ROUTES.items()}
_BOTH_METHODS: Final = frozenset({("integration/skillserver", "invoke"), ("graphql", "execute")})


def find_handler(target: Target) -> Handler | None:
    """The handler of a target, or None when the API has no such route."""
    special = ROUTES.get((target.kind, target.on_item, target.action))
    if special is not None:
        return special
    return crud.GENERIC.get(target.action, crud.touch) if offered(target) else None


def allows(target: Target, method: str) -> bool:
    """Whether the target may be called with that method."""
    if (target.kind, target.action) in _BOTH_METHODS:
        return method in ("GET", "POST")
    return method == ("GET" if target.action in GET_ACTIONS else "POST")


def is_upload(target: Target) -> bool:
    """Whether the body may be something else than JSON."""
    return target.action == "upload"


def needs_credential(target: Target) -> bool:
    """Whether only an account may call it."""
    return target.chain != ("spec",)


def anonymous_caller(store: Store, target: Target, token: str) -> Caller | None:
    """The caller of a route that is open to strangers, or to an integration's own token; else None."""
    if target.kind == "platform/limit" and target.action == "list":
        return Caller("", "", None, "public")
    row = store.get(target.ids[0]) if len(target.ids) == 1 else None
    if row is None:
        return None
    is_public = row.body.get("visibility") == "public"
    named = (target.kind, target.action)
    if is_public and named in (("file", "download"), ("bot/session", "create")):
        return Caller(row.owner, row.owner, None, "public")
    own_token = row.body.get("accessToken") or row.body.get("secret")
    own_routes = (("integration/skillserver", "invoke"), ("integration/trigger", "event"))
    if named in own_routes and token and token == own_token:
        return Caller(row.owner, row.owner, None, row.id)
    return None


def shadowed(target: Target, query: Mapping[str, str]) -> Target:
    """The target with ids taken from query keys of the same name.

    The API merges query and path parameters and lets the query win; a proxy in front must not be fooled.
    """
    ids = list(target.ids)
    for level in range(len(ids)):
        param = resource_type("/".join(target.chain[: level + 1])).param
        ids[level] = query.get(param) or ids[level]
    return Target(target.chain, tuple(ids), target.action, target.tail)

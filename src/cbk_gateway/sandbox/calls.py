"""What a handler is given: the call it serves, and the world it acts on.

Also the questions every handler asks: which row does this id mean, and may the caller touch it. No handler
lives here, and nothing here reads a socket.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from aiohttp import web

from cbk_gateway.sandbox.accounts import Accounts, Caller
from cbk_gateway.sandbox.answers import Answer, ApiError, JsonObject
from cbk_gateway.sandbox.blobs import Blobs
from cbk_gateway.sandbox.channels import Channels
from cbk_gateway.sandbox.ledger import Ledger
from cbk_gateway.sandbox.paths import Target
from cbk_gateway.sandbox.request_log import RequestRecord
from cbk_gateway.sandbox.resources import CRUD_ACTIONS, LINKED_VIEWS, LinkedView, resource_type
from cbk_gateway.sandbox.schema import Field, Fields
from cbk_gateway.sandbox.store import Row, Store


@dataclass(slots=True)
class World:
    """Everything that outlives a request.

    Attributes:
        base_url: Where this sandbox listens, for the URLs it hands out.
        last_sync: When each resource was last synced, in ms, by owner and path.
    """

    store: Store
    accounts: Accounts
    channels: Channels
    blobs: Blobs
    ledger: Ledger
    random: random.Random
    base_url: str = ""
    last_sync: dict[tuple[str, str], int] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Let work go on after the answer; it ends with the sandbox at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


@dataclass(slots=True)
class Call:
    """One call of the API, understood and authenticated.

    Attributes:
        caller: Who calls.
        query: Query parameters, the first of repeated keys.
        body: The JSON body; empty for GET and for uploads.
        request: The request itself, for the headers and for upload routes that read its body.
    """

    world: World
    target: Target
    caller: Caller
    query: Mapping[str, str]
    body: JsonObject
    request: web.BaseRequest
    record: RequestRecord

    @property
    def owner(self) -> str:
        """Whose rows it sees."""
        return self.caller.owner

    @property
    def accept(self) -> str:
        """The first media type that the client accepts, lower case; JSON when it does not care."""
        first = self.request.headers.get("Accept", "").partition(",")[0].partition(";")[0].strip().lower()
        return "application/json" if first in ("", "*/*") else first

    def item(self) -> Row:
        """The row that the call addresses.

        Raises:
            ApiError: 404 when there is none, 403 when it belongs to another account.
        """
        view = LINKED_VIEWS.get(self.target.kind)
        if view is not None:
            row = self.lookup(view.resource, self.target.ids[-1])
            if row.body.get(view.key) != self.parent().id:
                raise ApiError(404)
            return row
        if len(self.target.chain) > 1:
            row = self.lookup(self.target.kind, self.target.ids[-1])
            if row.parent != self.parent().id:
                raise ApiError(404)
            return row
        return self.lookup(self.target.kind, self.target.ids[0])

    def parent(self) -> Row:
        """The row that encloses the addressed one.

        Raises:
            ApiError: 404 or 403, as for `item`.
        """
        depth = len(self.target.chain) - 1
        row: Row | None = None
        for level in range(depth):
            found = self.lookup("/".join(self.target.chain[: level + 1]), self.target.ids[level])
            if row is not None and found.parent != row.id:
                raise ApiError(404)
            row = found
        if row is None:
            raise ApiError(404)
        return row

    def lookup(self, kind: str, reference: str) -> Row:
        """The caller's row that an id, `@alias`, `@@alias`, `@user@alias` or `(name)` means.

        Raises:
            ApiError: 404 when there is none, 403 when a raw id belongs to another account.
        """
        row = self.world.store.get(reference)
        if row is not None and row.kind == kind:
            if row.owner != self.owner:
                raise ApiError(403)
            return row
        found = self._by_alias(kind, reference) if resource_type(kind).aliased else None
        if found is None:
            raise ApiError(404)
        return found

    def _by_alias(self, kind: str, reference: str) -> Row | None:
        store = self.world.store
        if reference.startswith("(") and reference.endswith(")"):
            return store.find_name(self.owner, kind, reference[1:-1])
        if reference.startswith("@@"):
            parent = self.world.accounts.parent_of(self.caller)
            return store.find_alias(parent, kind, reference[2:]) if parent is not None else None
        if not reference.startswith("@"):
            return None
        user, found, alias = reference[1:].partition("@")
        if not found:
            return store.find_alias(self.owner, kind, user)
        sibling = store.find_alias(self.caller.account, "partner/user", user)
        return store.find_alias(sibling.id, kind, alias) if sibling is not None else None

    def resolve(self, fields: Fields | None, values: Mapping[str, object]) -> JsonObject:
        """The values with aliases replaced by ids; a foreign id that means nothing is refused.

        Raises:
            ApiError: 400 for an unknown reference, 403 for one of another account.
        """
        return {
            name: self._resolve_one(fields.get(name) if fields else None, name, value)
            for name, value in values.items()
        }

    def _resolve_one(self, declared: Field | None, name: str, value: object) -> object:
        if declared is None or declared.ref is None or not isinstance(value, str) or not value:
            return value
        try:
            return self.lookup(declared.ref, value).id
        except ApiError as error:
            if error.status == 404:
                raise ApiError(400, f'"{name}" does not exist') from error
            raise


Handler: TypeAlias = Callable[[Call], Awaitable[Answer]]

#: The handler of each special route: type chain, whether it is on one item, and action.
Routes: TypeAlias = Mapping[tuple[str, bool, str], Handler]


def media_type(request: web.BaseRequest) -> str:
    """The media type of the body, lower case, without parameters."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def offered(target: Target) -> bool:
    """Whether the generic pattern offers this action on this type."""
    view: LinkedView | None = LINKED_VIEWS.get(target.kind)
    actions = view.actions if view is not None else resource_type(target.kind).actions
    if target.action not in actions:
        return False
    on_item = target.action in {"fetch", "update", "delete"} or target.action not in CRUD_ACTIONS | {"export"}
    return on_item == target.on_item

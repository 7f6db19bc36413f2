"""What operators may see: tenants, the effective settings, what a request would be. Secrets never."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson
from aiohttp import web

from cbk_gateway.admin.answers import AuditPage, Explained, Items, Named
from cbk_gateway.admin.routes import Answering, Route
from cbk_gateway.audit import JournalFault
from cbk_gateway.audit.index import passed_over
from cbk_gateway.audit.search import Page, Query, Story, page, show
from cbk_gateway.errors import BadRequest, NotFound, ServiceUnavailable
from cbk_gateway.explaining import EVERYBODY, explained
from cbk_gateway.limits.inspection import LimitsStanding
from cbk_gateway.operation import canonical
from cbk_gateway.parties import Tenant
from cbk_gateway.store import StoreFault
from cbk_gateway.tenancy.operations import TenantOperations

if TYPE_CHECKING:
    from cbk_gateway.app import Gateway

_AUDIT_FILTERS: Final = {
    "since": "Earliest time, RFC 3339 in UTC or a beginning of it.",
    "until": "Latest time, exclusive.",
    "tenant": "Tenant id.",
    "subject": "Token subject.",
    "resource": "Resource type and those below it.",
    "action": "Action, such as create.",
    "object_id": "An id in the path, or one an answer named.",
    "result": "answered, not_sent, unknown, aborted_by_client, or a kind of record such as refused.",
    "request_id": "The `X-Request-Id` of an answer.",
    "text": "Any text of a record, such as a digest.",
}
_AUDIT_QUERY: Final = {
    **_AUDIT_FILTERS,
    "limit": "Records on a page, 1 to 1000; 100 unless given.",
    "cursor": "From the page before.",
}
_PAGE: Final = 100
_MAX_PAGE: Final = 1000

T = TypeVar("T")


class Views:
    """Read-only answers about one gateway process."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        """Where they stand. Whoever may come here may see all of it."""
        asked = {
            "method": "GET unless given.",
            "path": "With its query.",
            "tenant": "Whose rights to look at; `*` for everybody's.",
            "scope": "What a token of theirs may do, with blanks between; without it tokens are left out.",
        }
        kept = {
            "account": "The upstream account.",
            "type": "Only answers of this type.",
            "id": "Only answers that name this id, in path, query or body.",
        }
        return [
            _route("/admin/tenants", self.tenants, gives=Items),
            _route("/admin/tenants/{id}", self.tenant, gives=Named),
            _route("/admin/settings", self.settings),
            _route("/admin/explain", self.explain, asked, {"path"}, gives=Explained),
            _route("/admin/tokens/revocations", self.revocations, gives=Items),
            _route("/admin/limits/{id}", self.limits, gives=LimitsStanding),
            _route("/admin/cache", self.cache, kept, {"account"}, gives=Items),
            _route("/admin/audit", self.audit, _AUDIT_QUERY, gives=AuditPage),
            _route("/admin/audit/{request_id}", self.audit_story, gives=Items),
        ]

    async def tenants(self, _: web.Request) -> web.Response:
        """Every tenant, without keys."""
        found = [self._shown(tenant) for tenant in self._gateway.parts.registry.all().values()]
        return _json({"items": found})

    async def tenant(self, request: web.Request) -> web.Response:
        """One tenant, without keys."""
        return _json(self._shown(self._tenant(request.match_info["id"])))

    async def settings(self, _: web.Request) -> web.Response:
        """The settings in force. They hold references, not secrets; a URL is shown without its password."""
        settings = self._gateway.loaded.settings.model_dump(mode="json")
        settings["store"]["url"] = self._gateway.store.shown_url
        return _json(settings)

    async def explain(self, request: web.Request) -> web.Response:
        """What a request would be, and who may do it: `?method=GET&path=/api/v1/bot/list&tenant=acme`."""
        path = request.query.get("path")
        if path is None:
            raise BadRequest("Give `path`, and `method` and `tenant` if you like.")
        name = request.query.get("tenant")
        tenant = self._tenant(name) if name not in {None, EVERYBODY} else None
        everybody = self._gateway.parts.registry.all().values() if name == EVERYBODY else ()
        scope = request.query.get("scope")
        scopes = scope.split() if scope is not None else None
        cache, method = self._gateway.loaded.settings.cache, request.query.get("method", "GET")
        return _json(explained(method, path, tenant, cache, scopes=scopes, everybody=everybody))

    async def revocations(self, _: web.Request) -> web.Response:
        """The revocations in force, newest first."""
        found = await _of_store(self._gateway.parts.identity.revocations())
        return _json({"items": [{"id": one.id, **asdict(one)} for one in found]})

    async def limits(self, request: web.Request) -> web.Response:
        """A tenant's rates, quotas and open requests as they stand."""
        tenant = self._tenant(request.match_info["id"])
        return _json(asdict(await _of_store(self._gateway.parts.limiter.show(tenant))))

    async def cache(self, request: web.Request) -> web.Response:
        """What is remembered of an account: `?account=acme&type=bot&id=bot_1`; 1000 answers at most."""
        account, kind = request.query.get("account"), request.query.get("type")
        if account is None:
            raise BadRequest("Give `account`.")
        types = frozenset({canonical(kind)}) if kind is not None else frozenset[str]()
        cache = self._gateway.parts.cache
        found = await _of_store(cache.show(account, types, request.query.get("id"), limit=_MAX_PAGE))
        return _json({"items": [asdict(one) for one in found]})

    async def audit(self, request: web.Request) -> web.Response:
        """Records of the journal, newest first: `?tenant=acme&since=2026-11-22&limit=50&cursor=...`."""
        words: dict[str, Any] = dict(request.query)
        limit = _page_size(words.pop("limit", str(_PAGE)))
        cursor = words.pop("cursor", None)
        unknown = set(words) - set(_AUDIT_FILTERS)
        if unknown:
            raise BadRequest(
                f"There is no filter {min(unknown)[:40]!r}; use {', '.join(sorted(_AUDIT_FILTERS))}."
            )
        query = replace(Query(), **words)
        try:
            found = await _of_journal(_page, self._journal_folder, query, limit=limit, cursor=cursor)
        except ValueError as fault:
            raise BadRequest(f"{fault}.") from None
        return _json({"items": [one.fields for one in found.records], "cursor": found.cursor})

    async def audit_story(self, request: web.Request) -> web.Response:
        """Everything about one request: intent, outcome, verdict."""
        stories = await _of_journal(_story, self._journal_folder, request.match_info["request_id"])
        if not stories:
            raise NotFound("The journal knows no such request.")
        return _json({"items": [story_fields(one) for one in stories]})

    @property
    def _journal_folder(self) -> Path:
        return self._gateway.loaded.path(self._gateway.loaded.settings.audit.directory)

    def _tenant(self, name: str) -> Tenant:
        tenant = self._gateway.parts.registry.get(name)
        if tenant is None:
            raise NotFound("There is no such tenant.")
        return tenant

    def _shown(self, tenant: Tenant) -> dict[str, object]:
        return TenantOperations(self._gateway.directory).shown(tenant)


def story_fields(story: Story) -> dict[str, object]:
    """A story as a plain document; parts that the journal lacks are null, other records stand beside."""
    parts = {"intent": story.intent, "outcome": story.outcome, "verdict": story.verdict}
    told: dict[str, object] = {
        name: part.fields if part is not None else None for name, part in parts.items()
    }
    return {**told, "others": [one.fields for one in story.others]}


def _route(
    path: str,
    answer: Answering,
    query: Mapping[str, str] | None = None,
    required: Collection[str] = (),
    *,
    gives: type | None = None,
) -> Route:
    summary = (inspect.getdoc(answer) or "").partition("\n")[0]
    return Route(
        "GET", path, "viewer", answer, summary, query=query or {}, required=frozenset(required), gives=gives
    )


async def _of_store(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except StoreFault as fault:
        raise ServiceUnavailable(f"{fault}.") from None


def _page(folder: Path, query: Query, *, limit: int, cursor: str | None) -> Page:
    return page(folder, query, limit=limit, cursor=cursor, without=passed_over(folder, query))


def _story(folder: Path, request_id: str) -> list[Story]:
    return show(folder, request_id, without=passed_over(folder, Query(request_id=request_id)))


async def _of_journal(read: Callable[..., T], *place: object, **how: object) -> T:
    """Read the journal's files beside the loop."""
    try:
        return await asyncio.to_thread(read, *place, **how)
    except (JournalFault, OSError):
        raise ServiceUnavailable("The journal cannot be read now.", reason="audit") from None


def _page_size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_PAGE:
        raise BadRequest(f"`limit` is a number from 1 to {_MAX_PAGE}.")
    return int(text)


def _json(document: object) -> web.Response:
    return web.Response(body=orjson.dumps(document, default=str), content_type="application/json")

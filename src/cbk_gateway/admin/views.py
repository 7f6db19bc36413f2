"""What operators may see: tenants, the effective settings, what a request would be. Secrets never."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from cbk_gateway.audit.search import Query, Story, page, show
from cbk_gateway.errors import BadRequest, NotFound, ServiceUnavailable
from cbk_gateway.explaining import explained
from cbk_gateway.parties import Tenant
from cbk_gateway.store import StoreFault
from cbk_gateway.tenancy.operations import TenantOperations

if TYPE_CHECKING:
    from cbk_gateway.app import Gateway

_AUDIT_WORDS: Final = frozenset(
    {"since", "until", "tenant", "subject", "resource", "action", "object_id", "result", "request_id", "text"}
)


class Views:
    """Read-only answers about one gateway process."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[web.RouteDef]:
        """Where they stand."""
        return [
            web.get("/admin/tenants", self.tenants),
            web.get("/admin/tenants/{id}", self.tenant),
            web.get("/admin/settings", self.settings),
            web.get("/admin/explain", self.explain),
            web.get("/admin/tokens/revocations", self.revocations),
            web.get("/admin/limits/{id}", self.limits),
            web.get("/admin/cache", self.cache),
            web.get("/admin/audit", self.audit),
            web.get("/admin/audit/{request_id}", self.audit_story),
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
        """What a request would be: `?method=GET&path=/api/v1/bot/list&tenant=acme`."""
        path = request.query.get("path")
        if path is None:
            raise BadRequest("Give `path`, and `method` and `tenant` if you like.")
        name = request.query.get("tenant")
        tenant = self._tenant(name) if name is not None else None
        settings = self._gateway.loaded.settings
        return _json(explained(request.query.get("method", "GET"), path, tenant, settings.cache))

    async def revocations(self, _: web.Request) -> web.Response:
        """The revocations in force, newest first."""
        try:
            found = await self._gateway.parts.identity.revocations()
        except StoreFault as fault:
            raise ServiceUnavailable(f"{fault}.") from None
        return _json({"items": [{"id": one.id, **asdict(one)} for one in found]})

    async def limits(self, request: web.Request) -> web.Response:
        """A tenant's rates, quotas and open requests as they stand."""
        tenant = self._tenant(request.match_info["id"])
        try:
            return _json(asdict(await self._gateway.parts.limiter.show(tenant)))
        except StoreFault as fault:
            raise ServiceUnavailable(f"{fault}.") from None

    async def cache(self, request: web.Request) -> web.Response:
        """What is remembered of an account: `?account=acme&type=bot&id=bot_1`."""
        account = request.query.get("account")
        if account is None:
            raise BadRequest("Give `account`.")
        try:
            kept = await self._gateway.parts.cache.show(account)
        except StoreFault as fault:
            raise ServiceUnavailable(f"{fault}.") from None
        wanted = request.query.get("type", ""), request.query.get("id", "")
        found = [asdict(one) for one in kept]
        return _json({"items": [one for one in found if all(word in str(one) for word in wanted)]})

    async def audit(self, request: web.Request) -> web.Response:
        """Records of the journal, newest first: `?tenant=acme&since=2026-11-22&limit=50&cursor=...`."""
        words: dict[str, Any] = dict(request.query)
        limit = min(1000, int(words.pop("limit", "100"))) if words.get("limit", "1").isdigit() else 100
        cursor = words.pop("cursor", None)
        unknown = set(words) - _AUDIT_WORDS
        if unknown:
            raise BadRequest(
                f"There is no filter {min(unknown)[:40]!r}; use {', '.join(sorted(_AUDIT_WORDS))}."
            )
        query = replace(Query(), **words)
        found = await asyncio.to_thread(page, self._journal_folder, query, limit=limit, cursor=cursor)
        return _json({"items": [one.fields for one in found.records], "cursor": found.cursor})

    async def audit_story(self, request: web.Request) -> web.Response:
        """Everything about one request: intent, outcome, verdict."""
        stories = await asyncio.to_thread(show, self._journal_folder, request.match_info["request_id"])
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
    """A story as a plain document; parts that the journal lacks are null."""
    parts = {"intent": story.intent, "outcome": story.outcome, "verdict": story.verdict}
    return {name: part.fields if part is not None else None for name, part in parts.items()}


def _json(document: object) -> web.Response:
    return web.Response(body=orjson.dumps(document, default=str), content_type="application/json")

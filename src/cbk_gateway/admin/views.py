"""What operators may see: tenants, the effective settings, what a request would be. Secrets never."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from cbk_gateway.errors import BadRequest, NotFound
from cbk_gateway.explaining import explained
from cbk_gateway.parties import Tenant

if TYPE_CHECKING:
    from cbk_gateway.app import Gateway


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
        ]

    async def tenants(self, _: web.Request) -> web.Response:
        """Every tenant, without keys."""
        found = [shown(tenant) for tenant in self._gateway.parts.registry.all().values()]
        return web.json_response({"items": found})

    async def tenant(self, request: web.Request) -> web.Response:
        """One tenant, without keys."""
        return web.json_response(shown(self._tenant(request.match_info["id"])))

    async def settings(self, _: web.Request) -> web.Response:
        """The settings in force. They hold references, not secrets; a URL is shown without its password."""
        settings = self._gateway.loaded.settings.model_dump(mode="json")
        settings["store"]["url"] = self._gateway.store.shown_url
        return web.json_response(settings)

    async def explain(self, request: web.Request) -> web.Response:
        """What a request would be: `?method=GET&path=/api/v1/bot/list&tenant=acme`."""
        path = request.query.get("path")
        if path is None:
            raise BadRequest("Give `path`, and `method` and `tenant` if you like.")
        name = request.query.get("tenant")
        tenant = self._tenant(name) if name is not None else None
        settings = self._gateway.loaded.settings
        return web.json_response(explained(request.query.get("method", "GET"), path, tenant, settings.cache))

    def _tenant(self, name: str) -> Tenant:
        tenant = self._gateway.parts.registry.get(name)
        if tenant is None:
            raise NotFound("There is no such tenant.")
        return tenant


def shown(tenant: Tenant) -> dict[str, object]:
    """A tenant as operators may see it."""
    limits = tenant.limits
    return {
        "id": tenant.id,
        "account": tenant.account,
        "key": repr(tenant.key),
        "next_key": repr(tenant.next_key) if tenant.next_key is not None else None,
        "run_as": {"form": str(tenant.run_as.form), "value": tenant.run_as.value} if tenant.run_as else None,
        "scopes": list(tenant.scopes),
        "rates": [
            {"name": rate.name, "per_second": rate.per_second, "burst": rate.burst, "match": rate.match}
            for rate in limits.rates
        ],
        "quotas": [
            {
                "name": quota.name,
                "period": str(quota.period),
                "measure": str(quota.measure),
                "limit": quota.limit,
            }
            for quota in limits.quotas
        ],
        "labels": dict(tenant.labels),
        "disabled": tenant.disabled,
    }

"""What operators may change. Every change is journalled durably before it is made, with who made it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from cbk_gateway.admin import commands
from cbk_gateway.admin.operators import OPERATOR, needs
from cbk_gateway.errors import BadRequest, Conflict, NotFound, Refusal, ServiceUnavailable
from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.store import StoreFault
from cbk_gateway.telemetry import change_level, current_level
from cbk_gateway.tenancy.operations import OperationFault, TenantOperations, Why

if TYPE_CHECKING:
    from cbk_gateway.app import Gateway

Answer = Mapping[str, object]
Change = Callable[[web.Request], Awaitable[Answer]]


class Changes:
    """The changing half of the operators' port."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[web.RouteDef]:
        """Where they stand, and the role each needs."""
        table: tuple[tuple[str, str, Change], ...] = (
            ("/admin/tokens/mint", "admin", self.mint),
            ("/admin/tokens/revoke", "operator", self.revoke),
            ("/admin/tokens/lift", "operator", self.lift),
            ("/admin/tenants", "admin", self.create_tenant),
            ("/admin/tenants/{id}/disable", "operator", self.disable),
            ("/admin/tenants/{id}/enable", "operator", self.enable),
            ("/admin/tenants/{id}/delete", "admin", self.delete),
            ("/admin/tenants/{id}/key/rotate", "admin", self.rotate),
            ("/admin/tenants/{id}/key/promote", "admin", self.promote),
            ("/admin/tenants/{id}/key/drop", "admin", self.drop),
            ("/admin/limits/{id}/reset", "operator", self.reset_limit),
            ("/admin/quotas/{id}/grant", "operator", self.grant_quota),
            ("/admin/quotas/{id}/reset", "operator", self.reset_quota),
            ("/admin/cache/purge", "operator", self.purge),
            ("/admin/log-level", "operator", self.log_level),
            ("/admin/reload", "operator", self.reload),
        )
        return [web.post(path, self._answering(role, change)) for path, role, change in table]

    def _answering(self, role: str, change: Change) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            needs(request, role)
            try:
                document = await change(request)
            except StoreFault as fault:
                raise ServiceUnavailable(
                    f"The store is away, so nothing is sure to have changed: {fault}."
                ) from None
            except OperationFault as fault:
                raise _refused(fault) from None
            except KeyError as missing:
                raise NotFound(f"There is no {missing.args[0]!r} here.") from None
            except ValueError as fault:
                raise BadRequest(f"{fault}.") from None
            return web.Response(body=orjson.dumps(document, default=str), content_type="application/json")

        return answer

    async def _record(self, request: web.Request, what: str, **fields: object) -> None:
        """Journal a change before it is made; one that cannot be journalled is not made."""
        journal = self._gateway.parts.journal
        if journal is not None:
            await journal.record("admin", {"operator": request[OPERATOR].name, "change": what, **fields})

    # Tokens

    async def mint(self, request: web.Request) -> Answer:
        """Make a token."""
        command = await commands.parsed(request, commands.Mint)
        minter = self._gateway.minter
        if minter is None:
            raise Conflict("The settings have no `identity.mint`, so this gateway signs no tokens.")
        self._tenant(command.tenant)
        minted = minter.issue(command.tenant, command.subject, command.scopes, command.ttl_s)
        await self._record(
            request,
            "token.mint",
            tenant=command.tenant,
            subject=command.subject,
            scopes=list(command.scopes),
            token_id=minted.token_id,
            expires_at=minted.expires_at,
        )
        return {"token": minted.token.reveal(), "token_id": minted.token_id, "expires_at": minted.expires_at}

    async def revoke(self, request: web.Request) -> Answer:
        """Revoke tokens."""
        command = await commands.parsed(request, commands.Revoke)
        await self._record(request, "token.revoke", **command.model_dump(exclude_none=True))
        target: dict[str, Any] = {"token_id": command.token_id, "issued_before": command.issued_before}
        if command.subject is not None:
            if command.tenant is None:
                raise BadRequest("Name the subject's `tenant` too.")
            target["subject"] = (command.tenant, command.subject)
        else:
            target["tenant"] = command.tenant
        revocation = await self._gateway.parts.identity.revoke(**target, note=command.note)
        return {"id": revocation.id}

    async def lift(self, request: web.Request) -> Answer:
        """Take a revocation back."""
        command = await commands.parsed(request, commands.Lift)
        await self._record(request, "token.lift", revocation=command.id)
        if not await self._gateway.parts.identity.lift(command.id):
            raise NotFound("There is no such revocation.")
        return {"id": command.id}

    # Tenants and their keys

    async def create_tenant(self, request: web.Request) -> Answer:
        """Define a tenant in the store."""
        command = await commands.parsed(request, commands.CreateTenant)
        await self._record(request, "tenant.create", tenant=str(command.definition.get("id")))
        key = Secret(command.key) if command.key is not None else None
        return self._operations.shown(await self._operations.create(command.definition, key))

    async def disable(self, request: web.Request) -> Answer:
        """Refuse everything a tenant asks, within a second."""
        return await self._on_tenant(request, "tenant.disable", self._operations.disable)

    async def enable(self, request: web.Request) -> Answer:
        """Take a disabling back."""
        return await self._on_tenant(request, "tenant.enable", self._operations.enable)

    async def delete(self, request: web.Request) -> Answer:
        """Remove a tenant that the store defines."""
        return await self._on_tenant(request, "tenant.delete", self._operations.delete)

    async def rotate(self, request: web.Request) -> Answer:
        """Give a tenant a next key."""
        command = await commands.parsed(request, commands.NewKey)

        async def begin(tenant_id: str) -> object:
            return await self._operations.begin_rotation(tenant_id, Secret(command.key))

        return await self._on_tenant(request, "key.rotate", begin)

    async def promote(self, request: web.Request) -> Answer:
        """Make the next key the current one."""
        return await self._on_tenant(request, "key.promote", self._operations.promote)

    async def drop(self, request: web.Request) -> Answer:
        """Give the next key up."""
        return await self._on_tenant(request, "key.drop", self._operations.drop)

    # Limits, cache, logs

    async def reset_limit(self, request: web.Request) -> Answer:
        """Fill a tenant's buckets."""
        command = await commands.parsed(request, commands.ResetLimit)
        tenant = self._tenant(request.match_info["id"])
        await self._record(request, "limit.reset", tenant=tenant.id, policy=command.policy)
        return {"filled": list(await self._gateway.parts.limiter.reset(tenant, command.policy))}

    async def grant_quota(self, request: web.Request) -> Answer:
        """Let a tenant use more in the present period."""
        command = await commands.parsed(request, commands.GrantQuota)
        tenant = self._tenant(request.match_info["id"])
        await self._record(
            request, "quota.grant", tenant=tenant.id, quota=command.quota, amount=command.amount
        )
        standing = await self._gateway.parts.limiter.quota_grant(tenant, command.quota, command.amount)
        return asdict(standing)

    async def reset_quota(self, request: web.Request) -> Answer:
        """Forget what was used in the present period."""
        command = await commands.parsed(request, commands.ResetQuota)
        tenant = self._tenant(request.match_info["id"])
        await self._record(request, "quota.reset", tenant=tenant.id, quota=command.quota)
        return asdict(await self._gateway.parts.limiter.quota_reset(tenant, command.quota))

    async def purge(self, request: web.Request) -> Answer:
        """Forget an account's answers."""
        command = await commands.parsed(request, commands.Purge)
        await self._record(request, "cache.purge", account=command.account, types=list(command.types))
        await self._gateway.parts.cache.purge(command.account, frozenset(command.types) or None)
        return {"account": command.account, "types": list(command.types) or "all"}

    async def log_level(self, request: web.Request) -> Answer:
        """Change how much is logged."""
        command = await commands.parsed(request, commands.LogLevel)
        await self._record(request, "log.level", level=command.level, before=current_level())
        change_level(command.level)
        return {"level": current_level()}

    async def reload(self, request: web.Request) -> Answer:
        """Read the tenants again at once. A file that cannot be used leaves everything as it was."""
        await self._record(request, "tenants.reload")
        is_usable = await self._gateway.directory.reload()
        problems = [str(problem) for problem in self._gateway.directory.problems()]
        if not is_usable:
            raise Conflict(
                "The tenants' file cannot be used; the tenants stay.", details={"problems": problems}
            )
        return {"tenants": len(self._gateway.parts.registry), "problems": problems}

    async def _on_tenant(
        self, request: web.Request, what: str, operation: Callable[[str], Awaitable[object]]
    ) -> Answer:
        tenant_id = request.match_info["id"]
        await self._record(request, what, tenant=tenant_id)
        await operation(tenant_id)
        tenant = self._gateway.parts.registry.get(tenant_id)
        return self._operations.shown(tenant) if tenant is not None else {"id": tenant_id}

    @property
    def _operations(self) -> TenantOperations:
        return TenantOperations(self._gateway.directory)

    def _tenant(self, name: str) -> Tenant:
        tenant = self._gateway.parts.registry.get(name)
        if tenant is None:
            raise NotFound("There is no such tenant.")
        return tenant


def _refused(fault: OperationFault) -> Refusal:
    details = {"problems": [str(problem) for problem in fault.problems]} if fault.problems else None
    if fault.why is Why.UNKNOWN:
        return NotFound(str(fault), details=details)
    return Conflict(str(fault), reason=str(fault.why), details=details)

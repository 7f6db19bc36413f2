"""What operators may change. Every change is journalled durably before it is made, with who made it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from aiohttp import web

from cbk_gateway.admin import answers, commands
from cbk_gateway.admin.operators import OPERATOR
from cbk_gateway.admin.routes import Route
from cbk_gateway.errors import BadRequest, Conflict, NotFound, Refusal, ServiceUnavailable
from cbk_gateway.limits.inspection import Filling, QuotaStanding
from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.store import StoreFault
from cbk_gateway.telemetry import change_level, current_level
from cbk_gateway.tenancy.operations import OperationFault, TenantOperations, Why

if TYPE_CHECKING:
    from cbk_gateway.app import Gateway

Answer = Mapping[str, object]
C = TypeVar("C", bound=commands.Command)
Change = Callable[[web.Request, C], Awaitable[Answer]]


class Changes:
    """The changing half of the operators' port."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        """Where they stand, the role each needs, and what each takes."""
        row, nothing, named = self._route, commands.Nothing, answers.Named
        of_tenant, of_quota = "/admin/tenants/{id}", "/admin/quotas/{id}"
        return [
            row("/admin/tokens/mint", "admin", commands.Mint, self.mint, answers.MintedToken),
            row("/admin/tokens/revoke", "operator", commands.Revoke, self.revoke, named),
            row("/admin/tokens/lift", "operator", commands.Lift, self.lift, named),
            row("/admin/tenants", "admin", commands.CreateTenant, self.create_tenant, named),
            row(of_tenant + "/disable", "operator", nothing, self.disable, named),
            row(of_tenant + "/enable", "operator", nothing, self.enable, named),
            row(of_tenant + "/delete", "admin", nothing, self.delete, named),
            row(of_tenant + "/key/rotate", "admin", commands.NewKey, self.rotate, named),
            row(of_tenant + "/key/promote", "admin", nothing, self.promote, named),
            row(of_tenant + "/key/drop", "admin", nothing, self.drop, named),
            row("/admin/keys/reseal", "admin", nothing, self.reseal, answers.Resealed),
            row(
                "/admin/limits/{id}/reset", "operator", commands.ResetLimit, self.reset_limit, answers.Filled
            ),
            row(of_quota + "/grant", "operator", commands.GrantQuota, self.grant_quota, QuotaStanding),
            row(of_quota + "/reset", "operator", commands.ResetQuota, self.reset_quota, QuotaStanding),
            row("/admin/cache/purge", "operator", commands.Purge, self.purge, answers.Purged),
            row("/admin/log-level", "operator", commands.LogLevel, self.log_level, answers.Level),
            row("/admin/reload", "operator", nothing, self.reload, answers.TenantsRead),
        ]

    @staticmethod
    def _route(path: str, role: str, command: type[C], change: Change[C], gives: type) -> Route:
        async def answer(request: web.Request) -> web.Response:
            asked = await commands.parsed(request, command)
            try:
                document = await change(request, asked)
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

        summary = (inspect.getdoc(change) or "").partition("\n")[0]
        return Route("POST", path, role, answer, summary, command=command, gives=gives)

    async def _record(self, request: web.Request, what: str, **fields: object) -> None:
        """Journal a change before it is made; one that cannot be journalled is not made."""
        journal = self._gateway.parts.journal
        if journal is not None:
            await journal.record("admin", {"operator": request[OPERATOR].name, "change": what, **fields})

    # Tokens

    async def mint(self, request: web.Request, command: commands.Mint) -> Answer:
        """Make a token."""
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

    async def revoke(self, request: web.Request, command: commands.Revoke) -> Answer:
        """Revoke tokens."""
        await self._record(request, "token.revoke", **command.model_dump(exclude_none=True))
        target: dict[str, Any] = {"token_id": command.token_id, "issued_before": command.issued_before}
        if command.subject is not None and command.tenant is not None:
            target["subject"] = (command.tenant, command.subject)
        else:
            target["tenant"] = command.tenant
        revocation = await self._gateway.parts.identity.revoke(**target, note=command.note)
        return {"id": revocation.id}

    async def lift(self, request: web.Request, command: commands.Lift) -> Answer:
        """Take a revocation back."""
        await self._record(request, "token.lift", revocation=command.id)
        if not await self._gateway.parts.identity.lift(command.id):
            raise NotFound("There is no such revocation.")
        return {"id": command.id}

    # Tenants and their keys

    async def create_tenant(self, request: web.Request, command: commands.CreateTenant) -> Answer:
        """Define a tenant in the store."""
        await self._record(request, "tenant.create", tenant=str(command.definition.get("id")))
        key = Secret(command.key) if command.key is not None else None
        return self._operations.shown(await self._operations.create(command.definition, key))

    async def disable(self, request: web.Request, _: commands.Nothing) -> Answer:
        """Refuse everything a tenant asks, within a second."""
        return await self._on_tenant(request, "tenant.disable", self._operations.disable)

    async def enable(self, request: web.Request, _: commands.Nothing) -> Answer:
        """Take a disabling back."""
        return await self._on_tenant(request, "tenant.enable", self._operations.enable)

    async def delete(self, request: web.Request, _: commands.Nothing) -> Answer:
        """Remove a tenant that the store defines."""
        return await self._on_tenant(request, "tenant.delete", self._operations.delete)

    async def rotate(self, request: web.Request, command: commands.NewKey) -> Answer:
        """Give a tenant a next key."""

        async def begin(tenant_id: str) -> object:
            return await self._operations.begin_rotation(tenant_id, Secret(command.key), command.expires_at)

        return await self._on_tenant(request, "key.rotate", begin)

    async def promote(self, request: web.Request, _: commands.Nothing) -> Answer:
        """Make the next key the current one."""
        return await self._on_tenant(request, "key.promote", self._operations.promote)

    async def drop(self, request: web.Request, _: commands.Nothing) -> Answer:
        """Give the next key up."""
        return await self._on_tenant(request, "key.drop", self._operations.drop)

    async def reseal(self, request: web.Request, _: commands.Nothing) -> Answer:
        """Seal stored keys again that are under an older master key, which then can be taken out."""
        await self._record(request, "keys.reseal")
        return {"resealed": await self._operations.reseal()}

    # Limits, cache, logs

    async def reset_limit(self, request: web.Request, command: commands.ResetLimit) -> Answer:
        """Fill a tenant's buckets."""
        tenant = self._tenant(request.match_info["id"])
        also = command.model_dump(exclude_defaults=True, exclude={"policy"})
        await self._record(request, "limit.reset", tenant=tenant.id, policy=command.policy, **also)
        filling = Filling(**command.model_dump())
        return {"filled": list(await self._gateway.parts.limiter.reset(tenant, filling))}

    async def grant_quota(self, request: web.Request, command: commands.GrantQuota) -> Answer:
        """Let a tenant use more in the present period."""
        tenant = self._tenant(request.match_info["id"])
        await self._record(
            request, "quota.grant", tenant=tenant.id, quota=command.quota, amount=command.amount
        )
        standing = await self._gateway.parts.limiter.quota_grant(tenant, command.quota, command.amount)
        return asdict(standing)

    async def reset_quota(self, request: web.Request, command: commands.ResetQuota) -> Answer:
        """Forget what was used in the present period."""
        tenant = self._tenant(request.match_info["id"])
        await self._record(request, "quota.reset", tenant=tenant.id, quota=command.quota)
        return asdict(await self._gateway.parts.limiter.quota_reset(tenant, command.quota))

    async def purge(self, request: web.Request, command: commands.Purge) -> Answer:
        """Forget an account's answers."""
        about = {"account": command.account, "types": list(command.types), "id": command.id}
        await self._record(request, "cache.purge", **about)
        cache = self._gateway.parts.cache
        dropped = await cache.purge(command.account, frozenset(command.types), command.id)
        return {**about, "types": list(command.types) or "all", "dropped": dropped}

    async def log_level(self, request: web.Request, command: commands.LogLevel) -> Answer:
        """Change how much is logged."""
        await self._record(request, "log.level", level=command.level, before=current_level())
        change_level(command.level)
        return {"level": current_level()}

    async def reload(self, request: web.Request, _: commands.Nothing) -> Answer:
        """Read the tenants again at once. A file that cannot be used leaves everything as it was."""
        await self._record(request, "tenants.reload")
        is_usable = await self._gateway.reload_tenants()
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
    if fault.why is Why.INVALID:
        return BadRequest(str(fault), reason=str(fault.why), details=details)
    return Conflict(str(fault), reason=str(fault.why), details=details)

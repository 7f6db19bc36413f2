"""What operators do to tenants at run time: create, disable, delete, rotate.

It is written to the store, so that every process acts on it within a second. Nothing here is on the path of
a request. Answers show no key. Who may call this is the admin API's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Final

import orjson

from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.settings.faults import Problem
from cbk_gateway.settings.references import ReferenceFault, parse_reference
from cbk_gateway.settings.shapes import fit
from cbk_gateway.settings.tenant_models import TenantShape
from cbk_gateway.settings.tenants import assemble
from cbk_gateway.settings.yaml_file import YamlDocument
from cbk_gateway.store import StoreFault, StoreTrouble
from cbk_gateway.tenancy.cipher import CipherFault
from cbk_gateway.tenancy.directory import Directory
from cbk_gateway.tenancy.overrides import (
    KEY,
    NEXT_KEY,
    NO_OVERRIDE,
    Override,
    digest,
    dropping,
    promotion,
    rotation_to,
)
from cbk_gateway.tenancy.records import Records

_ATTEMPTS: Final = 5
_REQUEST: Final = YamlDocument("request", None)


class Why(StrEnum):
    """Why an operation was not done."""

    UNKNOWN = "unknown_tenant"
    EXISTS = "tenant_exists"
    IN_FILE = "defined_in_file"
    INVALID = "invalid"
    CONFLICT = "changed_meanwhile"
    NO_NEXT_KEY = "no_next_key"
    NO_MASTER_KEY = "no_master_key"
    NO_STORE = "no_store"


class OperationFault(Exception):  # noqa: N818 - named as the other packages' faults are
    """An operation that was not done. `problems` says what is wrong with a definition."""

    def __init__(self, why: Why, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.why = why
        self.problems = problems


class TenantOperations:
    """Changes tenants in the store and waits until this process has taken the change.

    Every method may raise `OperationFault`, and `StoreFault` when the store is away.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def shown(self, tenant: Tenant) -> dict[str, object]:
        """A tenant as operators see it, fit for JSON: without keys, which show as fingerprints."""
        limits = tenant.limits
        return {
            "id": tenant.id,
            "account": tenant.account,
            "origin": self._directory.origin(tenant.id),
            "disabled": tenant.disabled,
            "key": repr(tenant.key),
            "keyExpires": tenant.key_expires,
            "nextKey": repr(tenant.next_key) if tenant.next_key is not None else None,
            "nextKeyExpires": tenant.next_key_expires,
            "runAs": {"header": str(tenant.run_as.form), "value": tenant.run_as.value}
            if tenant.run_as is not None
            else None,
            "scopes": list(tenant.scopes),
            "limits": {
                "rates": [
                    {"name": one.name, "perSecond": one.per_second, "burst": one.burst, "match": one.match}
                    for one in (*limits.rates, *((limits.subject_rate,) if limits.subject_rate else ()))
                ],
                "quotas": [
                    {"name": one.name, "period": one.period, "measure": one.measure, "limit": one.limit}
                    for one in limits.quotas
                ],
                "maxConcurrent": limits.max_concurrent,
                "maxStreams": limits.max_streams,
            },
            "labels": dict(tenant.labels),
            "timezone": tenant.timezone,
            "isolation": tenant.isolation,
            "mayRunAs": tenant.may_run_as,
            "mayBypassCache": tenant.may_bypass_cache,
            "tokenNotBefore": tenant.token_not_before,
        }

    async def create(self, definition: Mapping[str, object], key: Secret | None = None) -> Tenant:
        """Define a tenant in the store.

        Args:
            definition: As in the file; `key` may be a reference, or be left out when `key` is given.
            key: The upstream key itself; it is stored sealed.
        """
        records = self._records()
        document = dict(definition)
        if key is not None:
            # Checked as any reference would be; the sealed text takes its place below.
            document["key"] = "env:SEALED"
        shape, problems = fit(TenantShape, document, _REQUEST)
        if shape is None:
            raise OperationFault(Why.INVALID, "The definition cannot be used.", tuple(problems))
        self._refuse_plain_keys(shape)
        if shape.id in self._directory.defined:
            raise OperationFault(Why.EXISTS, f"There is a tenant {shape.id} already.")
        row = shape.model_dump(mode="json", exclude_unset=True)
        if key is not None:
            self._refuse_second_account(assemble(shape, key, None))
            row["key"] = self._sealed(key, shape.id, KEY)
        # An override left by a former tenant of this id must not act on the new one.
        await self._clear_override(records, shape.id)
        if not await records.write_record(shape.id, None, orjson.dumps(row)):
            raise OperationFault(Why.EXISTS, f"There is a tenant {shape.id} already.")
        await self._taken()
        return self._tenant(shape.id)

    async def delete(self, tenant_id: str) -> None:
        """Remove a tenant that the store defines."""
        records = self._records()
        self._tenant(tenant_id)
        if self._directory.origin(tenant_id) == "file":
            message = f"The tenant {tenant_id} is defined in the file: remove it there, or disable it here."
            raise OperationFault(Why.IN_FILE, message)
        old = self._directory.rows.records.get(tenant_id)
        if not await records.write_record(tenant_id, old, None):
            raise _conflict(tenant_id)
        await self._clear_override(records, tenant_id)
        await self._taken()

    async def disable(self, tenant_id: str) -> None:
        """Refuse everything a tenant asks, in every process within a second."""
        await self._override(tenant_id, lambda _, old: replace(old, disabled=True))

    async def enable(self, tenant_id: str) -> Tenant:
        """Take a disabling back. A tenant whose definition says `disabled` stays so."""
        return await self._override(tenant_id, lambda _, old: replace(old, disabled=False))

    async def refuse_tokens_before(self, tenant_id: str, epoch_s: int) -> Tenant:
        """Refuse a tenant's tokens that were issued before a moment, in epoch seconds."""
        return await self._override(tenant_id, lambda _, old: replace(old, token_not_before=epoch_s))

    async def begin_rotation(
        self, tenant_id: str, next_key: Secret, next_expires: int | None = None
    ) -> Tenant:
        """Give a tenant a next key, which a share of its safe GETs will try first.

        `next_expires` is when it stops working, in epoch seconds, if that is known.
        """

        def begun(tenant: Tenant, old: Override) -> Override:
            sealed_key = self._sealed(tenant.key, tenant_id, KEY)
            sealed_next = self._sealed(next_key, tenant_id, NEXT_KEY)
            defined = self._directory.defined[tenant_id]
            return rotation_to(defined, tenant, old, sealed_key, sealed_next, next_expires=next_expires)

        await self._records().forget_tally(tenant_id)
        return await self._override(tenant_id, begun)

    async def promote(self, tenant_id: str, *, only: str | None = None, by: str = "operator") -> Tenant:
        """Make the next key the current one. The former one may be revoked upstream a second later.

        Given `only`, a digest, another next key is left as it is. `by` is "operator" or "gateway".
        """
        return await self._end_rotation(tenant_id, promotion, "promoted", only, by)

    async def drop(self, tenant_id: str, *, only: str | None = None, by: str = "operator") -> Tenant:
        """Give the next key up; arguments as of `promote`."""
        return await self._end_rotation(tenant_id, dropping, "dropped", only, by)

    async def reseal(self) -> int:
        """Seal stored keys again that are under an older master key; says how many tenants that were.

        Run it after putting a new master key first; then the old one may be taken out.
        """
        records, changed = self._records(), 0
        rows = self._directory.rows
        for kept, write in ((rows.records, records.write_record), (rows.overrides, records.write_override)):
            for name, octets in tuple(kept.items()):
                row = self._resealed(name, octets)
                if row is not None:
                    changed += await write(name, octets, row)
        await self._taken()
        return changed

    async def _end_rotation(
        self,
        tenant_id: str,
        end: Callable[[Tenant, Override], Override],
        outcome: str,
        only: str | None,
        by: str,
    ) -> Tenant:
        def ended(tenant: Tenant, old: Override) -> Override:
            if only is not None and (tenant.next_key is None or digest(tenant.next_key) != only):
                message = f"the tenant {tenant_id} has another next key, or none"
                raise ValueError(message)
            return end(tenant, old)

        tenant = await self._override(tenant_id, ended)
        self._directory.observer.rotation_ended(tenant_id, outcome, by)
        await self._records().forget_tally(tenant_id)
        return tenant

    async def _override(self, tenant_id: str, change: Callable[[Tenant, Override], Override]) -> Tenant:
        records = self._records()
        for _ in range(_ATTEMPTS):
            tenant = self._tenant(tenant_id)
            old = self._directory.rows.overrides.get(tenant_id)
            try:
                new = change(tenant, self._directory.override_of(tenant_id))
            except ValueError as exc:
                raise OperationFault(Why.NO_NEXT_KEY, f"{exc}.") from None
            octets = None if new == NO_OVERRIDE else new.encoded()
            if await records.write_override(tenant_id, old, octets):
                await self._taken()
                return self._tenant(tenant_id)
            # Another operator, or another process, was faster: look at what is there now.
            await self._taken()
        raise _conflict(tenant_id)

    async def _clear_override(self, records: Records, tenant_id: str) -> None:
        old = (await records.read()).overrides.get(tenant_id)
        if old is not None and not await records.write_override(tenant_id, old, None):
            raise _conflict(tenant_id)

    async def _taken(self) -> None:
        if not await self._directory.refresh(always=True):
            message = "the store went away; the change is made, this process has not taken it yet"
            raise StoreFault(message, StoreTrouble.AWAY)

    @staticmethod
    def _refuse_plain_keys(shape: TenantShape) -> None:
        for name, text in (("key", shape.key), ("next_key", shape.next_key)):
            try:
                if text is not None:
                    parse_reference(text)
            except ReferenceFault as fault:
                problem = Problem("request", name, fault.message, fault.remedy)
                raise OperationFault(Why.INVALID, "The definition cannot be used.", (problem,)) from None

    def _sealed(self, key: Secret, tenant_id: str, name: str) -> str:
        try:
            return self._directory.keys.seal(key, tenant_id, name)
        except CipherFault as fault:
            raise OperationFault(Why.NO_MASTER_KEY, f"The key cannot be stored: {fault}.") from None

    def _resealed(self, tenant_id: str, octets: bytes) -> bytes | None:
        try:
            row = self._directory.keys.resealed(orjson.loads(octets), tenant_id)
        except (CipherFault, orjson.JSONDecodeError) as fault:
            message = f"What is stored of the tenant {tenant_id} cannot be sealed again: {fault}."
            raise OperationFault(Why.NO_MASTER_KEY, message) from None
        return orjson.dumps(row) if row is not None else None

    def _refuse_second_account(self, tenant: Tenant) -> None:
        """One credential is one account, or one tenant's writes would not reach another's cache."""
        for other in self._directory.defined.values():
            same = other.key == tenant.key and other.run_as == tenant.run_as
            if same and other.account != tenant.account:
                message = f"Its key is also {other.id}'s, whose account has another name."
                problem = Problem("request", "account", message, "Give both the same `account`.")
                raise OperationFault(Why.INVALID, "The definition cannot be used.", (problem,))

    def _tenant(self, tenant_id: str) -> Tenant:
        tenant = self._directory.registry.get(tenant_id)
        if tenant is None:
            raise OperationFault(Why.UNKNOWN, f"There is no tenant {tenant_id[:63]}.")
        return tenant

    def _records(self) -> Records:
        if self._directory.records is None:
            raise OperationFault(Why.NO_STORE, "Tenants are changed at run time in the store; there is none.")
        return self._directory.records


def _conflict(tenant_id: str) -> OperationFault:
    return OperationFault(Why.CONFLICT, f"The tenant {tenant_id} was changed by somebody else meanwhile.")

"""Objects of tenants who share one upstream account: who made what, and who may touch it.

The first tenant that makes an object owns it; that is kept in the store per account. Under
`isolation: objects` a tenant reaches what it owns and what lies below that, and nothing else: an object
nobody is known to have made counts as foreign, because a dashboard or a model's ability may have made it
for another. `report` refuses nothing and counts what `objects` would have refused; run it first, and give
old objects to their owners with `assign`.

Which ids a request speaks of is `object_ids.py`. What scopes allow is not looked at here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Final

import structlog

from cbk_gateway.errors import NotAuthorized, NotFound, ServiceUnavailable
from cbk_gateway.operation import Operation
from cbk_gateway.parties import Tenant
from cbk_gateway.store import Store, StoreFault
from cbk_gateway.tenancy import object_ids
from cbk_gateway.tenancy.observer import SilentObserver, TenancyObserver
from cbk_gateway.tenancy.options import TenancyOptions
from cbk_gateway.tenancy.scopes import is_indirect

_LOG: Final = structlog.get_logger(__name__)

_CLAIMED_AT_ONCE: Final = 1000
"""Ids of one call to the store: enough for any batch, few enough that no other waits long."""

OFF: Final = "none"
REPORT: Final = "report"

# First come, first served: the owner of each id after the call, which is the caller only where nobody was.
_CLAIM: Final = """
local owners = {}
for at = 2, #ARGV do
  redis.call('HSETNX', KEYS[1], ARGV[at], ARGV[1])
  owners[at - 1] = redis.call('HGET', KEYS[1], ARGV[at])
end
return owners
"""


class Ownership:
    """Remembers and checks owners. Tenants with `isolation: none` cost one comparison.

    Owners that were seen are remembered in the process: an object's owner does not change while it lives.
    """

    def __init__(
        self, store: Store, options: TenancyOptions | None = None, observer: TenancyObserver | None = None
    ) -> None:
        self._store = store
        self._bound = (options if options is not None else TenancyOptions()).owners_remembered
        self._observer = observer if observer is not None else SilentObserver()
        self._claim = store.script(_CLAIM)
        self._seen: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._reported: set[tuple[str, str]] = set()

    def watches(self, tenant: Tenant) -> bool:
        """Whether the tenant's objects are looked at at all."""
        return tenant.isolation != OFF

    def filters(self, tenant: Tenant, operation: Operation) -> bool:
        """Whether the answer has to pass `filter_list` before the client sees it."""
        return tenant.isolation != OFF and object_ids.shows_many(operation)

    async def check(self, tenant: Tenant, operation: Operation) -> None:
        """Refuse what is not the tenant's, by the ids of path and query.

        Raises:
            NotFound: It names an object of another tenant, or of nobody known.
            NotAuthorized: It reaches the whole account without naming objects.
            ServiceUnavailable: Owners cannot be looked up now.
        """
        if tenant.isolation == OFF or object_ids.is_public(operation):
            return
        if object_ids.reaches_whole_account(operation):
            self._foreign(tenant, operation)
            if tenant.isolation != REPORT:
                raise NotAuthorized(
                    "This reaches objects of others on the same account.", reason="whole_account"
                )
            return
        ids = object_ids.path_ids(operation)
        named = object_ids.query_ids(operation.query)
        top = () if ids.top is None else (ids.top,)
        if not top and not named:
            return
        if object_ids.is_claimed_by_use(operation) and ids.top is not None:
            owners = await self._claimed(tenant, (ids.top,))
        else:
            owners = await self._owners(tenant, object_ids.unique((*top, *ids.below, *named)))
        # Below an own object, what nobody is known to have made was made through that object.
        foreign_top = ids.top is not None and owners.get(ids.top) != tenant.id
        others = any(owners.get(one, tenant.id) != tenant.id for one in (*ids.below, *named))
        unclear = any(is_indirect(one) for one in (*ids.below, *named))
        if foreign_top or others or unclear:
            self._refuse(tenant, operation)

    async def check_body(self, tenant: Tenant, operation: Operation, body: bytes) -> None:
        """Refuse a JSON body that names another tenant's object, such as a foreign `botId`.

        Bodies that are not JSON name nothing. An id nobody is known to have made passes: bodies also name
        things that are not objects, models among them.

        Raises:
            NotFound: It names another tenant's object, or one by its alias, or too many to look at.
            ServiceUnavailable: Owners cannot be looked up now.
        """
        if tenant.isolation == OFF or object_ids.is_public(operation):
            return
        named = object_ids.body_ids(body)
        if named is None:
            self._refuse(tenant, operation)
        if not named:
            return
        owners = await self._owners(tenant, tuple(named))
        if any(is_indirect(one) or owners.get(one, tenant.id) != tenant.id for one in named):
            self._refuse(tenant, operation)

    async def remember(self, tenant: Tenant, operation: Operation, answer_ids: Iterable[str]) -> bool:
        """Note who made the objects of a successful answer; forget what a delete removed.

        To be awaited before the answer reaches the client, who may use the id at once.

        Returns:
            False when an id turned out to be another tenant's (`ensure` may find one); under
            `isolation: objects` the answer must then not be passed on.

        Raises:
            ServiceUnavailable: The store is away. The object exists, and is nobody's until assigned.
        """
        if tenant.isolation == OFF:
            return True
        if operation.scope_action == "delete":
            await self._forget(tenant, operation)
            return True
        ids = object_ids.unique(answer_ids)
        if not ids or not object_ids.creates(operation):
            return True
        owners = await self._claimed(tenant, ids)
        if all(owner == tenant.id for owner in owners.values()):
            return True
        self._foreign(tenant, operation)
        return tenant.isolation == REPORT

    async def filter_list(self, tenant: Tenant, operation: Operation, body: bytes) -> bytes:
        """A list's whole body (JSON or JSONL, not compressed) with the tenant's own items only.

        Raises:
            NotAuthorized: The body has a form whose items cannot be told apart, such as CSV.
            ServiceUnavailable: Owners cannot be looked up now.
        """
        if not self.filters(tenant, operation):
            return body
        ids = object_ids.listed_ids(body)
        if ids is None:
            self._foreign(tenant, operation)
            if tenant.isolation == REPORT:
                return body
            raise NotAuthorized("Ask for this list as JSON or JSON lines.", reason="unfilterable")
        owners = await self._owners(tenant, object_ids.unique(ids))
        nested = object_ids.is_nested(operation)

        def is_own(identifier: str | None) -> bool:
            if identifier is None:
                return nested
            return owners.get(identifier, tenant.id if nested else None) == tenant.id

        if all(is_own(one) for one in ids):
            return body
        self._foreign(tenant, operation)
        if tenant.isolation == REPORT:
            return body
        return object_ids.kept_items(body, is_own) or b""

    async def owner_of(self, account: str, identifier: str) -> str | None:
        """The tenant that owns an object, or None when nobody is known to.

        Raises:
            StoreFault: The store is away.
        """
        owner = await self._store.ask("HGET", _key(account), identifier)
        return _text(owner) if owner is not None else None

    async def assign(self, account: str, tenant_id: str, identifiers: Collection[str]) -> None:
        """Give objects to a tenant, whoever had them: for what was made before isolation was switched on.

        Processes that remember another owner go on so until they forget it; assign before switching on.

        Raises:
            StoreFault: The store is away.
        """
        if identifiers:
            pairs = (word for one in identifiers for word in (one, tenant_id))
            await self._store.ask("HSET", _key(account), *pairs)
        for identifier in identifiers:
            self._seen.pop((account, identifier), None)

    async def _forget(self, tenant: Tenant, operation: Operation) -> None:
        ids = object_ids.path_ids(operation)
        gone = ids.below[-1] if ids.below else ids.top
        if gone is None:
            return
        self._seen.pop((tenant.account, gone), None)
        try:
            await self._store.ask("HDEL", _key(tenant.account), gone)
        except StoreFault as fault:
            # Ids are never used again, so what stays behind costs memory and nothing else.
            _LOG.warning("owner_not_forgotten", tenant=tenant.id, fault=str(fault))

    async def _owners(self, tenant: Tenant, identifiers: tuple[str, ...]) -> dict[str, str]:
        """Known owners by id; ids nobody is known to have made are absent."""
        account = tenant.account
        owners = {one: self._seen[account, one] for one in identifiers if (account, one) in self._seen}
        missing = [one for one in identifiers if one not in owners and not is_indirect(one)]
        if missing:
            answers = await self._asked(tenant, missing)
            for identifier, owner in zip(missing, answers, strict=True):
                if owner is not None:
                    owners[identifier] = _text(owner)
                    self._note(account, identifier, owners[identifier])
        return owners

    async def _asked(self, tenant: Tenant, identifiers: list[str]) -> list[bytes | None]:
        try:
            return list(await self._store.ask("HMGET", _key(tenant.account), *identifiers))
        except StoreFault as fault:
            if tenant.isolation == REPORT:
                return [None] * len(identifiers)
            raise _unavailable() from fault

    async def _claimed(self, tenant: Tenant, identifiers: tuple[str, ...]) -> dict[str, str]:
        key, owners = _key(tenant.account), list[bytes]()
        try:
            for at in range(0, len(identifiers), _CLAIMED_AT_ONCE):
                some = identifiers[at : at + _CLAIMED_AT_ONCE]
                owners += await self._claim(keys=[key], args=[tenant.id, *some])
        except StoreFault as fault:
            if tenant.isolation == REPORT:
                return dict.fromkeys(identifiers, tenant.id)
            raise _unavailable() from fault
        found = {one: _text(owner) for one, owner in zip(identifiers, owners, strict=True)}
        for identifier, owner in found.items():
            self._note(tenant.account, identifier, owner)
        return found

    def _note(self, account: str, identifier: str, owner: str) -> None:
        self._seen[account, identifier] = owner
        if len(self._seen) > self._bound:
            self._seen.popitem(last=False)

    def _refuse(self, tenant: Tenant, operation: Operation) -> None:
        self._foreign(tenant, operation)
        if tenant.isolation != REPORT:
            raise NotFound("There is no such object.", reason="foreign_object")

    def _foreign(self, tenant: Tenant, operation: Operation) -> None:
        refused = tenant.isolation != REPORT
        self._observer.foreign_object(tenant.id, refused=refused)
        place = (tenant.id, operation.route.audit_name)
        if not refused and place not in self._reported:
            # Once per kind of use: enough to find it, never a line per request.
            self._reported.add(place)
            _LOG.info("foreign_object", tenant=tenant.id, operation=operation.route.audit_name)


def _key(account: str) -> str:
    return f"cbkgw:{{{account}}}:owners"


def _text(owner: object) -> str:
    return owner.decode() if isinstance(owner, bytes) else str(owner)


def _unavailable() -> ServiceUnavailable:
    return ServiceUnavailable("Who owns this object cannot be looked up now; try again.", reason="ownership")

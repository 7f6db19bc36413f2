"""The upstream key of each request, and the health of each tenant's keys in this process.

Keeps one small `KeyState` per tenant; the rules are in `rotation.py`. Keys themselves live in `Tenant`.
A key refused by the upstream is the gateway's trouble, never the client's, whose token is fine.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from cbk_gateway.errors import BadGateway
from cbk_gateway.operation import Effect, Operation
from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.tenancy.observer import SilentObserver, TenancyObserver
from cbk_gateway.tenancy.options import RotationOptions
from cbk_gateway.tenancy.rotation import FRESH, Event, KeyState, Which, choose, learn

_LOG: Final = structlog.get_logger(__name__)

REFUSED_CODE: Final = "UPSTREAM_CREDENTIAL_REFUSED"

_FOREIGN_ANSWERS: Final = frozenset({"proxy", "invoke", "event"})
"""Actions whose status is a third party's or speaks about another credential: they say nothing of the key."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A key to use for one attempt, and its role."""

    key: Secret
    which: Which


@dataclass(slots=True)
class _Kept:
    """What is known about the keys of one tenant, and which keys these are."""

    key: Secret
    next_key: Secret | None
    state: KeyState = field(default=FRESH)

    def is_of(self, tenant: Tenant) -> bool:
        # Identity first: comparing secrets takes microseconds, and the snapshot's are the same objects.
        same = self.key is tenant.key or self.key == tenant.key
        return same and (self.next_key is tenant.next_key or self.next_key == tenant.next_key)


class Credentials:
    """Chooses keys and learns from answers. For one event loop's thread.

    `clock` is any steady clock in seconds; `draw` gives a random number from 0 up to 1.
    """

    def __init__(
        self,
        options: RotationOptions | None = None,
        observer: TenancyObserver | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._options = options if options is not None else RotationOptions()
        self._observer = observer if observer is not None else SilentObserver()
        self._clock = clock
        self._draw = draw
        self._kept: dict[str, _Kept] = {}
        self._on_next_judged: Callable[[Tenant, Event], None] | None = None

    def on_next_judged(self, callback: Callable[[Tenant, Event], None]) -> None:
        """Have `callback` called with NEXT_PASSED or NEXT_REFUSED whenever a request tells one of them."""
        self._on_next_judged = callback

    def credential_for(self, tenant: Tenant, operation: Operation) -> Credential:
        """The key for a request's first attempt. Touches nothing but memory."""
        if tenant.next_key is None:
            return Credential(tenant.key, Which.CURRENT)
        which = choose(
            self._of(tenant).state,
            self._options,
            has_next=True,
            is_safe=_is_safe(operation),
            now=self._clock(),
            draw=self._draw(),
        )
        return _credential(tenant, which)

    def report(
        self, tenant: Tenant, which: Which, status: int, operation: Operation | None = None
    ) -> Credential | None:
        """Learn from an attempt's status, and say what to repeat the request with, if anything.

        To be called with every answer of the upstream, before a byte of it is passed on. A credential
        comes back only for a safe GET (so give the `operation`), and at most once per request.
        """
        if operation is not None and operation.scope_action in _FOREIGN_ANSWERS:
            return None
        kept = self._kept.get(tenant.id)
        if kept is None or not kept.is_of(tenant):
            if tenant.next_key is None and status != 401:
                return None
            kept = self._of(tenant)
        outcome = learn(
            kept.state,
            self._options,
            which,
            status,
            has_next=tenant.next_key is not None,
            is_safe=operation is not None and _is_safe(operation),
            now=self._clock(),
        )
        before, kept.state = kept.state, outcome.state
        for event in outcome.events:
            self._tell(tenant, event, before)
        return _credential(tenant, outcome.again_with) if outcome.again_with is not None else None

    def refusal(self, tenant: Tenant, status: int, operation: Operation) -> BadGateway | None:
        """The answer for the client in place of an upstream 401; None for any other answer.

        The client's own token is fine, so it must not be told to get another.
        """
        if status != 401 or operation.scope_action in _FOREIGN_ANSWERS:
            return None
        refused = BadGateway(
            f"The API refuses the key that the gateway holds for the tenant {tenant.id}. "
            "Its operators have to replace it; your token is fine.",
            reason="upstream_credential",
        )
        refused.code = REFUSED_CODE
        return refused

    def is_healthy(self, tenant: Tenant) -> bool:
        """Whether the tenant's current key is accepted, as far as this process knows."""
        kept = self._kept.get(tenant.id)
        return kept is None or not kept.is_of(tenant) or kept.state.current_refused_at is None

    def unhealthy(self) -> tuple[str, ...]:
        """Ids of tenants whose current key is refused, for the operators' port."""
        refused = (name for name, kept in self._kept.items() if kept.state.current_refused_at is not None)
        return tuple(sorted(refused))

    def forget(self, tenant_ids: frozenset[str]) -> None:
        """Drop what is known about tenants that are gone."""
        for name in tenant_ids:
            self._kept.pop(name, None)

    def _of(self, tenant: Tenant) -> _Kept:
        kept = self._kept.get(tenant.id)
        if kept is None or not kept.is_of(tenant):
            kept = self._kept[tenant.id] = _Kept(tenant.key, tenant.next_key)
        return kept

    def _tell(self, tenant: Tenant, event: Event, before: KeyState) -> None:
        observer = self._observer
        match event:
            case Event.CURRENT_REFUSED:
                observer.key_refused(tenant.id, "current")
                if before.current_refused_at is None:
                    _LOG.error("upstream_key_refused", tenant=tenant.id, which="current")
                    observer.health_changed(tenant.id, is_healthy=False)
            case Event.CURRENT_ACCEPTED:
                _LOG.info("upstream_key_accepted", tenant=tenant.id, which="current")
                observer.health_changed(tenant.id, is_healthy=True)
            case Event.NEXT_REFUSED:
                observer.key_refused(tenant.id, "next")
                self._judged(tenant, event)
                if before.next_refused_at is None:
                    _LOG.warning("upstream_key_refused", tenant=tenant.id, which="next")
            case Event.NEXT_PASSED:
                self._judged(tenant, event)
            case Event.NEXT_READY:
                _LOG.info("upstream_next_key_ready", tenant=tenant.id)
                observer.next_key_ready(tenant.id)

    def _judged(self, tenant: Tenant, event: Event) -> None:
        if self._on_next_judged is not None:
            self._on_next_judged(tenant, event)


def _is_safe(operation: Operation) -> bool:
    return operation.method == "GET" and operation.effect is Effect.READ


def _credential(tenant: Tenant, which: Which) -> Credential:
    if which.is_next and tenant.next_key is not None:
        return Credential(tenant.next_key, which)
    return Credential(tenant.key, which)

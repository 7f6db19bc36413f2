"""Leave for one request, with what it holds: to settle when the request has ended, or to refund unused.

A grant knows what was taken, not how: the limiter behind it does the book-keeping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.counters import QuotaView, SlotView
from cbk_gateway.limits.plan import Plan

if TYPE_CHECKING:
    from cbk_gateway.limits.limiter import Limiter

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request spent.

    Attributes:
        tokens: Upstream tokens, or None when the answer does not say.
        bytes: Bytes of the answer's body.
    """

    tokens: int | None
    bytes: int


class Grant:
    """Leave for one request. Made by the limiter; exactly one of `settle` and `refund` counts, the first.

    Attributes:
        plan: The limits that counted.
        drawn: Buckets with what was taken from each.
        reserved: Quotas with what is held in each.
        slots: Open-request counts this grant is part of.
        operation: Name of the operation, for estimates.
    """

    __slots__ = ("_is_open", "_limiter", "drawn", "operation", "plan", "reserved", "slots")

    def __init__(
        self,
        limiter: Limiter,
        plan: Plan,
        operation: str,
        *,
        drawn: tuple[tuple[BucketView, float], ...] = (),
        reserved: tuple[tuple[QuotaView, int], ...] = (),
        slots: tuple[SlotView, ...] = (),
    ) -> None:
        self._limiter = limiter
        self.plan = plan
        self.operation = operation
        self.drawn = drawn
        self.reserved = reserved
        self.slots = slots
        self._is_open = True

    @property
    def headers(self) -> Mapping[str, str]:
        """Rate headers as things stand now; empty when nothing limits the tenant."""
        if not self.drawn and not self.reserved:
            return _NO_HEADERS
        return self._limiter.headers_of(self)

    async def settle(self, usage: Usage) -> None:
        """The request has ended: correct what was held to what was spent. Never raises, never waits long."""
        if not self._is_open:
            return
        self._is_open = False
        if self.reserved or self.slots:
            await self._limiter.settle(self, usage)

    def settle_now(self, usage: Usage) -> None:
        """As `settle`, for a caller who cannot wait: what the store must be told goes with the next round."""
        if not self._is_open:
            return
        self._is_open = False
        if self.reserved or self.slots:
            self._limiter.settle_now(self, usage)

    async def refund(self) -> None:
        """Nothing was sent upstream: give everything back. Never raises, never waits long."""
        if not self._is_open:
            return
        self._is_open = False
        if self.drawn or self.reserved or self.slots:
            await self._limiter.refund(self)

    def __repr__(self) -> str:
        drawn = " ".join(f"{view.policy}:{cost:g}" for view, cost in self.drawn)
        return f"<Grant {self.plan.tenant.id} {drawn}{'' if self._is_open else ' closed'}>"

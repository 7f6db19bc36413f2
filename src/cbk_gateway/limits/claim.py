"""What one kind of request draws on, held by a caller who admits the same request again and again.

Admits from the worker's lease and from nothing else, as `Limiter.admit_now` does, without looking anything
up. Whatever a lease cannot decide (none is held, a refusal, a quota) it leaves to the limiter. A view that
the desk has forgotten holds no lease and gets none, so an old claim can refuse too often, never too seldom.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

from cbk_gateway.limits.answers import single_rate_pieces
from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.decision import Request

_NOTHING: Final = b""


class Claim:
    """A claim on one bucket, or on none. Made by `Limiter.claim`.

    Args:
        view: The worker's view of the only bucket that counts the request; None when none does.
        cost: Tokens of one request.
        request: The request as the store would be asked about it.
        queues: Tenants whose requests wait in line for their tokens; None where nobody ever waits. Nobody
            passes those who wait, and nobody who may wait is refused from memory.

    Attributes:
        drawn: Requests admitted that no observer was told of yet; whoever tells sets it to 0.
        refused: Likewise, refused.
    """

    __slots__ = (
        "_burst",
        "_is_silent",
        "_per_second",
        "_pieces",
        "_queues",
        "_said",
        "_tenant_id",
        "_text",
        "cost",
        "drawn",
        "refused",
        "request",
        "view",
    )

    def __init__(
        self,
        view: BucketView | None,
        cost: float,
        request: Request,
        queues: Collection[str] | None = None,
    ) -> None:
        self._queues = queues
        self._tenant_id = request.plan.tenant.id
        self.view = view
        self.cost = cost
        self.request = request
        self.drawn = self.refused = 0
        self._is_silent = view is None or view.ref.rate.shadow
        self._burst = self._per_second = 0.0
        self._pieces: tuple[str, ...] = ()
        # What was said last, for a bucket that stays full.
        self._said = (-1, -1)
        self._text = b""
        if view is not None:
            rate = view.ref.rate
            self._burst, self._per_second = rate.burst, rate.per_second
            self._pieces = single_rate_pieces(rate)

    @property
    def policy(self) -> str:
        """The policy's name; empty when nothing limits."""
        return self.view.policy if self.view is not None else ""

    def refused_s(self, now: float) -> int:
        """For how many whole seconds to refuse, as the store did a moment ago; 0 when the limiter must tell.

        To be asked after `draw` found nothing.
        """
        view = self.view if self._queues is None else None
        until = view.blocked.get(self.cost, 0.0) if view is not None else 0.0
        return max(1, math.ceil(until - now)) if now < until else 0

    def note_refused(self, now: float) -> None:
        """The request was refused as `refused_s` said: it counts among those asked for."""
        self.refused += 1
        if self.view is not None:
            self.view.note(self.cost, now)

    def draw(self, now: float) -> bytes | None:
        """Draw for one request.

        Args:
            now: The limiter's clock.

        Returns:
            The rate fields of its answer, each with its line end; None when only the limiter can tell, and
            then nothing was drawn.
        """
        if self._queues and self._tenant_id in self._queues:
            return None
        view = self.view
        if view is None:
            self.drawn += 1
            return _NOTHING
        cost, lease = self.cost, view.lease
        if lease < cost or now >= view.lease_until:
            return None
        view.lease = lease = lease - cost
        view.note(cost, now)
        self.drawn += 1
        if self._is_silent:
            return _NOTHING
        # What `BucketView.estimate` says; a lease is held, so the store was seen.
        burst = self._burst
        left = view.tokens + (now - view.seen_at) * self._per_second + lease
        said = (int(burst), 0) if left >= burst else (int(left), math.ceil((burst - left) / self._per_second))
        if said != self._said:
            self._said = whole, reset = said
            first, second, third, fourth, last = self._pieces
            self._text = f"{first}{whole}{second}{reset}{third}{whole}{fourth}{reset}{last}".encode()
        return self._text

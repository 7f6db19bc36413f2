"""What one kind of request draws on, held by a caller who admits the same request again and again.

Admits from the worker's lease and from nothing else, as `Limiter.admit_now` does, without looking anything
up; its purse says when a comparison does as well. Whatever a lease cannot decide (none is held, a refusal, a
quota) it leaves to the limiter. A view that the desk has forgotten holds no lease and gets none, so an old
claim can refuse too often, never too seldom.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

from cbk_gateway.limits.answers import single_rate_pieces
from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.decision import Request
from cbk_gateway.limits.purse import Purse, bottomless

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
        purse: What the caller may draw on without asking, as `purse.py` says.
        queues: Whoever waits in line, as given; empty where nobody ever waits.
        full: What `draw` gives when there is plenty.
    """

    __slots__ = (
        "_burst",
        "_may_wait",
        "_per_second",
        "_pieces",
        "_tenant_id",
        "cost",
        "drawn",
        "full",
        "purse",
        "queues",
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
        self._may_wait = queues is not None
        self.queues: Collection[str] = queues if queues is not None else ()
        self._tenant_id = request.plan.tenant.id
        self.view = view
        self.cost = cost
        self.request = request
        self.drawn = self.refused = 0
        self.purse: Purse = view if view is not None else bottomless()
        # Of a shadow nothing is ever said, as of a bucket that is always full and has no words.
        self._burst, self._per_second, self.full = -math.inf, 0.0, _NOTHING
        self._pieces = ("", "", "", "", "")
        if view is not None and not view.ref.rate.shadow:
            rate = view.ref.rate
            self._burst, self._per_second = rate.burst, rate.per_second
            self._pieces = single_rate_pieces(rate)
            self.full = self._said(int(rate.burst), 0)

    @property
    def policy(self) -> str:
        """The policy's name; empty when nothing limits."""
        return self.view.policy if self.view is not None else ""

    def blocked_until(self, now: float) -> float:
        """Until when to refuse, as the store said a moment ago; 0 when the limiter must tell.

        To be asked after `draw` found nothing. The refusal says to come back in whole seconds, rounded up.
        """
        view = None if self._may_wait else self.view
        until = view.blocked.get(self.cost, 0.0) if view is not None else 0.0
        return until if now < until else 0.0

    def note_refused(self, times: int, now: float) -> None:
        """So many requests were refused as `blocked_until` said: they count among those asked for."""
        if self.view is not None:
            self.view.asked.note(times * self.cost, now, self.cost)

    def draw(self, now: float) -> bytes | None:
        """Draw for one request.

        Args:
            now: The limiter's clock.

        Returns:
            The rate fields of its answer, each with its line end; None when only the limiter can tell, and
            then nothing was drawn.
        """
        if self.queues and self._tenant_id in self.queues:
            return None
        view = self.view
        if view is None:
            self.drawn += 1
            return _NOTHING
        lease = view.lease - self.cost
        if lease < 0.0 or now >= view.lease_until:
            return None
        view.lease = lease
        self.drawn += 1
        if now >= view.plenty_until:
            view.look(now, self.cost)
        # What `BucketView.estimate` says; a lease is held, so the store was seen.
        left = view.tokens + (now - view.seen_at) * self._per_second + lease
        if left >= self._burst:
            return self.full
        return self._said(int(left), math.ceil((self._burst - left) / self._per_second))

    def _said(self, left: int, reset: int) -> bytes:
        first, second, third, fourth, last = self._pieces
        return f"{first}{left}{second}{reset}{third}{left}{fourth}{reset}{last}".encode()

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
_NOTE_EVERY_S: Final = 0.01


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
        "_full",
        "_note_at",
        "_per_second",
        "_pieces",
        "_queues",
        "_tenant_id",
        "_unnoted",
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
        # Draws that the demand was not told of yet, and when it is to be.
        self._unnoted = 0.0
        self._note_at = 0.0
        # Of a shadow nothing is ever said, as of a bucket that is always full and has no words.
        self._burst, self._per_second, self._full = -math.inf, 0.0, _NOTHING
        self._pieces = ("", "", "", "", "")
        if view is not None and not view.ref.rate.shadow:
            rate = view.ref.rate
            self._burst, self._per_second = rate.burst, rate.per_second
            self._pieces = single_rate_pieces(rate)
            self._full = self._said(int(rate.burst), 0)

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
        lease = view.lease - self.cost
        if lease < 0.0 or now >= view.lease_until:
            return None
        view.lease = lease
        self.drawn += 1
        self._unnoted += self.cost
        if now >= self._note_at:
            # Leases are sized by what is asked for in a second: a hundredth of it may be told at once.
            view.asked.note(self._unnoted, now, self.cost)
            self._unnoted, self._note_at = 0.0, now + _NOTE_EVERY_S
        # What `BucketView.estimate` says; a lease is held, so the store was seen.
        left = view.tokens + (now - view.seen_at) * self._per_second + lease
        if left >= self._burst:
            return self._full
        return self._said(int(left), math.ceil((self._burst - left) / self._per_second))

    def _said(self, left: int, reset: int) -> bytes:
        first, second, third, fourth, last = self._pieces
        return f"{first}{left}{second}{reset}{third}{left}{fourth}{reset}{last}".encode()

"""Tokens at hand, in the form in which a caller may draw on them without a call: by one comparison.

Whoever holds a `Claim` may do by himself what `Claim.draw` would do, while this holds for its purse:

    lease = purse.lease - claim.cost
    if lease >= purse.plenty and now < purse.plenty_until and not claim.queues: purse.lease = lease

The answer's rate fields are then `Claim.full`, and the caller counts the draw as `Claim.drawn` would have.
What was drawn so is seen by how much smaller the lease has become, so nothing else is to be kept. When there
is plenty is for `BucketView.look` to say; nothing is decided here.
"""

from __future__ import annotations

import math


class Purse:
    """What can be drawn on.

    Attributes:
        lease: Tokens held.
        plenty: With so many left after a draw the bucket is full, as far as its clients can tell.
        plenty_until: Until when that is so and the lease lives, by the limiter's clock. Then somebody must
            look again; 0 when it was not looked at, or something has changed since.
        blocked: Until when a request is refused without asking, by its cost.
    """

    __slots__ = ("blocked", "lease", "plenty", "plenty_until")

    def __init__(self, plenty_until: float = 0.0) -> None:
        self.lease = 0.0
        self.plenty = 0.0
        self.plenty_until = plenty_until
        self.blocked: dict[float, float] = {}


def bottomless() -> Purse:
    """The purse of what nothing limits: costs nothing, and there is always plenty."""
    return Purse(math.inf)

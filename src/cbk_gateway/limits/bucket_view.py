"""What one worker knows and holds of one bucket: its last known state, a lease, a remembered refusal.

Pure state and arithmetic; the clock (monotonic seconds of this process) is an argument. Nothing here may
admit what the store has not given, except through `take_share`, which is for a store that is away.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from cbk_gateway.errors import TooManyRequests
from cbk_gateway.limits.answers import single_rate_headers
from cbk_gateway.limits.bucket import Draw
from cbk_gateway.limits.demand import Demand
from cbk_gateway.limits.plan import BucketRef
from cbk_gateway.limits.purse import Purse
from cbk_gateway.parties import StoreFailure

_SLICE_S: Final = 0.125  # a slice is what is asked for, and what flows in, within this time
_SLICE_TOKENS: Final = 24.0  # but no less than this, or the store would be asked more than every 20th time
_REFILL_S: Final = 0.25  # nor more than flows in within this time, unless the bucket is far from empty
_BURST_PART: Final = 0.5  # all slices together are no more of the burst: what is on lease cannot refill
_ROOMY_PART: Final = 0.25  # of what is left: so much may lie with a worker for the whole life of a lease
_SPACING_PART: Final = 0.75  # of the time a slice takes to flow in: a drained bucket is not asked more often
_ROOMY_LEAST: Final = 2.0
_MOST_BLOCKED: Final = 32
_LOOK_EVERY_S: Final = 0.01  # leases are sized by what is asked for in a second: so much may be told at once
MICRO: Final = 1_000_000


class BucketView(Purse):
    """One bucket as a worker sees it.

    Attributes:
        ref: Which bucket.
        lease: Tokens held, 0 when `lease_until` has passed. Made smaller by `spend` and by draws of claims,
            of which the demand is told later, and then by `look`.
        lease_until: When the lease ends.
        lease_size: Tokens that the lease began with, or that the one that ended last did.
        lease_epoch: Server period it was taken in; -1 when the store knows that it ended.
        given_back: Unspent tokens not yet returned to the store.
        asked: How much this worker is asked for.
        tokens: The store's tokens at `seen_at`; meaningless when `seen_at_us` is -1.
        seen_at_us: Server time of that, microseconds.
        refill: Done when the slice that is being fetched has come; None when none is.
        last_refusal: The refusal that was given last, for its words.
        is_shared: Whether it was used while the store was away, so that the store must be told.
    """

    __slots__ = (
        "_mark",
        "_share",
        "_share_at",
        "_unnoted",
        "asked",
        "given_back",
        "is_shared",
        "last_refusal",
        "lease_epoch",
        "lease_size",
        "lease_until",
        "note",
        "ref",
        "refill",
        "seen_at",
        "seen_at_us",
        "tokens",
    )

    def __init__(self, ref: BucketRef) -> None:
        super().__init__()
        self.ref = ref
        self.lease_until = 0.0
        self.lease_size = 0.0
        self.lease_epoch = -1
        self.given_back = 0.0
        self.tokens = ref.rate.burst
        self.seen_at = 0.0
        self.seen_at_us = -1
        self.asked = Demand()
        self.note = self.asked.note
        self.is_shared = False
        self.last_refusal: TooManyRequests | None = None
        self.refill: asyncio.Future[None] | None = None
        self._share = 0.0
        self._share_at = 0.0
        # What the lease would be, had nobody drawn since the demand was told; and draws on earlier leases.
        self._mark = 0.0
        self._unnoted = 0.0

    @property
    def policy(self) -> str:
        """The policy's name."""
        return self.ref.rate.name

    @property
    def on_store_failure(self) -> StoreFailure:
        """What to do without the store."""
        return self.ref.rate.on_store_failure

    def slice_tokens(self, life_s: float, min_rate: float, min_tokens: float, workers: int) -> float:
        """How many whole tokens to ask for in advance; 0 when this bucket is decided call by call.

        Of a bucket with plenty left, what is asked for within a lease's life: nobody misses it meanwhile. Of
        one that runs dry a slice must be small beside what flows in and what the bucket holds, or tokens
        would lie idle here while others are refused.
        """
        demand = self.asked.per_second
        if demand < min_rate:
            return 0.0
        rate = self.ref.rate
        tight = min(max(_SLICE_TOKENS, min(demand, rate.per_second) * _SLICE_S), rate.per_second * _REFILL_S)
        roomy = min(demand * life_s, self.tokens * _ROOMY_PART)
        if roomy < _ROOMY_LEAST * min_tokens:
            roomy = 0.0  # a small bucket that hardly refills is not to be shared out
        size = float(int(min(max(tight, roomy), rate.burst * _BURST_PART / workers)))
        return size if size >= min_tokens else 0.0

    def spacing_s(self, want: float, workers: int) -> float:
        """How long to leave a drained bucket alone, so that there is something to fetch.

        All workers together ask little more than once while one slice flows in. Nothing is lost by waiting
        as long as the bucket does not fill up meanwhile.
        """
        rate = self.ref.rate
        return min(_SPACING_PART * want * workers, _SPACING_PART * rate.burst) / rate.per_second

    # The lease.

    def covers(self, cost: float, now: float) -> bool:
        """Whether the lease pays for it."""
        return self.lease >= cost and now < self.lease_until

    def spend(self, cost: float) -> None:
        """Take from the lease for one request of which the demand is told apart (`note`)."""
        self.lease -= cost
        self._mark -= cost

    def look(self, now: float, cost: float) -> None:
        """Tell the demand what was drawn since the last look, and say how far one need not look again.

        Args:
            now: The limiter's clock.
            cost: What one of those draws cost.
        """
        drawn = self._unnoted + self._mark - self.lease
        self._mark, self._unnoted = self.lease, 0.0
        if drawn > 0.0:
            self.asked.note(drawn, now, cost)
        rate = self.ref.rate
        # As `estimate` counts. The bucket only fills up meanwhile; `learn` ends what was said of it.
        missing = rate.burst - self.tokens - (now - self.seen_at) * rate.per_second
        self.plenty = missing if missing > 0.0 and not rate.shadow else 0.0
        self.plenty_until = min(now + _LOOK_EVERY_S, self.lease_until)

    def change_policy(self, ref: BucketRef) -> None:
        """Go on under another policy: the tokens stay, what was concluded from the old one does not."""
        self.ref = ref
        self.blocked.clear()
        self.plenty_until = 0.0

    def end_lease(self) -> None:
        """Put what is left of the lease among what is to be given back."""
        self._close_lease(0.0)

    def expire_lease(self, now: float) -> None:
        """Nothing is drawn on the lease any more; what is left of it is to go back."""
        self.lease_until = now
        self.plenty_until = 0.0

    def begin_lease(self, tokens: float, until: float, epoch: int) -> None:
        """Hold tokens until then."""
        # Of two that were fetched at a time, one goes back at once.
        self._close_lease(tokens)
        self.lease_size = tokens
        self.lease_until = until
        self.lease_epoch = epoch

    def _close_lease(self, tokens: float) -> None:
        """Put the lease among what is to be given back, and hold `tokens` instead."""
        self._unnoted += self._mark - self.lease
        self.given_back += self.lease
        self.lease = self._mark = tokens
        self.plenty_until = 0.0

    def take_report(self) -> float:
        """Hand over what a question says is given back; returns how much, should it not arrive."""
        back, self.given_back = self.given_back, 0.0
        if self.lease == 0:
            self.lease_epoch = -1
        return back

    # What the store said.

    def draw(self, cost: float, want: float) -> Draw:
        """The question to the store about this bucket. A lease that still lives is not reported as ended."""
        rate = self.ref.rate
        has_ended = self.lease_epoch >= 0 and self.lease == 0
        closed = self.lease_size if has_ended else 0.0
        return Draw(
            rate=rate.per_second,
            burst=rate.burst,
            cost=cost,
            want=want,
            is_shadow=rate.shadow,
            given_back=self.given_back,
            closed=closed,
            closed_epoch=self.lease_epoch if has_ended else -1,
        )

    def learn(self, tokens: float, now_us: int, now: float) -> None:
        """Remember the store's state."""
        self.tokens = tokens
        self.seen_at_us = now_us
        self.seen_at = now
        self.is_shared = False
        self.plenty_until = 0.0

    def block(self, cost: float, until: float) -> None:
        """Remember a refusal. A greater cost waits longer, so each has a memory of its own."""
        if len(self.blocked) >= _MOST_BLOCKED:
            self.blocked.clear()
        self.blocked[cost] = until

    def blocks(self, cost: float, now: float) -> bool:
        """Whether a remembered refusal covers it."""
        return now < self.blocked.get(cost, 0.0)

    def estimate(self, now: float) -> float:
        """Tokens left, as far as this worker can know: for headers, never for decisions."""
        rate = self.ref.rate
        if self.seen_at_us < 0:
            return rate.burst
        refilled = self.tokens + max(0.0, now - self.seen_at) * rate.per_second
        held = self.lease if now < self.lease_until else 0.0
        return min(rate.burst, refilled + held)

    def headers(self, now: float) -> dict[str, str]:
        """Rate headers of a request that only this bucket counted. Once per answer, so it is kept lean."""
        rate = self.ref.rate
        if rate.shadow:
            return {}
        left = self.estimate(now)
        return single_rate_headers(rate, int(left), math.ceil((rate.burst - left) / rate.per_second))

    # Without the store.

    def take_share(self, cost: float, workers: int, now: float) -> float:
        """Take from this worker's share of the limit; returns 0 when taken, else seconds to wait.

        The share starts from the last known state, so that an outage is no second burst. It holds at least
        the cost of one request, or a small limit among many workers would never admit anything.
        """
        rate = self.ref.rate
        need = min(cost, rate.burst)
        most = max(rate.burst / workers, need)
        per_second = rate.per_second / workers
        if not self.is_shared:
            self.is_shared = True
            self._share, self._share_at = self._first_share(most, workers, now), now
        self._share = min(most, self._share + max(0.0, now - self._share_at) * per_second)
        self._share_at = now
        if self._share < need:
            return (need - self._share) / per_second
        self._share -= need
        return 0.0

    def return_share(self, cost: float) -> None:
        """Put back what was taken from the share for a request that was refused for another reason."""
        self._share += min(cost, self.ref.rate.burst)

    def _first_share(self, most: float, workers: int, now: float) -> float:
        if self.seen_at_us < 0:
            return most
        rate = self.ref.rate
        known = min(rate.burst, self.tokens + max(0.0, now - self.seen_at) * rate.per_second)
        return min(most, known / workers)

    def ceiling(self, workers: int) -> float:
        """What the store's bucket may hold at most after an outage, or -1 when it was not used in one."""
        return self._share * workers if self.is_shared else -1.0

    def __repr__(self) -> str:
        rate = self.ref.rate
        return f"<BucketView {self.ref.key} {self.tokens:.1f}/{rate.burst:g} lease {self.lease:g}>"

"""One answer of this worker's memory, held on to by whoever wants to give it again without asking anew.

A holding promises nothing by itself: `look` says each time whether memory would still give exactly this. It
asks what `Cache.recall` asks of memory, at that very moment: is the feed live, is this very copy still there,
is it fresh, would the same variant be chosen. So the proof in `membership.py` covers it: a copy that a write
made old is no longer in memory, whoever holds on to it.
"""

from __future__ import annotations

from typing import NamedTuple

from cbk_gateway.cache.answers import Hit
from cbk_gateway.cache.copy import Copy, Form, Wish
from cbk_gateway.cache.tiers import Tiers


class Standing(NamedTuple):
    """What memory says of an answer at one moment.

    Attributes:
        age_s: Its age, in whole seconds.
        ttl_s: Lifetime left, in whole seconds.
        ends_at: Until when all this holds, by the cache's clock, unless `Breaks` tells of a change.
    """

    age_s: int
    ttl_s: int
    ends_at: float


class Holding:
    """A copy in memory and the variant that one kind of request gets of it. Made by `held`.

    Attributes:
        hit: The answer as it was when the holding was made.
    """

    __slots__ = ("_coded", "_copy", "_form", "_tiers", "hit")

    def __init__(self, tiers: Tiers, copy: Copy, form: Form, hit: Hit) -> None:
        self._tiers = tiers
        self._copy = copy
        self._form = form
        self._coded = form.coded
        self.hit = hit

    def look(self) -> Standing | None:
        """How it stands; None when memory would not answer exactly this now."""
        tiers, copy = self._tiers, self._copy
        now = tiers.now()
        if (
            tiers.session(now) is None
            or copy.fresh_until <= now
            or tiers.memory.find(copy.digest) is not copy
            or self._form.coded is not self._coded
        ):
            return None
        ends_at = min(copy.fresh_until, tiers.live_until(), copy.turns_at(now))
        return Standing(copy.age_s(now), copy.ttl_s(now), ends_at)

    def count(self) -> None:
        """Count it as served, like any answer from memory."""
        self._tiers.observer.hit("l1")

    def taken(self) -> Hit:
        """The answer, counted as served."""
        self.count()
        return self.hit


def held(tiers: Tiers, digest: str, wish: Wish) -> Holding | None:
    """What memory answers now; None when it does not.

    The variant that was wished for is prepared for the next time, whoever gives the answer then.
    """
    now = tiers.now()
    if tiers.session(now) is None:
        return None
    copy = tiers.memory.find(digest)
    if copy is None or copy.fresh_until <= now:
        return None
    form, hit = copy.form_for(wish), copy.hit(now, wish)
    if form is None or hit is None:
        return None
    if form is not copy.form:
        # Made for the first who asked for it, here or while the copy was on its way in.
        tiers.memory.resized(copy)
    if wish.codings:
        tiers.compress_later(copy, form, wish.codings[0])
    return Holding(tiers, copy, form, hit)

"""One answer of this worker's memory, held on to by whoever wants to give it again without asking anew.

A holding promises nothing by itself: `look` says each time whether memory would still give exactly this. It
asks what `Cache.recall` asks of memory, at that very moment: is the feed live, is this very copy still there,
is it fresh, would the same variant be chosen. So the proof in `membership.py` covers it: a copy that a write
made old is no longer in memory, whoever holds on to it.
"""

from __future__ import annotations

from cbk_gateway.cache.answers import Hit
from cbk_gateway.cache.copy import Copy, Form, Wish
from cbk_gateway.cache.tiers import Tiers


class Holding:
    """A copy in memory and the variant that one kind of request gets of it. Made by `held`.

    Attributes:
        hit: The answer as it was when the holding was made.
    """

    __slots__ = ("_copy", "_form", "_gzip", "_tiers", "_wants_coding", "hit")

    def __init__(self, tiers: Tiers, copy: Copy, form: Form, hit: Hit, *, wants_coding: bool) -> None:
        self._tiers = tiers
        self._copy = copy
        self._form = form
        self._gzip = form.gzip
        self._wants_coding = wants_coding
        self.hit = hit

    def look(self) -> tuple[int, int] | None:
        """Age and lifetime left, in whole seconds; None when memory would not answer exactly this now."""
        tiers, copy = self._tiers, self._copy
        now = tiers.now()
        if (
            tiers.session(now) is None
            or copy.fresh_until <= now
            or tiers.memory.find(copy.digest) is not copy
            or self._form.gzip is not self._gzip
        ):
            return None
        return copy.age_s(now), copy.ttl_s(now)

    def count(self) -> None:
        """Count it as served, like any answer from memory."""
        self._tiers.observer.hit("l1")

    def taken(self) -> Hit:
        """The answer, counted as served; a compressed variant is prepared for the next time."""
        if self._wants_coding and self._copy.form.gzip is None:
            self._tiers.compress_later(self._copy, self._copy.form)
        self.count()
        return self.hit


def held(tiers: Tiers, digest: str, wish: Wish) -> Holding | None:
    """What memory answers now; None when it does not."""
    now = tiers.now()
    if tiers.session(now) is None:
        return None
    copy = tiers.memory.find(digest)
    if copy is None or copy.fresh_until <= now:
        return None
    form, hit = copy.form_for(wish), copy.hit(now, wish)
    if form is None or hit is None:
        return None
    return Holding(tiers, copy, form, hit, wants_coding=wish.accept_encoding is not None)

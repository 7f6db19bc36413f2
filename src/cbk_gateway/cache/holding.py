"""One answer of this worker's memory, held on to by somebody who wants to give it again without asking anew.

A holding promises nothing by itself: `look` says each time whether the memory would still give exactly this.
It asks what `Cache.recall` asks of memory, in the same order and at the same moment: is the feed live, is
this very copy still there, is it fresh, and would the same variant be chosen. So the proof in
`membership.py` covers it: a copy that a write made old is no longer in memory, whoever holds on to it.
"""

from __future__ import annotations

from typing import NamedTuple

from cbk_gateway.cache.answers import Hit
from cbk_gateway.cache.copy import Copy, Form, Wish
from cbk_gateway.cache.tiers import Tiers


class Times(NamedTuple):
    """How old an answer is and how long it will live, in whole seconds."""

    age_s: int
    ttl_s: int


class Holding:
    """A copy in memory with the variant that one kind of request gets of it. Made by `Cache.hold`."""

    __slots__ = ("_copy", "_form", "_gzip", "_tiers", "hit")

    def __init__(self, tiers: Tiers, copy: Copy, form: Form, hit: Hit) -> None:
        self._tiers = tiers
        self._copy = copy
        self._form = form
        self._gzip = form.gzip
        self.hit = hit

    def look(self) -> Times | None:
        """The times of the answer, or None when memory would not give exactly this answer now."""
        tiers, copy = self._tiers, self._copy
        now = tiers.now()
        if (
            tiers.session(now) is None
            or copy.fresh_until <= now
            or tiers.memory.find(copy.digest) is not copy
            or self._form.gzip is not self._gzip
        ):
            return None
        return Times(copy.age_s(now), copy.ttl_s(now))

    def count(self) -> None:
        """Count it as served, like any answer from memory."""
        self._tiers.observer.hit("l1")


def held(tiers: Tiers, digest: str, wish: Wish) -> Holding | None:
    """Hold what memory would answer now; None when it would not."""
    now = tiers.now()
    copy = tiers.memory.find(digest)
    if tiers.session(now) is None or copy is None or copy.fresh_until <= now:
        return None
    form, hit = copy.form_for(wish), copy.hit(now, wish)
    return Holding(tiers, copy, form, hit) if form is not None and hit is not None else None

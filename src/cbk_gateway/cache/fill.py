"""The right and the duty to fetch one entry.

A `Fill` is given to one request at a time. It ends by `store` or by `abandon`, whichever comes first; one
that is forgotten loses its lease after some seconds. The rules of storing are `storability.py`'s; this
module only carries them out.

An answer that may enter memory at once (`Tiers.admit`, and no write was under way when the fetch began) is
given at once, and the store is asked to keep it behind the client's back: who asks this worker next finds it
in memory, and who asks another waits for the store to have it. Any other answer is given when the store has
said whether it keeps it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from cbk_gateway.cache import representation, status
from cbk_gateway.cache.answers import Headers, Hit, StoredAnswer
from cbk_gateway.cache.ask import Ask
from cbk_gateway.cache.copy import Copy, Wish
from cbk_gateway.cache.entry import Entry
from cbk_gateway.cache.flight import Answered, Declined, Flight
from cbk_gateway.cache.keys import JSONL
from cbk_gateway.cache.shelf import Kept
from cbk_gateway.cache.storability import Verdict, header, judge
from cbk_gateway.store import StoreFault

if TYPE_CHECKING:
    from cbk_gateway.cache.tiers import Tiers

# Fields that a stored answer states itself, or that no longer hold once the body was taken whole.
_OURS = frozenset(
    {"content-type", "etag", "vary", "content-language", "content-length", "content-encoding", "age"}
    | {"last-modified", "accept-ranges", "transfer-encoding"}
)


# Turns of the event loop from the end of a fetch to the writing of its answer. If they are more, the answer
# leaves a little later, and nothing else.
_TURNS_TO_ANSWER: Final = 2


class Fill:
    """One fetch. The request that holds it asks the upstream and brings the whole answer here.

    Attributes:
        upstream_accept: The `Accept` to send upstream. It is not always the client's: one JSON page serves
            both its JSON and its JSON Lines form.
        cache_status: `Cache-Status` for an answer that could not be offered to `store`, such as one that
            broke off or grew too large.
        started_at: This process's clock when the right to fetch was got.
    """

    __slots__ = (
        "__weakref__",
        "_is_done",
        "_reason",
        "_stale",
        "_tiers",
        "_wish",
        "ask",
        "cache_status",
        "flight",
        "started_at",
        "upstream_accept",
        "vector",
    )

    def __init__(
        self,
        tiers: Tiers,
        flight: Flight[Copy, Fill],
        ask: Ask,
        wish: Wish,
        *,
        vector: str,
        stale: Copy | None,
        started_at: float,
        reason: str = "miss",
    ) -> None:
        self._tiers = tiers
        self._wish = wish
        self._stale = stale
        self._reason = reason
        self._is_done = False
        self.flight = flight
        self.ask = ask
        self.vector = vector
        self.started_at = started_at
        self.upstream_accept = ask.accept
        self.cache_status = status.forwarded(reason, detail="not-offered")

    def __repr__(self) -> str:
        state = "done" if self._is_done else f"{self.flight.followers} waiting"
        return f"<Fill {self.ask.resource}:{self.ask.action} {state}>"

    @property
    def is_awaited(self) -> bool:
        """Whether others wait for this fetch: it is then worth finishing although its client left."""
        return not self._is_done and self.flight.followers > 0

    def passed_to(self, ask: Ask, wish: Wish) -> Fill:
        """The same right, for another request of this worker."""
        return Fill(
            self._tiers,
            self.flight,
            ask,
            wish,
            vector=self.vector,
            stale=self._stale,
            started_at=self.started_at,
            reason=self._reason,
        )

    async def store(
        self, upstream_status: int, headers: Sequence[tuple[str, str]], body: bytes
    ) -> StoredAnswer:
        """Offer the upstream's whole answer, and get what to send.

        Args:
            upstream_status: Its status.
            headers: Its end-to-end header fields.
            body: Its whole body, as it came.
        """
        sent = tuple(headers)
        if self._is_done:
            return StoredAnswer(upstream_status, sent, body, self.cache_status, is_stored=False)
        verdict = judge(
            upstream_status,
            headers,
            body,
            action=self.ask.action,
            ttl_s=self.ask.ttl_s,
            expected_type=self.ask.accept if self.ask.action == "list" else "application/json",
            options=self._tiers.options,
        )
        copy = self._copy(upstream_status, headers, body, verdict)
        if not verdict.is_storable:
            self._decline(verdict, copy, upstream_status)
            said = status.forwarded(self._reason, status=upstream_status, detail=verdict.reason)
            return self._unstored(upstream_status, sent, body, said)
        if self._enters_now(copy):
            self._landed(copy, upstream_status, is_stored=True)
            self._tiers.keep_behind(self._keep_behind(copy, verdict))
            outcome = "stored"
        else:
            outcome = await self._keep_first(copy, verdict, upstream_status)
        is_stored = outcome == "stored"
        self._tiers.vote_later(self.ask, copy, verdict.ttl_s)
        said = status.forwarded(
            self._reason,
            status=upstream_status,
            ttl_s=int(verdict.ttl_s) if is_stored else None,
            is_stored=is_stored,
            detail=None if is_stored else outcome,
        )
        return self._answer(copy, sent, said, is_stored=is_stored)

    def abandon(self, reason: str | None = None) -> None:
        """Give up without an answer: one follower takes over. Idempotent, never waits.

        Args:
            reason: With a bounded word such as "too-large": the next fetch would fare no better, so
                everybody who wants this answer forwards by himself for a while.
        """
        if self._is_done:
            return
        self._end()
        if reason is None and self.flight.promote(self):
            return
        self._tiers.flights.close(self.flight)
        if reason is not None:
            self._tiers.decline(self.ask.digest)
            self.flight.land(Declined(reason))
        self._tiers.release_later(self)

    def stale(self) -> Hit | None:
        """An answer past its lifetime to send when the upstream fails; None when there is none.

        It is of the very state that all epochs had when this fetch began, so no write was acknowledged
        between the two; after a write that this worker heard of since then there is none. Where there is
        one it ends the fetch, and who waits gets it too: each would only find the upstream failing again.
        """
        now = self._tiers.now()
        copy = self._stale
        if self._is_done or copy is None or self.flight.is_void:
            return None
        if now > copy.fresh_until + self._tiers.options.stale_if_error_s:
            return None
        said = status.hit(copy.ttl_s(now), detail=status.IF_ERROR, is_stale=True)
        hit = copy.hit(now, self._wish, said)
        if hit is None:
            return None
        self._tiers.observer.stale_served("error")
        self._end()
        self._tiers.flights.close(self.flight)
        self.flight.land(Answered(copy, None, is_stored=False, stale=status.IF_ERROR))
        self._tiers.release_later(self)
        return hit

    def _end(self) -> None:
        self._is_done = True
        self._tiers.fills.discard(self)

    def _copy(
        self, upstream_status: int, headers: Sequence[tuple[str, str]], body: bytes, verdict: Verdict
    ) -> Copy:
        now = self._tiers.now()
        now_ms = int(now * 1000)
        content_type = header(headers, "content-type") or "application/json"
        entry = Entry(
            status=upstream_status,
            content_type=content_type,
            language=header(headers, "content-language") or "",
            etag=representation.entity_tag(body, content_type.lower()),
            body=body,
            stored_at_ms=now_ms,
            fresh_until_ms=now_ms + int(verdict.ttl_s * 1000),
            initial_age_s=verdict.initial_age_s,
        )
        return self.ask.copy(entry, now, now_ms)

    def _landed(self, copy: Copy, upstream_status: int, *, is_stored: bool) -> None:
        """There is an answer for all who wait for it."""
        self._end()
        self._tiers.flights.close(self.flight)
        self.flight.land(Answered(copy, upstream_status, is_stored))

    def _enters_now(self, copy: Copy) -> bool:
        """Take the answer into memory before the store is asked to keep it, where that is safe."""
        if self.flight.is_beside_write or copy.entry.size_bytes > self._tiers.options.l2_account_max_bytes:
            return False
        return self._tiers.admit(self.flight, copy)

    async def _keep_behind(self, copy: Copy, verdict: Verdict) -> None:
        """Have the store keep what was answered already and is in memory.

        Until then the right to fetch is still ours, so that other workers wait for this instead of fetching.
        """
        for _ in range(_TURNS_TO_ANSWER):
            await asyncio.sleep(0)
        try:
            kept = await self._keep(copy, verdict)
        except StoreFault:
            await self._tiers.release(self.ask.account, self.ask.digest, self.flight.token)
            return
        if not kept.is_stored:
            # A write that will be heard of here in a moment, or a purge that may have meant another copy.
            self._tiers.memory.forget(copy)
        self._tiers.woken(self.ask.digest)

    async def _keep_first(self, copy: Copy, verdict: Verdict, upstream_status: int) -> str:
        """Have the store keep an answer that may enter memory only with the store's word, or not at all."""
        outcome = "store-away"
        try:
            kept = await self._keep(copy, verdict)
            outcome = kept.outcome
            if kept.is_stored:
                self._tiers.admit(self.flight, copy)
        except StoreFault:
            self._tiers.release_later(self)
        finally:
            self._landed(copy, upstream_status, is_stored=outcome == "stored")
            self._tiers.woken(self.ask.digest)
        return outcome

    async def _keep(self, copy: Copy, verdict: Verdict) -> Kept:
        tiers, ask = self._tiers, self.ask
        kept = await tiers.shelf.keep(
            ask.account,
            ask.digest,
            ask.reads,
            token=self.flight.token,
            vector=self.vector,
            entry=copy.entry,
            ttl_s=verdict.ttl_s,
            label=ask.label,
        )
        if kept.is_stored:
            tiers.observer.stored(len(copy.entry.body))
        else:
            tiers.observer.unstored(kept.outcome)
        if kept.evicted:
            tiers.observer.evicted("l2", kept.evicted)
        return kept

    def _decline(self, verdict: Verdict, copy: Copy, upstream_status: int) -> None:
        tiers = self._tiers
        self._end()
        tiers.observer.unstored(verdict.reason)
        tiers.flights.close(self.flight)
        if verdict.is_lasting:
            tiers.decline(self.ask.digest)
        if verdict.is_shareable:
            self.flight.land(Answered(copy, upstream_status, is_stored=False))
        else:
            self.flight.land(Declined(verdict.reason))
        tiers.release_later(self)

    def _unstored(self, upstream_status: int, sent: Headers, body: bytes, said: str) -> StoredAnswer:
        if self.ask.is_jsonl and upstream_status == 200:
            lines = representation.as_jsonl(body, self.ask.take)
            if lines is not None and header(sent, "content-encoding") is None:
                kept = tuple(field for field in sent if field[0].lower() not in _OURS)
                return StoredAnswer(200, (*kept, ("Content-Type", JSONL)), lines, said, is_stored=False)
        return StoredAnswer(upstream_status, sent, body, said, is_stored=False)

    def _answer(self, copy: Copy, sent: Headers, said: str, *, is_stored: bool) -> StoredAnswer:
        hit = copy.hit(self._tiers.now(), self._wish, said)
        kept = tuple(field for field in sent if field[0].lower() not in _OURS)
        if hit is None:
            return StoredAnswer(copy.entry.status, sent, copy.entry.body, said, is_stored=is_stored)
        ours = tuple(field for field in hit.headers if field[0] != "Age")
        return StoredAnswer(hit.status, (*kept, *ours), hit.body, said, is_stored=is_stored)

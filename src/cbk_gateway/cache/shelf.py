"""The tier in the store that all workers share: entries, epochs, leases to fetch, marks of open writes.

One script, one round trip per call; the scripts in `lua/` hold the rules and their reasons. This module
translates replies into values. It decides nothing, remembers nothing, and lets every `StoreFault` through.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from cbk_gateway.cache.entry import Entry, EntryCodec
from cbk_gateway.cache.keys import AccountKeys, account_keys
from cbk_gateway.cache.options import CacheOptions
from cbk_gateway.store import Store, StoreScript

# On a Cluster the same node has this channel and the register, so what the two say keeps its order.
FEED: Final = "cbkgw:{cache-feed}:feed"
TIMES: Final = 26
"""Bytes before an entry of the store that say when it was kept and until when it is fresh."""


class Word(StrEnum):
    """What a look at the shelf found."""

    HIT = "hit"
    OWN = "own"  # nothing good, and the right to fetch it
    WAIT = "wait"  # nothing good, and another fetch of it under way
    MISS = "miss"  # nothing good, and no right was asked for
    HELD = "held"  # a write that may change anything is under way
    BEHIND = "behind"  # this worker has not heard of the latest generation


@dataclass(frozen=True, slots=True)
class Look:
    """The reply to a look.

    Attributes:
        word: What was found.
        now_ms: The store's clock.
        vector: The state of all epochs the answer depends on, as a fetch that begins now is kept under.
        entry: The entry: good with HIT, past its lifetime but of this same state otherwise; or None.
        is_write_open: Whether a write of such a type is under way, so that nothing fetched now is kept.
        holder: With WAIT, the token of the fetch under way.
    """

    word: Word
    now_ms: int
    vector: str
    entry: Entry | None
    is_write_open: bool
    holder: str


@dataclass(frozen=True, slots=True)
class Kept:
    """The reply to an offer: `stored`, or the bounded word saying why not."""

    outcome: str
    now_ms: int
    evicted: int

    @property
    def is_stored(self) -> bool:
        """Whether the next look will find it."""
        return self.outcome == "stored"


@dataclass(frozen=True, slots=True)
class Telling:
    """What a script that tells the other workers has to be given: `membership.py` makes and reads it."""

    keys: tuple[str, ...]
    args: tuple[str | bytes | int, ...]


@lru_cache(maxsize=4096)
def keys_of(account: str) -> AccountKeys:
    """`account_keys`, remembered."""
    return account_keys(account)


class Shelf:
    """The shared tier. `generation` is set by whoever hears of it (`membership.py`)."""

    def __init__(self, store: Store, options: CacheOptions, codec: EntryCodec) -> None:
        self._options = options
        self._codec = codec
        self._fill_lease_ms = int(options.fill_lease_s * 1000)
        self._mark_lease_ms = int(options.mark_lease_s * 1000)
        self._recall = script(store, "recall", is_bulky=True)
        self._keep = script(store, "keep", is_bulky=True)
        # Not bulky, but over the same connection, so that none overtakes the look it is about.
        self._release = script(store, "release", is_bulky=True)
        self._prolong = script(store, "prolong", is_bulky=True)
        self._begin = script(store, "begin")
        self._begin_told = script(store, "begin_told", prelude=("common", "register"))
        self._renew = script(store, "renew")
        self._finish = script(store, "finish")
        self.generation = 0

    async def look(
        self, account: str, digest: str, reads: tuple[str, ...], token: str, *, wants_lease: bool
    ) -> Look:
        """Find an entry or, with `wants_lease`, get the right to fetch it under `token`.

        Raises:
            StoreFault: The store did not answer; the right may have been taken all the same.
        """
        keys = keys_of(account)
        entry_key = keys.entry(digest)
        word, now_ms, vector, blob, level, holder = await self._recall(
            keys=(keys.epochs, keys.marks, entry_key, keys.lease(digest)),
            args=(token, self.generation, " ".join(reads), self._fill_lease_ms if wants_lease else 0),
        )
        return Look(
            word=Word(word.decode()),
            now_ms=now_ms,
            vector=vector.decode(),
            entry=self._opened(blob, entry_key) if blob else None,
            is_write_open=level > 0,
            holder=holder.decode(),
        )

    async def keep(
        self,
        account: str,
        digest: str,
        reads: tuple[str, ...],
        *,
        token: str,
        vector: str,
        entry: Entry,
        ttl_s: float,
        label: str,
    ) -> Kept:
        """Offer an answer that was fetched under `vector`, and give the right to fetch back.

        Raises:
            StoreFault: The store did not answer; it may have been kept all the same, which is harmless.
        """
        keys = keys_of(account)
        entry_key = keys.entry(digest)
        outcome, now_ms, evicted = await self._keep(
            keys=(keys.epochs, keys.marks, entry_key, keys.lease(digest), keys.index, keys.sizes),
            args=(
                *(token, self.generation, " ".join(reads), vector),
                self._codec.encode(entry, entry_key),
                *(int(ttl_s * 1000), int(self._options.keep_beyond_s * 1000)),
                *(digest, entry.size_bytes, self._options.l2_account_max_bytes),
                self._codec.seal(label.encode(errors="surrogatepass"), keys.sizes + digest),
                *(FEED, keys.entry("")),
            ),
        )
        return Kept(outcome.decode(), now_ms, evicted)

    async def release(self, account: str, digest: str, token: str) -> None:
        """Give the right to fetch back without an answer."""
        keys = keys_of(account)
        await self._release(keys=(keys.epochs, keys.marks, keys.lease(digest)), args=(token, FEED, digest))

    async def prolong(self, account: str, digest: str, token: str) -> None:
        """Keep the right to fetch for one more lease, if it is still ours."""
        keys = keys_of(account)
        await self._prolong(
            keys=(keys.epochs, keys.marks, keys.lease(digest)), args=(token, self._fill_lease_ms)
        )

    async def begin_write(self, account: str, kind: str, mark: str, types: Sequence[str]) -> None:
        """Make `types` old and leave a mark of `kind` "o" (open-ended) or "s" (short)."""
        await self._on_epochs(self._begin, account, (kind, mark, self._mark_lease_ms, " ".join(types)))

    async def begin_write_told(
        self, account: str, kind: str, mark: str, types: Sequence[str], telling: Telling
    ) -> list[Any]:
        """Do that and tell of it, in one script: not on a Cluster. Gives what the telling is answered."""
        keys = keys_of(account)
        reply: list[Any] = await self._begin_told(
            keys=(keys.epochs, keys.marks, *telling.keys),
            args=(kind, mark, self._mark_lease_ms, " ".join(types), *telling.args),
        )
        return reply

    async def renew_write(self, account: str, kind: str, mark: str, types: Sequence[str]) -> bool:
        """Keep a mark alive. Returns whether it was there; if not, it stands again and `types` are old."""
        reply = await self._on_epochs(
            self._renew, account, (kind, mark, self._mark_lease_ms, " ".join(types))
        )
        return bool(reply)

    async def finish_write(self, account: str, kind: str, mark: str, types: Sequence[str]) -> bool:
        """Make `types` old and take the mark away; without a mark ("") only the former.

        Returns whether the mark stood to the end. If not, what was fetched meanwhile may have been kept.
        """
        return bool(await self._on_epochs(self._finish, account, (kind, mark, " ".join(types))))

    async def _on_epochs(self, run: StoreScript, account: str, args: Sequence[str | int]) -> Any:  # noqa: ANN401 - a script answers what it likes
        keys = keys_of(account)
        return await run(keys=(keys.epochs, keys.marks), args=args)

    def _opened(self, blob: bytes, entry_key: str) -> Entry | None:
        return self._codec.decode(blob[TIMES:], entry_key, int(blob[:13]), int(blob[13:TIMES]))


def script(
    store: Store, name: str, *, prelude: str | tuple[str, ...] | None = "common", is_bulky: bool = False
) -> StoreScript:
    """A script of `lua/`, behind the prelude (or several) that it shares with others."""
    folder = importlib.resources.files("cbk_gateway.cache") / "lua"
    before = (prelude,) if isinstance(prelude, str) else prelude or ()
    texts = [(folder / f"{one}.lua").read_text(encoding="utf-8") for one in (*before, name)]
    return store.script("".join(texts), is_bulky=is_bulky)

"""One copy of `platform/*` for all accounts, once several accounts were seen to get the same.

Owns the votes and the copies, in the store only. Off unless configured. Nothing that an account owns may come
in here: which types qualify is the grammar's word, `Lifetime.GLOBAL` under `platform/`.

Every answer that an account fetches for itself is a vote: its fingerprint leaves out `createdAt` and
`updatedAt`, which the API stamps with the present. When `shared_quorum` accounts agree, the latest body
serves all. The first vote that differs ends that for ten minutes, and the votes are taken anew. A part of the
requests, `shared_sample`, is fetched in any case, so differences are found. An account is served only while
its credential is known to be good: the upstream answered it with 200 within the last five minutes, seen by
this worker.
"""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import orjson

from cbk_gateway.cache.ask import Ask
from cbk_gateway.cache.copy import Copy
from cbk_gateway.cache.entry import Entry, EntryCodec
from cbk_gateway.cache.options import CacheOptions
from cbk_gateway.cache.shelf import script
from cbk_gateway.store import Store

_PREFIX: Final = "cbkgw:{cache-shared}:"
_EPOCH: Final = _PREFIX + "epoch"
_PROVEN_S: Final = 300.0
_MAX_PROVEN: Final = 4096
_VOTES_MS: Final = 3_600_000
_SILENCE_MS: Final = 600_000
_STAMPS: Final = frozenset({"createdAt", "updatedAt"})
_TIMES: Final = 26


def fingerprint(body: bytes) -> str:
    """A digest of an answer without its stamps, whatever the order of its keys."""
    plain = orjson.dumps(_unstamped(orjson.loads(body)), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(plain).hexdigest()


def is_shared_type(resource: str) -> bool:
    """Whether answers of a type may be everybody's."""
    return resource.startswith("platform/")


def may_share(ask: Ask) -> bool:
    """Whether an answer can be the same for every account at all."""
    return ask.is_global and is_shared_type(ask.resource)


class SharedTier:
    """The copies for all. `chance` gives numbers from 0 to 1."""

    def __init__(
        self,
        store: Store,
        options: CacheOptions,
        clock: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._options = options
        self._codec = EntryCodec(options.encryption_key)
        self._now = clock
        self._chance = chance
        self._look = script(store, "shared_look", prelude=None)
        self._vote = script(store, "shared_vote", prelude=None)
        self._proven: OrderedDict[tuple[str, str], float] = OrderedDict()

    def may_serve(self, ask: Ask) -> bool:
        """Whether this request may be answered with everybody's copy, if there is one."""
        if not self._options.shared_platform or not may_share(ask):
            return False
        until = self._proven.get((ask.account, ask.credential_class))
        return until is not None and until > self._now() and self._chance() >= self._options.shared_sample

    def prove(self, ask: Ask) -> None:
        """Note that the upstream has just answered this account's credential with 200."""
        if self._options.shared_platform:
            who = (ask.account, ask.credential_class)
            self._proven[who] = self._now() + _PROVEN_S
            self._proven.move_to_end(who)
            if len(self._proven) > _MAX_PROVEN:
                self._proven.popitem(last=False)

    async def find(self, ask: Ask) -> Copy | None:
        """Everybody's copy, if there is one.

        Raises:
            StoreFault: The store is away.
        """
        sent_at = self._now()
        key = _PREFIX + ask.shared_digest
        now_ms, blob = await self._look(keys=(key, _EPOCH))
        if not blob:
            return None
        entry = self._codec.decode(blob[_TIMES:], key, int(blob[:13]), int(blob[13:_TIMES]))
        if entry is None:
            return None
        return ask.copy(entry, sent_at, now_ms)

    async def vote(self, ask: Ask, entry: Entry, ttl_s: float) -> str:
        """Say what an account got. Returns "watching", "shared" or "off".

        Raises:
            StoreFault: The store is away.
        """
        key = _PREFIX + ask.shared_digest
        who = hashlib.sha256(ask.account.encode(errors="surrogatepass")).hexdigest()[:16]
        word: bytes = await self._vote(
            keys=(key, _EPOCH),
            args=(
                *(who, fingerprint(entry.body), self._codec.encode(entry, key), int(ttl_s * 1000)),
                *(self._options.shared_quorum, _VOTES_MS, _SILENCE_MS),
            ),
        )
        return word.decode()

    async def purge(self) -> None:
        """Drop all copies and votes.

        Raises:
            StoreFault: The store is away.
        """
        _: object = await self._store.call(lambda client: client.incr(_EPOCH))


def _unstamped(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {name: _unstamped(one) for name, one in value.items() if name not in _STAMPS}
    if isinstance(value, list):
        return [_unstamped(one) for one in value]
    return value

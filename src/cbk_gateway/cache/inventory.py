"""What the store keeps for an account, as operators look through it: found, shown, dropped one by one.

Reads everything an account has, so it is for operators and never for requests. Nothing here makes an answer
old for a reason of its own; what surrounds a purge is `writes.py`'s.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from cbk_gateway.cache.entry import EntryCodec
from cbk_gateway.cache.mention import Mention
from cbk_gateway.cache.shelf import TIMES, keys_of, script
from cbk_gateway.store import Store

_LABELS: Final = 500
_BODIES: Final = 16
_PATIENCE_S: Final = 2.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shown:
    """One entry as operators see it."""

    digest: str
    label: str
    size_bytes: int
    expires_at_ms: int


class Inventory:
    """The entries of the store, one account at a time.

    Args:
        store: The store.
        codec: How they are sealed.
    """

    def __init__(self, store: Store, codec: EntryCodec) -> None:
        self._store = store
        self._codec = codec
        self._fence = script(store, "fence")
        self._drop = script(store, "drop")

    async def shown(self, account: str, mention: Mention, limit: int) -> list[Shown]:
        """At most `limit` of the entries that an operator looks for, those that vanish first in front.

        Entries that a write made old are among them until they expire or give way.

        Raises:
            StoreFault: The store is away.
        """
        found: list[Shown] = []
        async with aclosing(self._matching(account, mention)) as matching:
            async for one in matching:
                found.append(one)
                if len(found) == limit:
                    break
        return found

    async def drop(self, account: str, mention: Mention) -> int:
        """Drop the entries that an operator looks for. Returns how many there were.

        Fetches that were under way when it began will not be kept, so what is there when it has ended was
        fetched since.

        Raises:
            StoreFault: The store is away; some may have been dropped.
        """
        keys = keys_of(account)
        await self._fence(keys=(keys.epochs, keys.marks))
        digests = [one.digest async for one in self._matching(account, mention)]
        dropped = 0
        for some in _batches(digests, _LABELS):
            dropped += await self._drop(
                keys=(keys.epochs, keys.marks, keys.index, keys.sizes), args=(keys.entry(""), *some)
            )
        return dropped

    async def _matching(self, account: str, mention: Mention) -> AsyncGenerator[Shown, None]:
        labelled = await self._labelled(account, mention)
        if mention.identifier is None:
            for one in labelled:
                yield one
            return
        for some in _batches(labelled, _BODIES):
            for one, body in zip(some, await self._bodies(account, some), strict=True):
                if body is not None and mention.is_in(one.label, body):
                    yield one

    async def _labelled(self, account: str, mention: Mention) -> list[Shown]:
        """All entries of the types, from one look at the whole index: nothing moves to and fro meanwhile."""
        keys = keys_of(account)
        index: list[tuple[bytes, float]] = await self._store.call(
            lambda client: cast(
                "Awaitable[list[tuple[bytes, float]]]", client.zrange(keys.index, 0, -1, withscores=True)
            ),
            timeout_s=_PATIENCE_S,
        )
        found = []
        for some in _batches(index, _LABELS):
            sizes = await self._sizes(account, [name for name, _ in some])
            for (name, expires), size in zip(some, sizes, strict=True):
                if size is None:
                    continue
                number, _, sealed = size.partition(b" ")
                label = self._codec.open(sealed, keys.sizes + name.decode()) or b"?"
                shown = Shown(name.decode(), label.decode(errors="replace"), int(number), int(expires))
                if mention.concerns(shown.label):
                    found.append(shown)
        return found

    async def _sizes(self, account: str, names: list[bytes]) -> list[bytes | None]:
        """What the books say of entries; None of one that is gone."""
        return await self._store.call(
            lambda client: cast(
                "Awaitable[list[bytes | None]]",
                client.hmget(keys_of(account).sizes, cast("list[str]", names)),
            ),
            timeout_s=_PATIENCE_S,
        )

    async def _bodies(self, account: str, some: Sequence[Shown]) -> list[bytes | None]:
        """The bodies of entries; None of one that is gone, everything of one that cannot be read."""
        keys = keys_of(account)
        names = [keys.entry(one.digest) for one in some]
        blobs: list[bytes | None] = await self._store.call(
            lambda client: cast("Awaitable[list[bytes | None]]", client.mget(names)), timeout_s=_PATIENCE_S
        )
        return [self._body(blob, name) for blob, name in zip(blobs, names, strict=True)]

    def _body(self, blob: bytes | None, name: str) -> bytes | None:
        if blob is None:
            return None
        plain = self._codec.open(blob.partition(b"\n")[2][TIMES:], name)
        return plain.partition(b"\n")[2] if plain is not None else b""


def _batches(all_of_them: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (all_of_them[start : start + size] for start in range(0, len(all_of_them), size))

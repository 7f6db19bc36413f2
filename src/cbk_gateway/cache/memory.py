"""The worker's own tier: copies in memory, bounded by bytes, least recently used with regard to frequency.

It holds what it is given until it is told otherwise. Whether it may be *served* from is `membership.py`'s
business, and which copies may be put in that of `Tiers.admit`.

Eviction takes the copy that was not used for longest, unless it was used often: then its count is halved and
it goes round once more. One account may fill `account_share` of the room; past that it evicts its own copies,
so nobody's traffic can empty the memory of the others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from cbk_gateway.breaks import Breaks
from cbk_gateway.cache.copy import Copy
from cbk_gateway.cache.mention import Mention
from cbk_gateway.operation import ALL_TYPES
from cbk_gateway.operation.kinds import ANY_WRITE

_MAX_FREQUENCY = 15
_MAX_ROUNDS = 64


class _AccountShelf:
    """One account's part of the memory: its copies in order of use, and which depend on which type."""

    __slots__ = ("by_type", "bytes", "copies")

    def __init__(self) -> None:
        self.copies: OrderedDict[str, Copy] = OrderedDict()
        self.by_type: dict[str, set[str]] = {}
        self.bytes = 0


class Memory:
    """Copies by digest.

    Args:
        max_bytes: Room for all.
        account_share: Part of it that one account may fill.
        breaks: Noted when a copy leaves, or answers in another variant from now on.
    """

    def __init__(self, max_bytes: int, account_share: float, breaks: Breaks | None = None) -> None:
        self._breaks = breaks if breaks is not None else Breaks()
        self._max_bytes = max_bytes
        self._account_bytes = int(max_bytes * account_share)
        self._order: OrderedDict[str, Copy] = OrderedDict()
        self._accounts: dict[str, _AccountShelf] = {}
        self._sizes: dict[str, int] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._order)

    def __repr__(self) -> str:
        return f"<Memory {len(self)} copies, {self.size_bytes}/{self._max_bytes} bytes>"

    def find(self, digest: str) -> Copy | None:
        """The copy of that name, noted as used."""
        copy = self._order.get(digest)
        if copy is None:
            return None
        if copy.frequency < _MAX_FREQUENCY:
            copy.frequency += 1
        self._order.move_to_end(digest)
        self._accounts[copy.account].copies.move_to_end(digest)
        return copy

    def put(self, copy: Copy) -> int:
        """Take a copy in. Returns how many others gave way; one that fits nowhere is not taken."""
        self.drop(copy.digest)
        size = copy.size_bytes
        if size > self._account_bytes:
            return 0
        shelf = self._accounts.setdefault(copy.account, _AccountShelf())
        shelf.copies[copy.digest] = copy
        for one in (*copy.reads, ALL_TYPES):
            shelf.by_type.setdefault(one, set()).add(copy.digest)
        self._order[copy.digest] = copy
        self._account_for(copy, size)
        return self._make_room(copy.account)

    def resized(self, copy: Copy) -> int:
        """Note that a copy grew by a variant. Returns how many others gave way."""
        if self._order.get(copy.digest) is not copy or self._sizes[copy.digest] == copy.size_bytes:
            return 0
        self._breaks.note()
        self._account_for(copy, copy.size_bytes)
        return self._make_room(copy.account)

    def drop(self, digest: str) -> None:
        """Forget one copy, if it is here."""
        copy = self._order.pop(digest, None)
        if copy is None:
            return
        self._breaks.note()
        shelf = self._accounts[copy.account]
        del shelf.copies[digest]
        for one in (*copy.reads, ALL_TYPES):
            names = shelf.by_type[one]
            names.discard(digest)
            if not names:
                del shelf.by_type[one]
        size = self._sizes.pop(digest)
        shelf.bytes -= size
        self.size_bytes -= size
        if not shelf.copies:
            del self._accounts[copy.account]

    def holds(self, copy: Copy) -> bool:
        """Whether this very copy is here."""
        return self._order.get(copy.digest) is copy

    def forget(self, copy: Copy) -> None:
        """Drop this very copy, if it is here."""
        if self.holds(copy):
            self.drop(copy.digest)

    def invalidate(self, account: str, types: Iterable[str]) -> int:
        """Forget an account's copies that depend on any of these types. Returns how many there were."""
        shelf = self._accounts.get(account)
        if shelf is None:
            return 0
        names: set[str] = set()
        for one in (*types, ANY_WRITE):
            names |= shelf.by_type.get(one, set())
        for name in names:
            self.drop(name)
        return len(names)

    def drop_mentions(self, account: str, mention: Mention) -> int:
        """Forget an account's copies that speak of one object. Returns how many there were. Reads bodies."""
        shelf = self._accounts.get(account)
        if shelf is None:
            return 0
        names = [
            one.digest
            for one in shelf.copies.values()
            if mention.concerns(one.label) and mention.is_in(one.label, one.entry.body)
        ]
        for name in names:
            self.drop(name)
        return len(names)

    def clear(self) -> None:
        """Forget everything."""
        self._breaks.note()
        self._order.clear()
        self._accounts.clear()
        self._sizes.clear()
        self.size_bytes = 0

    def account_bytes(self, account: str) -> int:
        """Bytes that an account takes."""
        shelf = self._accounts.get(account)
        return shelf.bytes if shelf is not None else 0

    def _account_for(self, copy: Copy, size: int) -> None:
        grown = size - self._sizes.get(copy.digest, 0)
        self._sizes[copy.digest] = size
        self._accounts[copy.account].bytes += grown
        self.size_bytes += grown

    def _make_room(self, account: str) -> int:
        evicted = 0
        while self.account_bytes(account) > self._account_bytes:
            self.drop(self._least_wanted(self._accounts[account].copies))
            evicted += 1
        while self.size_bytes > self._max_bytes:
            self.drop(self._least_wanted(self._order))
            evicted += 1
        return evicted

    @staticmethod
    def _least_wanted(copies: OrderedDict[str, Copy]) -> str:
        for _ in range(_MAX_ROUNDS):
            digest, copy = next(iter(copies.items()))
            if copy.frequency == 0:
                break
            copy.frequency //= 2
            copies.move_to_end(digest)
        return next(iter(copies))

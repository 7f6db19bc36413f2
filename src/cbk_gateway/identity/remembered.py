"""The memory of verified tokens: digest of the header to principal, bounded, until expiry.

Only tokens that passed every check are here, so a flood of bad ones cannot grow it. Whatever ends a token's
life early (revocation, a withdrawn key) removes it from here at once; looking one up asks nothing but the
clock. Deciding whether a token is good is not done here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cbk_gateway.identity.bearer import CANONICAL_PREFIX
from cbk_gateway.parties import Principal

_PREFIX: Final = CANONICAL_PREFIX.encode()


@dataclass(frozen=True, slots=True)
class Remembered:
    """A verified token. `until` is the epoch second of its expiry, leeway included."""

    until: float
    principal: Principal
    thumbprint: str


def digest_of(token: str) -> bytes:
    """The name of a token in the memory: SHA-256 of its header value in the usual spelling.

    The spelling is part of it so that the fast path hashes the value as it came, without cutting it.
    """
    return sha256(_PREFIX + token.encode()).digest()


class RememberedTokens:
    """Verified tokens, at most `capacity` of them; the least recently used leaves first."""

    __slots__ = ("_capacity", "_entries")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[bytes, Remembered] = OrderedDict()

    def get(self, digest: bytes, now: float) -> Principal | None:
        """The principal of a remembered token that has not expired at `now` (epoch seconds)."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if now >= entry.until:
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return entry.principal

    def until(self, digest: bytes) -> float:
        """When a remembered token expires (epoch seconds); 0 when it is not remembered."""
        entry = self._entries.get(digest)
        return entry.until if entry is not None else 0.0

    def put(self, digest: bytes, entry: Remembered) -> None:
        """Remember a token, forgetting the least recently used ones beyond the capacity."""
        if self._capacity == 0:
            return
        self._entries[digest] = entry
        self._entries.move_to_end(digest)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def forget(self, is_over: Callable[[Remembered], bool]) -> int:
        """Forget the tokens for which `is_over` holds; tells how many."""
        gone = [digest for digest, entry in self._entries.items() if is_over(entry)]
        for digest in gone:
            del self._entries[digest]
        return len(gone)

    def __len__(self) -> int:
        return len(self._entries)

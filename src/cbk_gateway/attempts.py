"""When attempts at creating something began, and which objects answered attempts made; shared by workers.

What a lost create did can only be told from the newest objects if both are known: an object from before the
attempt is not its work, and one whose id a client was given is another attempt's. Times are the store's.
What the objects say is judged in `findings.py`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cbk_gateway.store import Store

_LIFE_MS: Final = 1_300_000
"""Longer than the longest write and the longest time in which it is repeated."""

_REMEMBERED_IDS: Final = 2000

_BEGAN: Final = """
local clock = redis.call('TIME')
local now = string.format('%d', clock[1] * 1000 + math.floor(clock[2] / 1000))
redis.call('HSETNX', KEYS[1], 'began', now)
redis.call('HSETNX', KEYS[1], 'request', ARGV[1])
redis.call('HSET', KEYS[1], 'tag', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""

_LINGERS: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'lingers', '1')
end
return 1
"""

_ENDED: Final = """
local clock = redis.call('TIME')
local now = string.format('%d', clock[1] * 1000 + math.floor(clock[2] / 1000))
redis.call('DEL', KEYS[1])
for at = 3, #ARGV do
  redis.call('ZADD', KEYS[2], now, ARGV[at])
end
if #ARGV > 2 then
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[2]))
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
end
return 1
"""

_SEEN: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local seen = redis.call('HMGET', KEYS[1], 'began', 'request', 'lingers', 'tag')
local age = seen[1] and now - tonumber(seen[1]) or -1
return { age, seen[2] or '', seen[3] or '', seen[4] or '', redis.call('ZREVRANGE', KEYS[2], 0, -1) }
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt is written down: the keys of its own record and of its account's ids."""

    record: str
    ids: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of an attempt that was lost.

    Attributes:
        age_ms: How long ago its first try began; None when nobody wrote that down.
        request_id: Of that first try.
        lingers: Whether the upstream may still be at it.
        tag: What its last try bore, so that its object can be told from all others; None without one.
        known_ids: Ids that answered creates of the same list gave.
    """

    age_ms: int | None
    request_id: str | None
    lingers: bool
    tag: str | None
    known_ids: frozenset[str]


class Attempts:
    """The record of attempts.

    Args:
        store: Shared state.
        key: Keys the names, so that nobody can guess a body from them.
    """

    def __init__(self, store: Store, key: bytes) -> None:
        self._key = key
        self._began = store.script(_BEGAN)
        self._lingers = store.script(_LINGERS)
        self._ended = store.script(_ENDED)
        self._seen = store.script(_SEEN)

    def place(self, account: str, group: str, identity: tuple[str, ...]) -> Place:
        """Where an attempt of this identity, at making an object of this group, is written down."""
        text = "".join(f"{len(part)}:{part}" for part in identity)
        name = hmac.digest(self._key, text.encode(), hashlib.sha256).hex()
        own = hashlib.sha256(group.encode()).hexdigest()[:32]
        return Place(f"cbkgw:{{{account}}}:attempt:{name}", f"cbkgw:{{{account}}}:made:{own}")

    async def began(self, place: Place, request_id: str, tag: str | None = None) -> None:
        """A try begins; of time and request id, the first since the last answer counts.

        Raises:
            StoreFault: The store is away.
        """
        await self._began(keys=[place.record], args=[request_id, _LIFE_MS, tag or ""])

    async def lingers(self, place: Place) -> None:
        """A try was given up while the upstream may still be working on it.

        Raises:
            StoreFault: The store is away.
        """
        await self._lingers(keys=[place.record])

    async def ended(self, place: Place, ids: Iterable[str]) -> None:
        """A try was answered, with these ids.

        Raises:
            StoreFault: The store is away.
        """
        await self._ended(keys=[place.record, place.ids], args=[_LIFE_MS, _REMEMBERED_IDS, *ids])

    async def seen(self, place: Place) -> Seen:
        """What is known of an attempt.

        Raises:
            StoreFault: The store is away.
        """
        age, request, lingers, tag, ids = await self._seen(keys=[place.record, place.ids])
        return Seen(
            int(age) if int(age) >= 0 else None,
            request.decode() or None,
            bool(lingers),
            tag.decode() or None,
            frozenset(one.decode() for one in ids),
        )

"""Tenants in the store: rows that the admin API writes and every process reads.

    cbkgw:{tenants}:records     hash: tenant id -> its definition as JSON, keys sealed or as references
    cbkgw:{tenants}:overrides   hash: tenant id -> an `Override`
    cbkgw:{tenants}:rotations   hash: tenant id -> what the upstream said of its next key, to all processes
    cbkgw:{tenants}:ending:ID   held by the process that ends the tenant's rotation
    cbkgw:{tenants}:version     grows with every change
    cbkgw:{tenants}:changes     channel that carries the version

All share one hash tag, so that a change is one script on one node. What the rows mean together with
the file is `directory.py`'s business, and when a rotation ends is `promotion.py`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from cbk_gateway.store import Store, StoreClient

RECORDS: Final = "cbkgw:{tenants}:records"
OVERRIDES: Final = "cbkgw:{tenants}:overrides"
ROTATIONS: Final = "cbkgw:{tenants}:rotations"
ENDING: Final = "cbkgw:{tenants}:ending:"
VERSION: Final = "cbkgw:{tenants}:version"
CHANGES: Final = "cbkgw:{tenants}:changes"

# ARGV: hash key index ("1" records, "2" overrides), id, expected old value or "", new value or "" to delete.
# An expectation that fails changes nothing: two operators must not overwrite one another unseen.
_WRITE: Final = """
local old = redis.call('HGET', KEYS[tonumber(ARGV[1])], ARGV[2]) or ''
if old ~= ARGV[3] then return 0 end
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[tonumber(ARGV[1])], ARGV[2])
else
  redis.call('HSET', KEYS[tonumber(ARGV[1])], ARGV[2], ARGV[4])
end
local version = redis.call('INCR', KEYS[3])
redis.call('PUBLISH', ARGV[5], version)
return version
"""

# ARGV: tenant id, digest of its next key, requests it passed, and was refused. Another key starts anew.
_TALLY: Final = """
local now = tonumber(redis.call('TIME')[1])
local row = cjson.decode(redis.call('HGET', KEYS[1], ARGV[1]) or '{}')
if row.key ~= ARGV[2] then row = {key = ARGV[2], passed = 0, refused = 0, since = now} end
row.passed = row.passed + tonumber(ARGV[3])
row.refused = row.refused + tonumber(ARGV[4])
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(row))
return {row.passed, row.refused, now - row.since}
"""


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything the store knows of tenants, at least as new as the version. Values are JSON texts."""

    version: int = 0
    records: Mapping[str, bytes] = field(default_factory=dict)
    overrides: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the upstream said of a next key: requests it passed, and was refused, in so many seconds."""

    passed: int
    refused: int
    age_s: int


class Records:
    """Reads and writes the rows. Every method may raise `StoreFault`."""

    def __init__(self, store: Store, *, timeout_s: float = 1.0) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._write = store.script(_WRITE)
        self._tally = store.script(_TALLY)

    async def version(self) -> int:
        """The current version: one cheap command."""
        answer: Any = await self._store.call(
            lambda client: cast("Awaitable[Any]", client.get(VERSION)), timeout_s=self._timeout_s
        )
        return int(answer or 0)

    async def read(self) -> Rows:
        """All rows, of one version.

        The version is read first: rows that are newer than it are read again at the next look, and rows
        that are older cannot be.
        """

        async def rows(client: StoreClient) -> Rows:
            version = int(await cast("Awaitable[Any]", client.get(VERSION)) or 0)
            records = await cast("Awaitable[dict[bytes, bytes]]", client.hgetall(RECORDS))
            overrides = await cast("Awaitable[dict[bytes, bytes]]", client.hgetall(OVERRIDES))
            return Rows(version, _by_name(records), _by_name(overrides))

        return await self._store.call(rows, timeout_s=self._timeout_s)

    async def write_record(self, tenant_id: str, old: bytes | None, new: bytes | None) -> bool:
        """Put or (None) remove a definition, if it still is `old`; says whether it was."""
        return await self._written("1", tenant_id, old, new)

    async def write_override(self, tenant_id: str, old: bytes | None, new: bytes | None) -> bool:
        """Put or (None) remove an override, if it still is `old`; says whether it was."""
        return await self._written("2", tenant_id, old, new)

    async def tally(self, tenant_id: str, key_digest: str, passed: int, refused: int) -> Standing:
        """Add to what is known of a tenant's next key; says what that is now, over all processes."""
        answer = await self._tally(keys=[ROTATIONS], args=[tenant_id, key_digest, passed, refused])
        return Standing(*(int(one) for one in answer))

    async def forget_tally(self, tenant_id: str) -> None:
        """Forget what is known of a tenant's next key, because the rotation is over or a new one begins."""
        await self._store.call(
            lambda client: cast("Awaitable[Any]", client.hdel(ROTATIONS, tenant_id)),
            timeout_s=self._timeout_s,
        )

    async def may_end(self, tenant_id: str, for_s: int) -> bool:
        """Be the one process that ends a tenant's rotation within the next seconds; says whether it is."""
        answer: Any = await self._store.call(
            lambda client: cast("Awaitable[Any]", client.set(ENDING + tenant_id, 1, nx=True, ex=for_s)),
            timeout_s=self._timeout_s,
        )
        return bool(answer)

    async def _written(self, which: str, tenant_id: str, old: bytes | None, new: bytes | None) -> bool:
        answer = await self._write(
            keys=[RECORDS, OVERRIDES, VERSION], args=[which, tenant_id, old or b"", new or b"", CHANGES]
        )
        return int(answer) > 0


def _by_name(pairs: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in pairs.items()}

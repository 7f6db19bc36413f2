"""Tenants in the store: rows that the admin API writes and every process reads.

    cbkgw:{tenants}:records     hash: tenant id -> its definition as JSON, keys sealed or as references
    cbkgw:{tenants}:overrides   hash: tenant id -> an `Override`
    cbkgw:{tenants}:version     grows with every change
    cbkgw:{tenants}:changes     channel that carries the version

All four share one hash tag, so that a change is one script on one node. What the rows mean together with
the file is `directory.py`'s business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from cbk_gateway.store import Store, StoreClient

RECORDS: Final = "cbkgw:{tenants}:records"
OVERRIDES: Final = "cbkgw:{tenants}:overrides"
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


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything the store knows of tenants, at least as new as the version. Values are JSON texts."""

    version: int = 0
    records: Mapping[str, bytes] = field(default_factory=dict)
    overrides: Mapping[str, bytes] = field(default_factory=dict)


class Records:
    """Reads and writes the rows. Every method may raise `StoreFault`."""

    def __init__(self, store: Store, *, timeout_s: float = 1.0) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._write = store.script(_WRITE)

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

    async def _written(self, which: str, tenant_id: str, old: bytes | None, new: bytes | None) -> bool:
        answer = await self._write(
            keys=[RECORDS, OVERRIDES, VERSION], args=[which, tenant_id, old or b"", new or b"", CHANGES]
        )
        return int(answer) > 0


def _by_name(pairs: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in pairs.items()}

"""Revocations in the store: three scripts and their keys.

What the processes do with what they read is `revocation_feed`'s business. The key names carry one hash tag,
so that the scripts run on a Cluster.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import structlog

from cbk_gateway.identity.revocation import Revocation
from cbk_gateway.store import Store

_log = structlog.get_logger(__name__)

# No tenant id starts with an underscore, so this tag meets no tenant's keys.
_PREFIX: Final = "cbkgw:{_identity}:revocations"
_RECORDS: Final = f"{_PREFIX}:records"
_ORDER: Final = f"{_PREFIX}:order"
_EXPIRIES: Final = f"{_PREFIX}:expiries"
_STATE: Final = f"{_PREFIX}:state"
CHANNEL: Final = f"{_PREFIX}:changed"


@dataclass(frozen=True, slots=True)
class StorePosition:
    """How far a reader has read. `epoch` names the life of the stored list: another one means it was lost."""

    epoch: str
    version: int

    def is_before(self, known: StorePosition) -> bool:
        """Whether the store has lost what a reader at `known` has read."""
        return self.epoch != known.epoch or self.version < known.version


NOWHERE: Final = StorePosition("", 0)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a read gave. `is_complete`: these are all there are, not only the new ones."""

    position: StorePosition
    is_complete: bool
    revocations: tuple[Revocation, ...]


class RevocationStore:
    """The stored list. Every method raises `StoreFault` when the store gives no answer."""

    def __init__(self, store: Store) -> None:
        self._revoke = store.script(_script("revoke.lua"))
        self._lift = store.script(_script("lift.lua"))
        self._changes = store.script(_script("changes.lua"))

    async def revoke(self, revocation: Revocation, now: float) -> Revocation:
        """Keep one and tell all processes; gives it as it is in force, merged with an earlier one."""
        record: bytes = await self._revoke(
            keys=[_RECORDS, _ORDER, _EXPIRIES, _STATE],
            args=[revocation.id, revocation.as_record(), int(now), CHANNEL, secrets.token_hex(8)],
        )
        return Revocation.from_record(record)

    async def lift(self, revocation_id: str) -> bool:
        """Take one back and tell all processes; False if there was none of that id."""
        return bool(
            await self._lift(keys=[_RECORDS, _ORDER, _EXPIRIES, _STATE], args=[revocation_id, CHANNEL])
        )

    async def changes(self, position: StorePosition) -> Changes:
        """What changed since `position`."""
        epoch, version, is_complete, records = await self._changes(
            keys=[_RECORDS, _ORDER, _STATE],
            args=[position.version, position.epoch, secrets.token_hex(8)],
        )
        return Changes(StorePosition(bytes(epoch).decode(), int(version)), bool(is_complete), _read(records))


def _read(records: Sequence[bytes]) -> tuple[Revocation, ...]:
    revocations: list[Revocation] = []
    for record in records:
        try:
            revocations.append(Revocation.from_record(record))
        except (ValueError, TypeError):
            # A newer gateway beside us may know kinds we do not; the others must still act.
            _log.error("revocation_unreadable", size_bytes=len(record))
    return tuple(revocations)


def _script(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")

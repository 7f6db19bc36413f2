"""Two doors to the API: the sandbox's own, and the gateway's. What clients do must come to the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cbk_gateway.sandbox.request_log import RequestRecord
from harness import KEYS, Stage

_PATIENCE_S: Final = 20.0
_PAUSE_S: Final = 0.01


class Way(StrEnum):
    """Which door."""

    DIRECT = "direct"
    GATEWAY = "gateway"


def key_of(tenant: str) -> str:
    """The upstream key of a tenant of the harness."""
    return KEYS[tenant.partition("-")[0]]


@dataclass(frozen=True, slots=True)
class Door:
    """One way to the API, and what there is to know behind it."""

    way: Way
    stage: Stage

    @property
    def url(self) -> str:
        """The only thing that a client has to be told anew, beside its secret."""
        return self.stage.url if self.way is Way.GATEWAY else self.stage.sandbox.url

    @property
    def is_gateway(self) -> bool:
        """Whether the gateway stands in it."""
        return self.way is Way.GATEWAY

    def secret(self, tenant: str = "acme") -> str:
        """What a client of that tenant authenticates with here."""
        return self.stage.token(tenant) if self.is_gateway else key_of(tenant)


def arrived(stage: Stage, tenant: str = "acme") -> list[RequestRecord]:
    """What reached the API, having made sure that all of it carries the tenant's key and no token."""
    records = stage.sandbox.requests
    for record in records:
        assert record.headers["authorization"] == f"Bearer {key_of(tenant)}", record
        wire = f"{record.path}?{record.query} {record.raw_headers} {record.body}"
        for token in stage.tokens.values():
            assert token not in wire, record
    return records


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that is about to become true; fails when it does not within reason."""
    deadline = asyncio.get_running_loop().time() + _PATIENCE_S
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, "it never became true"
        await asyncio.sleep(_PAUSE_S)

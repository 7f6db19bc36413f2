"""What the limiter can be told, and what it tells: its options and the events it reports.

The limits themselves belong to tenants (`parties.TenantLimits`); here is only what holds for all of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from cbk_gateway.parties import Rate

_NO_RATES: Mapping[str, Rate] = MappingProxyType({})


class Mode(StrEnum):
    """What rules the decisions of this worker."""

    STORE = "store"
    LOCAL = "local"  # the store is away, or back so recently that not all workers know


def _fresh_worker_id() -> str:
    return secrets.token_hex(6)


@dataclass(frozen=True, slots=True)
class LimiterOptions:
    """Options of the limiter.

    Attributes:
        global_rate: One bucket over all tenants; None for none. It protects the upstream, so choose it above
            the sum of what tenants use normally.
        account_rates: Buckets over all tenants of one upstream account, by account name.
        lease_life_s: How long a worker may use what it took in advance, of rates, quotas and open requests.
            Longer means fewer store calls for tenants of a few requests per second, and more that lies idle
            with a worker that does not need it. All workers must have the same. Default 5 s.
        lease_min_rate: Requests per second (tokens, for a rate) asked of one worker from which it takes
            leases. Below, every limit is decided call by call, exactly in order. Default 2.
        lease_min_tokens: A slice smaller than this is not worth it: the limit is decided call by call,
            exactly in order. Default 4.
        slot_life_s: After this long without a sign of life a worker's open requests no longer count.
            Default 15.
        roll_call_s: Seconds between signs of life. Default 2.
        dead_after_s: Silence after which a worker is not counted as alive. Default 7.
        return_within_s: Longest time a worker waits, once the store is back, for the others to notice.
            Default 3.
        expected_workers: Workers to share a limit among before any was heard of. Set it to workers times
            replicas: it is used when the store is away from the start. Default 1.
        worker_id: This worker's name among all workers of all gateways; random by default.
        max_waiting: Requests of one tenant that may wait for their token in this worker. Default 64.
        pace_streams: Whether streams may wait as well. Default no: their first byte is awaited by a person.
        token_estimate: Upstream tokens reserved for a call nothing is known about yet. Default 500.
        bytes_estimate: Bytes reserved for a call nothing is known about yet. Default 2048.
        checkpoint_directory: Where quota counters are noted down now and then, against a store that forgets;
            None keeps them in memory only.
        checkpoint_s: Seconds between notes: the most that a restart of the store without persistence can
            lose. Default 20.
        max_remembered: Buckets whose state a worker remembers. Default 20,000.
    """

    global_rate: Rate | None = None
    account_rates: Mapping[str, Rate] = field(default_factory=lambda: _NO_RATES)
    lease_life_s: float = 5.0
    lease_min_rate: float = 2.0
    lease_min_tokens: float = 4.0
    slot_life_s: float = 15.0
    roll_call_s: float = 2.0
    dead_after_s: float = 7.0
    return_within_s: float = 3.0
    expected_workers: int = 1
    worker_id: str = field(default_factory=_fresh_worker_id)
    max_waiting: int = 64
    pace_streams: bool = False
    token_estimate: int = 500
    bytes_estimate: int = 2048
    checkpoint_directory: Path | None = None
    checkpoint_s: float = 20.0
    max_remembered: int = 20_000


class LimiterObserver(Protocol):
    """What the limiter reports. Every word is from a bounded set; tenants and policies are configured."""

    def decided(self, tenant: str, outcome: str, policy: str) -> None:
        """One decision; outcome: admitted, rate, quota, concurrency, unavailable. Policy "" when admitted."""

    def asked_store(self, calls: int) -> None:
        """So many round trips were made for one decision."""

    def shadow_refused(self, tenant: str, policy: str) -> None:
        """A shadow policy would have refused."""

    def quota_reached(self, tenant: str, quota: str, percent: int) -> None:
        """A quota passed 80 or 100 percent."""

    def paced(self, tenant: str, waited_s: float) -> None:
        """A request waited for its token and was admitted."""

    def mode_changed(self, mode: Mode) -> None:
        """The store ruled and no longer does, or the reverse."""


class SilentObserver:
    """Reports nothing."""

    def decided(self, tenant: str, outcome: str, policy: str) -> None:
        """Nothing."""

    def asked_store(self, calls: int) -> None:
        """Nothing."""

    def shadow_refused(self, tenant: str, policy: str) -> None:
        """Nothing."""

    def quota_reached(self, tenant: str, quota: str, percent: int) -> None:
        """Nothing."""

    def paced(self, tenant: str, waited_s: float) -> None:
        """Nothing."""

    def mode_changed(self, mode: Mode) -> None:
        """Nothing."""

"""What an operator may decide about the cache, with units and defaults.

Values only; how each of them is used is written where it is used. No other module of this package may hold
a tunable number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from cbk_gateway.operation import Lifetime

_NONE: Final[Mapping[str, float]] = MappingProxyType({})


class Consistency(StrEnum):
    """Whether a write's answer waits until every worker has dropped what the write made old."""

    STRICT = "strict"
    BOUNDED = "bounded"


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """How answers are remembered.

    Attributes:
        enabled: Whether answers are remembered at all. Writes are announced even when they are not, because
            other gateways on the same store may remember.
        consistency: "strict" (default): a write's answer waits until no worker can serve anything older.
            "bounded": it does not wait; another worker may then serve an answer from before the write for at
            most `lease_s` seconds. Take it only where a worker that hangs must not delay anybody's writes.
        config_ttl_s: Seconds that answers of configuration types (bots, datasets, skillsets) live. They are
            invalidated by every write through the gateway; the bound is for writes that pass beside it.
        volatile_ttl_s: Seconds for types that change by themselves (conversations, contacts, tasks).
        global_ttl_s: Seconds for what is the same for every account (`platform/*`).
        type_ttl_s: Seconds per type name, over the three above; 0 never remembers that type. It cannot make
            a type cacheable whose answers may hold credentials.
        negative_ttl_s: Seconds that a 404 on a fetch is remembered; 0 for never.
        obey_upstream_max_age: Whether `Cache-Control: max-age` of the upstream shortens a lifetime. Turn it
            off only for a hosting edge that stamps `max-age=0` on everything. `no-store` and `private`
            are obeyed in any case.
        stale_while_revalidate_s: Seconds past its lifetime that an answer may be served while one request
            fetches it anew; never after a write. 0 (default) for never.
        stale_if_error_s: Seconds past its lifetime that an answer may be served when the upstream fails;
            never after a write. 0 (default) for never.
        max_entry_bytes: Largest body that is remembered. Default 1 MiB.
        l1_max_bytes: Memory for answers within one worker, keys and overhead included. Default 64 MiB; 0
            turns the worker's own tier off.
        l2_account_max_bytes: Bytes of bodies that one account may keep in the store. Default 64 MiB.
        account_share: Part of `l1_max_bytes` that one account may fill, from 0 to 1. Default 0.25. With a
            single account set it to 1.
        collapse_wait_s: Longest time a request waits for another's fetch of the same answer before it goes
            to the upstream by itself. Default 10.
        fill_lease_s: Seconds after which a fetch whose worker died is taken over. Default 3.
        mark_lease_s: Seconds after which the open writes of a worker that died stop holding back their
            account's answers. Default 10.
        lease_s: Seconds that a worker may serve from its own memory after it last heard the invalidation
            feed. It bounds how long one hanging worker can delay a write. Default 2.
        heartbeat_s: Seconds between two tests of the feed. Default 0.5; at most a quarter of `lease_s`.
        death_after_s: Seconds without a heartbeat after which a worker counts as dead, and everything
            remembered before is dropped, because it may have written while it could not say so.
            Default 5.
        store_is_new: Whether this very process has just started the store, so that no other can know
            anything from before; spares the first writes a wait of `lease_s`. Default false.
        cache_jsonl_walks: Whether JSON Lines answers that walk a whole collection are remembered, up to
            `max_entry_bytes`. Off by default: they are long and rarely asked for twice.
        compress: Whether zstd and gzip variants are prepared, in the background, as clients ask for them.
        compress_min_bytes: Smallest body worth compressing. Default 1 KiB.
        shared_platform: Whether `platform/*` answers are kept once for all accounts after several accounts
            were seen to get the same. Off by default.
        shared_quorum: Accounts that must agree before one copy serves them all. Default 3.
        shared_sample: Part of the requests, from 0 to 1, that is checked against the upstream even so.
            Default 0.02.
        encryption_key: 32 bytes; encrypts entries in the store with AES-256-GCM. None keeps them in clear.
            All gateways on one store need the same key.
    """

    enabled: bool = True
    consistency: Consistency = Consistency.STRICT
    config_ttl_s: float = 60.0
    volatile_ttl_s: float = 2.0
    global_ttl_s: float = 300.0
    type_ttl_s: Mapping[str, float] = field(default_factory=lambda: _NONE)
    negative_ttl_s: float = 1.0
    obey_upstream_max_age: bool = True
    stale_while_revalidate_s: float = 0.0
    stale_if_error_s: float = 0.0
    max_entry_bytes: int = 1 << 20
    l1_max_bytes: int = 64 << 20
    l2_account_max_bytes: int = 64 << 20
    account_share: float = 0.25
    collapse_wait_s: float = 10.0
    fill_lease_s: float = 3.0
    mark_lease_s: float = 10.0
    lease_s: float = 2.0
    heartbeat_s: float = 0.5
    death_after_s: float = 5.0
    store_is_new: bool = False
    cache_jsonl_walks: bool = False
    compress: bool = True
    compress_min_bytes: int = 1024
    shared_platform: bool = False
    shared_quorum: int = 3
    shared_sample: float = 0.02
    encryption_key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what would make the promises above untrue.

        Raises:
            ValueError: A key of the wrong length, or times that contradict one another.
        """
        if self.encryption_key is not None and len(self.encryption_key) != 32:
            raise ValueError("the cache's encryption key must have 32 bytes")
        if self.heartbeat_s * 4 > self.lease_s:
            raise ValueError("the cache's heartbeat must be at most a quarter of its lease")
        if self.death_after_s < self.lease_s:
            raise ValueError("a worker cannot be taken for dead while its lease lasts")
        if not 0 < self.account_share <= 1:
            raise ValueError("the share of one account is more than 0 and at most 1")

    def ttl_s(self, resource: str, lifetime: Lifetime) -> float:
        """Seconds that an answer of `resource` may live; 0 for never."""
        if lifetime is Lifetime.NEVER:
            return 0.0
        own = self.type_ttl_s.get(resource)
        if own is not None:
            return own
        return {
            Lifetime.CONFIG: self.config_ttl_s,
            Lifetime.VOLATILE: self.volatile_ttl_s,
            Lifetime.GLOBAL: self.global_ttl_s,
        }[lifetime]

    @property
    def keep_beyond_s(self) -> float:
        """Seconds past its lifetime that an entry may still be of use."""
        return max(self.stale_while_revalidate_s, self.stale_if_error_s)

"""Names: of an answer in memory and in the store, of an account's epochs and marks.

A key is a digest over length-prefixed parts, so that no path, query or header value can be crafted to spell
the border between two of them. Nothing here reads or writes anything.

    cbkgw:{account}:cache:epochs     hash: birth, server, generation, and one counter per type
    cbkgw:{account}:cache:marks      sorted set: writes under way, by the time their lease ends
    cbkgw:{account}:cache:index      sorted set: digests of the entries, by the time they vanish
    cbkgw:{account}:cache:sizes      hash: per digest its size and what it is; `#bytes` is the sum
    cbkgw:{account}:cache:e:<digest> one entry
    cbkgw:{account}:cache:l:<digest> the lease of whoever fetches that entry now
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from cbk_gateway.operation import ALL_TYPES, Operation, canonical_query
from cbk_gateway.operation.kinds import ANY_WRITE

JSON: Final = "application/json"
JSONL: Final = "application/jsonl"
_SAFE: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.@:"


@dataclass(frozen=True, slots=True)
class CacheKeyParts:
    """What an answer depends on beside its path and query.

    Attributes:
        account: The upstream account.
        credential_class: What kind of credential asks: keys, OAuth tokens and JWTs may see different things.
        run_as: The child account acted as, or None.
        accept: First media type of `Accept`, in lower case; "" and "*/*" mean JSON.
        timezone: Value of `X-Timezone`, "" for none.
    """

    account: str
    credential_class: str
    run_as: str | None
    accept: str
    timezone: str


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """Names of what one account has in the store; all under one hash tag, for Cluster."""

    epochs: str
    marks: str
    index: str
    sizes: str
    prefix: str

    def entry(self, digest: str) -> str:
        """Name of an entry."""
        return f"{self.prefix}e:{digest}"

    def lease(self, digest: str) -> str:
        """Name of the lease on fetching it."""
        return f"{self.prefix}l:{digest}"


def account_keys(account: str) -> AccountKeys:
    """Names for an account. Injective: what a hash tag cannot hold is percent-encoded."""
    prefix = f"cbkgw:{{{quote(account, safe=_SAFE, errors='surrogatepass')}}}:cache:"
    return AccountKeys(
        epochs=prefix + "epochs",
        marks=prefix + "marks",
        index=prefix + "index",
        sizes=prefix + "sizes",
        prefix=prefix,
    )


def representation(parts: CacheKeyParts) -> str:
    """The media type that an answer will have by the first type of `Accept`."""
    return JSON if parts.accept in {"", "*/*"} else parts.accept


def digest(operation: Operation, parts: CacheKeyParts, accept: str) -> str:
    """Name of an answer: 32 hex digits over everything it depends on but the epochs."""
    run_as = "-" if parts.run_as is None else "+" + parts.run_as
    query = canonical_query(operation.query)
    state = hashlib.sha256()
    for part in (
        parts.account,
        parts.credential_class,
        run_as,
        accept,
        parts.timezone,
        operation.path,
        query,
    ):
        # Lone surrogates stand for bytes that were no UTF-8; passing them on keeps different texts apart.
        octets = part.encode(errors="surrogatepass")
        state.update(b"%d:" % len(octets))
        state.update(octets)
    return state.hexdigest()[:32]


def epoch_types(operation: Operation) -> tuple[str, ...]:
    """Types whose epochs an answer depends on, in one order. The account's own epoch is always read."""
    return tuple(sorted(operation.route.reads))


def depends_on(reads: tuple[str, ...], changed: frozenset[str]) -> bool:
    """Whether a write of `changed` types makes old what `reads` these types."""
    return ALL_TYPES in changed or ANY_WRITE in reads or any(one in changed for one in reads)

"""What the cache says to the pipeline: values only.

`Fill`, which can do things, is in `fill.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cbk_gateway.cache.fill import Fill

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer from memory, ready to send.

    Attributes:
        status: HTTP status; 304 when the client has the body already.
        headers: Content-Type, ETag, Vary, Age, and Content-Encoding of a compressed variant. No
            Content-Length and no Cache-Status.
        body: The bytes to send; empty with 304.
        cache_status: The whole value of the `Cache-Status` header (RFC 9211).
        age_s: Seconds since the upstream made it.
        refresh: With stale-while-revalidate only: a fetch that the receiver must carry out in the
            background and give to `refresh.store`, or end by `refresh.abandon`.
    """

    status: int
    headers: Headers
    body: bytes
    cache_status: str
    age_s: int
    refresh: Fill | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Pass:
    """Nothing remembered and nothing to remember: forward, and do not come back.

    Attributes:
        cache_status: The whole value of the `Cache-Status` header for the answer.
        reason: One bounded word, for metrics.
    """

    cache_status: str
    reason: str


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What to send after a fetch was offered to the cache.

    Attributes:
        status: The upstream's status, or 304 when the client has this very body already.
        headers: The header fields to send instead of the upstream's: of an answer that may be remembered,
            with our ETag and Vary; of any other, as they came.
        body: The bytes to send: the upstream's, or another representation of them, or none with 304.
        cache_status: The whole value of the `Cache-Status` header.
        is_stored: Whether the next request may find it.
    """

    status: int
    headers: Headers
    body: bytes
    cache_status: str
    is_stored: bool

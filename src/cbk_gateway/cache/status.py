"""The `Cache-Status` response header (RFC 9211): one member, this cache's.

Pure text. Which words apply is decided by whoever answers.
"""

from __future__ import annotations

from typing import Final

CACHE_NAME: Final = "cbk-gateway"
IF_ERROR: Final = "stale-if-error"
REVALIDATING: Final = "stale-while-revalidate"


def hit(ttl_s: int, *, detail: str | None = None, is_stale: bool = False) -> str:
    """An answer from memory. `ttl` is negative for a stale one (RFC 9211 section 2.4)."""
    text = f"{CACHE_NAME}; hit; ttl={ttl_s}"
    if is_stale and detail is None:
        detail = "stale"
    return f"{text}; detail={detail}" if detail else text


def forwarded(
    reason: str,
    *,
    status: int | None = None,
    ttl_s: int | None = None,
    is_stored: bool = False,
    is_collapsed: bool = False,
    detail: str | None = None,
) -> str:
    """An answer from the upstream.

    Args:
        reason: A `fwd` word of RFC 9211 section 2.2: bypass, method, uri-miss, miss, stale.
        status: Status of the upstream's answer.
        ttl_s: Seconds that it will live here.
        is_stored: Whether it was kept.
        is_collapsed: Whether the answer came by another request's fetch (section 2.6).
        detail: A token saying more; a bounded set.
    """
    parts = [CACHE_NAME, f"fwd={reason}"]
    if status is not None:
        parts.append(f"fwd-status={status}")
    if ttl_s is not None:
        parts.append(f"ttl={ttl_s}")
    if is_stored:
        parts.append("stored")
    if is_collapsed:
        parts.append("collapsed")
    if detail is not None:
        parts.append(f"detail={detail}")
    return "; ".join(parts)

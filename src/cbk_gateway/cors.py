"""Cross-origin rules (the Fetch standard, section 3.2): preflights answered here, grants on answers.

The upstream's own CORS headers lack the run-as and timezone headers its SDKs send, so they are replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

ALLOWED_HEADERS: Final = (
    "Accept, Authorization, Cache-Control, Content-Length, Content-Type, Idempotency-Key, If-None-Match, "
    "Range, Traceparent, Tracestate, X-CBK-Cache, X-Request-Id, X-Requested-With, X-RunAs-Child-User-Email, "
    "X-RunAs-User-ID, X-RunAs-UserId, X-Timezone"
)
EXPOSED_HEADERS: Final = (
    "Age, Cache-Status, Content-Disposition, ETag, Idempotent-Replayed, RateLimit, RateLimit-Policy, "
    "Retry-After, Server-Timing, X-Quota-Warning, X-RateLimit-Limit, X-RateLimit-Remaining, "
    "X-RateLimit-Reset, X-Request-Id"
)
PREFLIGHT_HEADERS: Final = {
    # No tenant is known before the real request, whose answer applies the tenant's own origins.
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": ALLOWED_HEADERS,
    "Access-Control-Max-Age": "600",
    "Allow": "GET, POST, OPTIONS, HEAD",
}
_ANYBODY: Final = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", EXPOSED_HEADERS),
)


def granted(allowed_origins: Sequence[str], origin: str | None) -> tuple[tuple[str, str], ...]:
    """The CORS headers of an answer to a request from `origin` (None: not from a browser).

    Credentials are never allowed: the API authenticates by header only.
    """
    if "*" in allowed_origins:
        return _ANYBODY
    if origin is not None and origin in allowed_origins:
        return (
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", EXPOSED_HEADERS),
            ("Vary", "Origin"),
        )
    return (("Vary", "Origin"),)

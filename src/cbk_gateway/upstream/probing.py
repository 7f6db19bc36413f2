"""The gateway's own requests to the upstream: small GETs and HEADs that change nothing.

For readiness, and for breakers that want to know whether to close. Never a client's request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from cbk_gateway.upstream.options import Timeouts
from cbk_gateway.upstream.outcomes import UpstreamFault
from cbk_gateway.upstream.pool import Pool

# Answers HEAD without credentials on every deployment.
PUBLIC_PATH: Final = "/spec"
# Needs a credential, is cached upstream for a minute, and counts against no rate there.
ACCOUNT_PATH: Final = "/usage/fetch"


async def ask(
    pool: Pool,
    method: str,
    target: str,
    fields: Iterable[tuple[str, str]],
    patience_s: float,
) -> int | None:
    """Make one request over a connection of its own; returns the status, None when there was no answer."""
    loop = asyncio.get_running_loop()
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    request = "\r\n".join((*lines, "Connection: close", "", "")).encode()
    until = loop.time() + patience_s
    try:
        connection, _ = await pool.open(until)
        waiter = connection.begin(
            request, method, Timeouts(patience_s, patience_s, patience_s), until, whole=True
        )
        try:
            head = await waiter
        finally:
            connection.leave(waiter)
    except UpstreamFault:
        return None
    return head.status

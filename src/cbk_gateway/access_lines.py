"""The access log's line of a read that was answered from the bytes of its request.

Whether there is to be a line is the log's own decision (`AccessLog.wants`), asked for by whoever answered.
"""

from __future__ import annotations

from cbk_gateway.addresses import address_of
from cbk_gateway.listener import GatewayProtocol
from cbk_gateway.operation import Operation
from cbk_gateway.parts import Parts
from cbk_gateway.telemetry import AccessEntry


def write(  # noqa: PLR0917 - all of it is of one answer
    parts: Parts,
    connection: GatewayProtocol,
    hops: tuple[str, ...],
    operation: Operation,
    tenant_id: str,
    request_id: str,
    status: int,
    total_s: float,
    sent_bytes: int,
    *,
    cache: str = "none",
    reason: str | None = None,
    upstream_s: float | None = None,
) -> None:
    """Write the line.

    Args:
        parts: Where the log is; nothing is written when it is off.
        connection: Whose request it was.
        hops: The values of its `X-Forwarded-For` fields.
        operation: What it asked.
        tenant_id: Who asked.
        request_id: Its id.
        status: The answer's status; 499 when the client left before it.
        total_s: Seconds it took.
        sent_bytes: Size of the answer's body.
        cache: How the cache dealt with it: the metrics' word.
        reason: Why it was refused, if it was.
        upstream_s: Seconds spent waiting for the upstream, None when it was not asked.
    """
    if parts.access is None:
        return
    parts.access.write(
        AccessEntry(
            request_id=request_id,
            method="GET",
            path=operation.route.template,
            status=status,
            total_s=total_s,
            upstream_s=upstream_s,
            tenant=tenant_id,
            cache=cache,
            client=address_of(connection.peername, hops, parts.trusted_proxies),
            reason=reason,
            sent_bytes=sent_bytes,
        )
    )

"""One call's bytes, ready to be sent over a connection as often as the retry rule allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from cbk_gateway.operation import Operation
from cbk_gateway.upstream.connection import Connection
from cbk_gateway.upstream.framing import request_head
from cbk_gateway.upstream.options import Timeouts
from cbk_gateway.upstream.phase import Head
from cbk_gateway.upstream.sending import SLICE_BYTES, send_body, slices


@dataclass(slots=True)
class Call:
    """One request for the upstream.

    Attributes:
        operation: What is asked; gives method, path, query, effect and cost class.
        headers: Final fields, as `outgoing_headers` makes them.
        body: Whole, or as pieces that can be had once, or None.
        body_length: Length of a body that comes in pieces, None when it is not known.
        account: Upstream account it acts on: the unit of breaking and slowing.
        tenant: Who waits in line for it; the account when empty.
    """

    operation: Operation
    headers: Sequence[tuple[str, str]]
    body: bytes | AsyncIterator[bytes] | None = None
    body_length: int | None = None
    account: str = ""
    tenant: str = ""


class Exchange:
    """A call in the form it goes over the wire.

    Args:
        call: The call.
        path_prefix: What stands before the operation's path.
        timeouts: Of its cost class.
        total_at: Loop time at which it fails in any case.

    Attributes:
        is_replayable: Whether its body can still be sent from the start.

    Raises:
        ValueError: A header or path would break the request's head.
    """

    __slots__ = ("_call", "_first", "_is_whole", "_length", "_timeouts", "_total_at", "is_replayable")

    def __init__(self, call: Call, path_prefix: str, timeouts: Timeouts, total_at: float) -> None:
        body = call.body
        self._call = call
        self._timeouts = timeouts
        self._total_at = total_at
        self._length = len(body) if isinstance(body, bytes) else call.body_length
        self._first = request_head(
            call.operation, path_prefix, call.headers, self._length, has_body=body is not None
        )
        self._is_whole = body is None or (isinstance(body, bytes) and len(body) <= SLICE_BYTES)
        if self._is_whole and isinstance(body, bytes):
            # One write for head and body: one packet, and no moment at which only a part has left.
            self._first += body
        self.is_replayable = True

    async def run(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> Head:
        """Send it over `connection` and wait for the final head of the answer.

        Raises:
            UpstreamFault: There is none; the connection is closed.
        """
        waiter = connection.begin(
            self._first,
            self._call.operation.method,
            self._timeouts,
            self._total_at,
            whole=self._is_whole,
        )
        if not self._is_whole:
            connection.pumped_by(loop.create_task(send_body(connection, self._pieces(), self._length)))
        try:
            return await waiter
        except asyncio.CancelledError:
            connection.leave(waiter)
            raise

    def _pieces(self) -> AsyncIterator[bytes]:
        body = self._call.body
        if isinstance(body, bytes):
            return slices(body)
        if body is None:
            raise RuntimeError("a request without a body has no pieces")
        self.is_replayable = False
        return body

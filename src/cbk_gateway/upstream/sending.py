"""Sending a request body piece by piece, no faster than the upstream takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from cbk_gateway.upstream.connection import Connection
from cbk_gateway.upstream.framing import LAST_CHUNK, chunk
from cbk_gateway.upstream.outcomes import Cause, Outcome, UpstreamFault

SLICE_BYTES: Final = 65_536


async def send_body(connection: Connection, body: AsyncIterator[bytes], length: int | None) -> None:
    """Send `body` over a connection whose exchange has begun, and end the request.

    Whatever breaks the body breaks the exchange: the upstream must not take a part for the whole, so
    the connection is closed and who waits for the answer gets the reason as `UpstreamFault.origin`.

    Args:
        connection: Its exchange was begun with `whole=False`.
        body: Pieces of any size; closed at the end if it is a generator.
        length: Declared length, which must be met exactly; None sends chunks.
    """
    try:
        await _send_pieces(connection, body, length)
        connection.end_request()
    except asyncio.CancelledError:
        raise
    except Exception as exc:  # noqa: BLE001 - a body may fail in any way, and each is handed on whole
        connection.fail(Cause.REQUEST_BODY, str(exc), origin=exc)
    finally:
        if isinstance(body, AsyncGenerator):
            await body.aclose()


async def _send_pieces(connection: Connection, body: AsyncIterator[bytes], length: int | None) -> None:
    sent = 0
    async for piece in body:
        if not piece:
            continue
        sent += len(piece)
        if length is not None and sent > length:
            raise UpstreamFault(Cause.REQUEST_BODY, Outcome.UNKNOWN, "longer than declared")
        await connection.write(chunk(piece) if length is None else piece)
    if length is None:
        await connection.write(LAST_CHUNK)
    elif sent != length:
        raise UpstreamFault(Cause.REQUEST_BODY, Outcome.UNKNOWN, "shorter than declared")


async def slices(body: bytes) -> AsyncGenerator[bytes, None]:
    """A large body in memory, in pieces, so that a slow upstream is noticed between them."""
    for start in range(0, len(body), SLICE_BYTES):
        yield body[start : start + SLICE_BYTES]

"""Accepting connections that begin with something else than HTTP: a PROXY header, a TLS handshake, or both.

Each connection gets the TLS of the moment it came in, and so renewed certificates need no new port. Plain
ports without balancers are left to the event loop, which accepts faster than this.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from cbk_gateway.addresses import Network, is_within
from cbk_gateway.proxy_protocol import MAX_BYTES, Address, ProxyHeaderInvalid, parse
from cbk_gateway.tls import ServingTls

MOST_BEGINNING: Final = 4096
"""Connections that may be in their first steps at a time; more are closed."""
_SHORT_OF_FILES_S: Final = 0.5

_log = structlog.get_logger(__name__)


class Acceptor:
    """Accepts on one socket.

    Args:
        listening: A bound socket; it is this object's from now on.
        connect: Makes the protocol of a connection, given who a balancer says opened it.
        refused: Told, in a word, why a connection was closed before a protocol spoke on it.
        tls: TLS of the port, if it has one.
        balancers: Networks whose connections begin with a PROXY header, and no others do.
        patience_s: Seconds for each of the first steps.
    """

    def __init__(
        self,
        listening: socket.socket,
        connect: Callable[[Address | None], asyncio.Protocol],
        refused: Callable[[str], None],
        *,
        tls: ServingTls | None = None,
        balancers: Sequence[Network] = (),
        patience_s: float = 15.0,
    ) -> None:
        self._socket = listening
        self._connect = connect
        self._refused = refused
        self._tls = tls
        self._balancers = balancers
        self._patience_s = patience_s
        self._accepting: asyncio.Task[None] | None = None
        self._beginning: set[asyncio.Task[None]] = set()

    def start(self, backlog: int) -> None:
        """Accept from now on."""
        self._socket.setblocking(False)
        self._socket.listen(backlog)
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    async def stop(self) -> None:
        """Accept no more and close the socket. Connections that have begun become what they were to be."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait((self._accepting,))
        self._socket.close()
        if self._beginning:
            _, late = await asyncio.wait(set(self._beginning), timeout=1.0)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self._socket)
            except ConnectionError:
                # It was gone before it was taken.
                continue
            except OSError as fault:
                _log.error("accept_failed", reason=fault.strerror or str(fault))
                await asyncio.sleep(_SHORT_OF_FILES_S)
                continue
            if len(self._beginning) >= MOST_BEGINNING:
                self._refused("connections")
                connection.close()
                continue
            task = loop.create_task(self._begin(connection, str(peer[0]) if peer else ""))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket, peer: str) -> None:
        loop, source = asyncio.get_running_loop(), None
        try:
            if is_within(peer, self._balancers):
                async with asyncio.timeout(self._patience_s):
                    source = await _announced(connection)
        except (OSError, TimeoutError, ProxyHeaderInvalid):
            self._refused("proxy_header")
            connection.close()
            return
        except BaseException:
            connection.close()
            raise
        tls = self._tls.context if self._tls is not None else None
        patience_s = self._patience_s if tls is not None else None
        try:
            await loop.connect_accepted_socket(
                lambda: self._connect(source), connection, ssl=tls, ssl_handshake_timeout=patience_s
            )
        except OSError:
            # A scanner, a client that trusts others, or one without the certificate it needs.
            self._refused("tls_handshake")


async def _announced(connection: socket.socket) -> Address | None:
    """Take the PROXY header off a connection, and not a byte more: what follows may be a TLS handshake.

    Raises:
        ProxyHeaderInvalid: It does not begin with one, or ends within it.
        OSError: The connection broke.
    """
    taken = b""
    while True:
        await _readable(connection)
        try:
            seen = connection.recv(MAX_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        if not seen:
            raise ProxyHeaderInvalid("closed within the header")
        header = parse(taken + seen)
        if header is not None:
            connection.recv(header.size - len(taken))
            return header.source
        # Without an end in sight all of it belongs to the header.
        taken += connection.recv(len(seen))


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)

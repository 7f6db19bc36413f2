"""From the upstream's name to a connection: resolving, choosing an address, TCP, TLS, pins.

Every address is tried; one that could not be reached goes to the end of the line for a while. A second
address is tried beside a slow first one (RFC 8305 section 5). Nothing here knows of requests: whatever
fails here failed before a byte was sent.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from cbk_gateway.upstream.connection import Connection
from cbk_gateway.upstream.options import Origin, UpstreamOptions
from cbk_gateway.upstream.outcomes import Cause, Outcome, UpstreamFault
from cbk_gateway.upstream.trust import check_pins

STAGGER_S: Final = 0.25
Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]


class AddressBook:
    """The upstream's addresses: resolved, remembered, healthy ones first.

    When a refresh fails the last known addresses stay in use: a name server's outage is not the upstream's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: Origin, options: UpstreamOptions) -> None:
        self._loop = loop
        self._names = [_split_address(one, origin.port) for one in options.addresses] or [
            (origin.host, origin.port)
        ]
        self._ttl_s = options.dns_ttl_s
        self._rest_s = options.address_rest_s
        self._known: list[Address] = []
        self._fresh_until = 0.0
        self._resting_until: dict[Address, float] = {}
        self._turn = 0
        self._refresh: asyncio.Task[None] | None = None

    async def candidates(self) -> list[Address]:
        """All addresses in the order to try them; healthy ones take turns.

        Raises:
            UpstreamFault: There is none.
        """
        now = self._loop.time()
        if now >= self._fresh_until:
            if self._refresh is None or self._refresh.done():
                self._refresh = self._loop.create_task(self._resolve())
            if not self._known:
                # Shared by all who wait; one of them being cancelled must not end it.
                await asyncio.shield(self._refresh)
        if not self._known:
            raise UpstreamFault(Cause.RESOLVE, Outcome.NOT_SENT, "the name has no address")
        resting = self._resting_until
        healthy = [one for one in self._known if resting.get(one, 0.0) <= now]
        self._turn += 1
        start = self._turn % len(healthy) if healthy else 0
        rest = sorted((one for one in self._known if one not in healthy), key=lambda one: resting[one])
        return healthy[start:] + healthy[:start] + rest

    def failed(self, address: Address) -> None:
        """The address could not be reached."""
        self._resting_until[address] = self._loop.time() + self._rest_s

    def succeeded(self, address: Address) -> None:
        """The address was reached."""
        self._resting_until.pop(address, None)

    async def close(self) -> None:
        """Stop a refresh that is under way."""
        if self._refresh is not None:
            self._refresh.cancel()
            await asyncio.gather(self._refresh, return_exceptions=True)

    async def _resolve(self) -> None:
        found: list[Address] = []
        for host, port in self._names:
            try:
                rows = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError:
                continue
            found += [(row[0], row[4]) for row in rows]  # type: ignore[misc] # only IP families are asked for
        if found:
            self._known = list(dict.fromkeys(found))
            self._resting_until = {a: t for a, t in self._resting_until.items() if a in self._known}
        # After a failure ask again soon, but not for each request.
        self._fresh_until = self._loop.time() + (self._ttl_s if found else min(1.0, self._ttl_s))


class Dialer:
    """Makes connections.

    Args:
        loop: The running loop.
        origin: Where to.
        options: See `UpstreamOptions`.
        context: TLS context, None for plain HTTP.
        make: Builds the protocol for a connected socket.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        origin: Origin,
        options: UpstreamOptions,
        context: ssl.SSLContext | None,
        make: Callable[[socket.socket], Connection],
    ) -> None:
        self._loop = loop
        self._origin = origin
        self._options = options
        self._context = context
        self._make = make
        self.book = AddressBook(loop, origin, options)

    async def dial(self) -> Connection:
        """Open one connection to the first address that takes it. The caller bounds the time.

        Raises:
            UpstreamFault: None does; the outcome is `not_sent`.
        """
        waiting = await self.book.candidates()
        attempts: dict[asyncio.Task[Connection], Address] = {}
        last: UpstreamFault | None = None
        try:
            while waiting or attempts:
                if waiting:
                    address = waiting.pop(0)
                    attempts[self._loop.create_task(self._connect(address))] = address
                done, _ = await asyncio.wait(
                    attempts,
                    timeout=STAGGER_S if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    address = attempts[task]
                    fault = task.exception()
                    if fault is None:
                        del attempts[task]
                        self.book.succeeded(address)
                        return task.result()
                    del attempts[task]
                    self.book.failed(address)
                    if not isinstance(fault, UpstreamFault):
                        raise fault
                    last = fault
        finally:
            await _discard(attempts)
        raise last or UpstreamFault(Cause.CONNECT, Outcome.NOT_SENT, "no address")

    async def _connect(self, address: Address) -> Connection:
        family, where = address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await self._loop.sock_connect(sock, where)
        except OSError as exc:
            sock.close()
            raise UpstreamFault(Cause.CONNECT, Outcome.NOT_SENT, exc.strerror or "no answer") from exc
        except BaseException:
            sock.close()
            raise
        return await self._talk(sock)

    async def _talk(self, sock: socket.socket) -> Connection:
        """Put the protocol, and TLS if it is spoken, on a connected socket."""
        connection = self._make(sock)
        try:
            if self._context is None:
                await self._loop.create_connection(lambda: connection, sock=sock)
                return connection
            transport, _ = await self._loop.create_connection(
                lambda: connection,
                sock=sock,
                ssl=self._context,
                server_hostname=self._origin.host,
                ssl_handshake_timeout=self._options.tls_timeout_s,
                ssl_shutdown_timeout=1.0,
            )
        except (OSError, ssl.CertificateError) as exc:
            # TLS libraries report refused certificates, alerts and broken handshakes all as OSError.
            sock.close()
            detail = getattr(exc, "verify_message", None) or getattr(exc, "reason", None) or str(exc)
            raise UpstreamFault(Cause.TLS, Outcome.NOT_SENT, str(detail)) from exc
        except BaseException:
            sock.close()
            raise
        try:
            tls = transport.get_extra_info("ssl_object")
            check_pins(tls.getpeercert(binary_form=True), self._options.pins)
        except BaseException:
            connection.abort()
            raise
        return connection


async def _discard(attempts: dict[asyncio.Task[Connection], Address]) -> None:
    """Give up the attempts that lost the race, and close those which connected after all."""
    for task in attempts:
        task.cancel()
    if attempts:
        await asyncio.wait(attempts)
    for task in attempts:
        if not task.cancelled() and task.exception() is None:
            task.result().abort()


def _split_address(text: str, default_port: int) -> tuple[str, int]:
    """`host`, `host:port`, `[v6]:port` or a bare v6 address."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, int(port.removeprefix(":") or default_port)
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, int(port)
    return text, default_port

"""Ports: sockets bound with clear errors, runners opened on them, and closed without losing anyone.

Which protocol speaks on a port is `listener.py` and `admin`; what it serves is the pipeline's.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from aiohttp import web

from cbk_gateway.acceptor import Acceptor
from cbk_gateway.addresses import Network
from cbk_gateway.data_server import GatewayServer
from cbk_gateway.listener import GatewayProtocol
from cbk_gateway.proxy_protocol import Address
from cbk_gateway.settings.gateway import AdminSettings, ListenSettings
from cbk_gateway.tls import ServingTls, TlsFiles

BACKLOG = 2048
_LOOK_EVERY_S: Final = 0.02

Connect = Callable[[Address | None], asyncio.Protocol]


class PortTaken(OSError):  # noqa: N818 - named like the other packages' faults
    """A port that something else listens on. The message names the setting to change."""


def bound_socket(host: str, port: int, setting: str, *, shared: bool = False) -> socket.socket:
    """A bound TCP socket.

    Args:
        host: Address to bind.
        port: Port, 0 for any free one.
        setting: Name of the setting, for the error.
        shared: Whether several workers bind the same port (SO_REUSEPORT).

    Raises:
        PortTaken: Something else listens there.
        OSError: The address is not of this machine, or the port is reserved.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
        made.setblocking(False)
    except OSError as fault:
        made.close()
        if fault.errno == errno.EADDRINUSE:
            raise PortTaken(
                errno.EADDRINUSE, f"port {port} on {host} is taken; choose another with {setting}"
            ) from None
        raise OSError(fault.errno, f"cannot listen on {host}:{port} ({setting}): {fault.strerror}") from None
    return made


@dataclass(frozen=True, slots=True)
class PortOptions:
    """What comes before HTTP on a port.

    Attributes:
        tls: Its TLS, if it has any.
        balancers: Networks whose connections begin with a PROXY header.
        patience_s: Seconds for that header, and for a TLS handshake.
    """

    tls: TlsFiles | None = None
    balancers: tuple[Network, ...] = ()
    patience_s: float = 15.0


class Port:
    """One listening port with its runner.

    Args:
        runner: What serves on it.
        listening: The bound socket that accepts from the start.
        options: What comes before HTTP.
    """

    def __init__(
        self,
        runner: web.ServerRunner | web.AppRunner,
        listening: socket.socket,
        options: PortOptions | None = None,
    ) -> None:
        self._runner = runner
        self._socket = listening
        self._options = options or PortOptions()
        self._tls: ServingTls | None = None
        self._watching: asyncio.Task[None] | None = None
        self._sites: dict[socket.socket, web.SockSite | Acceptor] = {}
        self._is_open = False
        self._turn = asyncio.Lock()

    @property
    def url(self) -> str:
        """Base URL of the port, without a trailing slash."""
        host, port = self._socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'http' if self._options.tls is None else 'https'}://{shown}:{port}"

    async def open(self) -> str:
        """Start accepting; returns the URL.

        Raises:
            OSError: A certificate cannot be read.
        """
        if self._options.tls is not None:
            self._tls = ServingTls(self._options.tls)
            self._watching = asyncio.get_running_loop().create_task(self._tls.watch())
        await self._runner.setup()
        self._is_open = True
        url = self.url
        await self.accept_on((self._socket,))
        return url

    async def renew(self) -> None:
        """Read the TLS files again, for connections from now on.

        Raises:
            OSError: One cannot be used; everything stays as it was.
        """
        if self._tls is not None:
            await asyncio.to_thread(self._tls.renew)

    async def accept_on(self, sockets: Iterable[socket.socket]) -> None:
        """Accept on these sockets from now on, and on no others. A socket left out is closed here.

        Whoever else holds a duplicate of a socket may accept on it: connections wait in its queue meanwhile.
        """
        async with self._turn:
            wanted = tuple(sockets) if self._is_open else ()
            for one in wanted:
                if one not in self._sites:
                    self._sites[one] = await self._site(one)
            for one in [held for held in self._sites if held not in wanted]:
                await self._sites.pop(one).stop()

    async def _site(self, listening: socket.socket) -> web.SockSite | Acceptor:
        if self._tls is None and not self._options.balancers:
            site = web.SockSite(self._runner, listening, backlog=BACKLOG)
            await site.start()
            return site
        server = self._runner.server
        if isinstance(server, GatewayServer):
            connect: Connect = server.connection_from
            refused: Callable[[str], None] = server.connection_refused
        else:
            connect, refused = _plainly(self._runner), _unheard
        acceptor = Acceptor(
            listening,
            connect,
            refused,
            tls=self._tls,
            balancers=self._options.balancers,
            patience_s=self._options.patience_s,
        )
        acceptor.start(BACKLOG)
        return acceptor

    async def close(self, drain_s: float, idle_grace_s: float = 0.0) -> None:
        """Stop accepting at once; let open requests and then connections end; then cut them off.

        Args:
            drain_s: Seconds that requests get to end, the grace included.
            idle_grace_s: Seconds in which idle connections are kept, so that a request that is on its way
                while the port closes is answered. Every answer tells its client to connect anew.
        """
        if not self._is_open:
            self._socket.close()
            return
        self._is_open = False
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        await self.accept_on(())
        server = self._runner.server
        if server is not None:
            _answer_last(server)
            await _until_unconnected(server, min(idle_grace_s, drain_s))
            server.pre_shutdown()
            await server.shutdown(max(drain_s - idle_grace_s, 0.1))
        # Transports that were closed just now report it in the next turns of the loop.
        await asyncio.sleep(0)
        await self._runner.cleanup()


class UnixPort:
    """A port on a unix socket, for processes of this user on this machine.

    Args:
        runner: What serves on it.
        path: Where the socket appears; its folder decides who may enter.
    """

    def __init__(self, runner: web.AppRunner, path: Path) -> None:
        self._runner = runner
        self._path = path

    async def open(self) -> str:
        """Start accepting; returns a URL that shows the path."""
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._path)).start()
        return f"unix://{self._path}"

    async def renew(self) -> None:
        """There is no TLS to renew."""

    async def close(self, drain_s: float, idle_grace_s: float = 0.0) -> None:
        """Stop accepting, and give open requests `drain_s` seconds to end."""
        del idle_grace_s
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()
            await self._runner.server.shutdown(drain_s)
        await asyncio.sleep(0)
        await self._runner.cleanup()
        self._path.unlink(missing_ok=True)


class Doors(Protocol):
    """Where a gateway listens."""

    def data(self, runner: web.ServerRunner, settings: ListenSettings, options: PortOptions) -> Port:
        """The data port.

        Raises:
            OSError: It cannot be bound.
        """
        ...

    def admin(
        self, application: web.Application, settings: AdminSettings, options: PortOptions
    ) -> Port | UnixPort:
        """The operators' port.

        Raises:
            OSError: It cannot be bound.
        """
        ...


class OwnDoors:
    """The doors of a gateway that stands alone: it binds what its settings name."""

    def data(self, runner: web.ServerRunner, settings: ListenSettings, options: PortOptions) -> Port:
        """The data port."""
        return Port(runner, bound_socket(settings.host, settings.port, "listen.port"), options)

    def admin(
        self, application: web.Application, settings: AdminSettings, options: PortOptions
    ) -> Port | UnixPort:
        """The operators' port."""
        listening = bound_socket(settings.host, settings.port, "admin.port")
        return Port(web.AppRunner(application, access_log=None), listening, options)


def _plainly(runner: web.ServerRunner | web.AppRunner) -> Connect:
    def connect(_: Address | None) -> asyncio.Protocol:
        assert runner.server is not None  # noqa: S101 - the port is open
        return runner.server()

    return connect


def _unheard(_: str) -> None:
    """Operators' connections that come to nothing are not counted."""


def _answer_last(server: web.Server) -> None:
    """Let every answer from now on say `Connection: close` (RFC 9112 section 9.6)."""
    handler = server.request_handler

    async def answer_last(request: web.BaseRequest) -> web.StreamResponse:
        _say_close(request)
        return await handler(request)

    server.request_handler = answer_last
    for connection in server.connections:
        # Each connection keeps the handler it began with, and the library has no other door for this.
        connection._request_handler = answer_last  # noqa: SLF001
        if isinstance(connection, GatewayProtocol):
            connection.take_no_shortcut()
        if connection._current_request is not None:  # noqa: SLF001
            _say_close(connection._current_request)  # noqa: SLF001


def _say_close(request: web.BaseRequest) -> None:
    request._message = request._message._replace(should_close=True)  # noqa: SLF001 - it is read for each answer


async def _until_unconnected(server: web.Server, patience_s: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    while server.connections and loop.time() < deadline:  # noqa: ASYNC110 - the library tells nobody
        await asyncio.sleep(_LOOK_EVERY_S)

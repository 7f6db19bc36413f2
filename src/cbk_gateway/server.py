"""Ports: sockets bound with clear errors, runners opened on them, and closed without losing anyone.

Which protocol speaks on a port is `listener.py` and `admin`; what it serves is the pipeline's.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from aiohttp import web

from cbk_gateway.settings.gateway import AdminSettings, ListenSettings, TlsSettings

BACKLOG = 2048
_LOOK_EVERY_S: Final = 0.02


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


def tls_context(settings: TlsSettings | None) -> ssl.SSLContext | None:
    """A server's TLS context, or None without TLS. TLS 1.2 is the floor (RFC 8996).

    Raises:
        OSError: A file cannot be read or is not what it should be (ssl.SSLError is an OSError).
    """
    if settings is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.certificate, settings.key)
    if settings.client_ca is not None:
        context.load_verify_locations(settings.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class Port:
    """One listening port with its runner.

    Args:
        runner: What serves on it.
        listening: The bound socket that accepts from the start.
        tls: TLS of the port.
    """

    def __init__(
        self,
        runner: web.ServerRunner | web.AppRunner,
        listening: socket.socket,
        tls: TlsSettings | None = None,
    ) -> None:
        self._runner = runner
        self._socket = listening
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._sites: dict[socket.socket, web.SockSite] = {}
        self._is_open = False
        self._turn = asyncio.Lock()

    @property
    def url(self) -> str:
        """Base URL of the port, without a trailing slash."""
        host, port = self._socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'http' if self._tls is None else 'https'}://{shown}:{port}"

    async def open(self) -> str:
        """Start accepting; returns the URL.

        Raises:
            OSError: A certificate cannot be read.
        """
        self._context = tls_context(self._tls)
        await self._runner.setup()
        self._is_open = True
        url = self.url
        await self.accept_on((self._socket,))
        return url

    async def accept_on(self, sockets: Iterable[socket.socket]) -> None:
        """Accept on these sockets from now on, and on no others. A socket left out is closed here.

        Whoever else holds a duplicate of a socket may accept on it: connections wait in its queue meanwhile.
        """
        async with self._turn:
            wanted = tuple(sockets) if self._is_open else ()
            for one in wanted:
                if one not in self._sites:
                    site = web.SockSite(self._runner, one, ssl_context=self._context, backlog=BACKLOG)
                    await site.start()
                    self._sites[one] = site
            for one in [held for held in self._sites if held not in wanted]:
                await self._sites.pop(one).stop()

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

    def data(self, runner: web.ServerRunner, settings: ListenSettings) -> Port:
        """The data port.

        Raises:
            OSError: It cannot be bound.
        """
        ...

    def admin(self, application: web.Application, settings: AdminSettings) -> Port | UnixPort:
        """The operators' port.

        Raises:
            OSError: It cannot be bound.
        """
        ...


class OwnDoors:
    """The doors of a gateway that stands alone: it binds what its settings name."""

    def data(self, runner: web.ServerRunner, settings: ListenSettings) -> Port:
        """The data port."""
        return Port(runner, bound_socket(settings.host, settings.port, "listen.port"), settings.tls)

    def admin(self, application: web.Application, settings: AdminSettings) -> Port | UnixPort:
        """The operators' port."""
        listening = bound_socket(settings.host, settings.port, "admin.port")
        return Port(web.AppRunner(application, access_log=None), listening, settings.tls)


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
        if connection._current_request is not None:  # noqa: SLF001
            _say_close(connection._current_request)  # noqa: SLF001


def _say_close(request: web.BaseRequest) -> None:
    request._message = request._message._replace(should_close=True)  # noqa: SLF001 - it is read for each answer


async def _until_unconnected(server: web.Server, patience_s: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    while server.connections and loop.time() < deadline:  # noqa: ASYNC110 - the library tells nobody
        await asyncio.sleep(_LOOK_EVERY_S)

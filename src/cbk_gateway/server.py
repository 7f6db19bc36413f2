"""Ports: sockets bound with clear errors, runners opened on them, and closed without losing anyone.

Which protocol speaks on a port is `listener.py` and `admin`; what it serves is the pipeline's.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

from aiohttp import web

from cbk_gateway.settings.gateway import TlsSettings

BACKLOG = 2048


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
    """One listening port with its runner."""

    def __init__(
        self,
        runner: web.ServerRunner | web.AppRunner,
        listening: socket.socket,
        tls: TlsSettings | None = None,
    ) -> None:
        self._runner = runner
        self._socket = listening
        self._tls = tls
        self._site: web.SockSite | None = None

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
        context = tls_context(self._tls)
        await self._runner.setup()
        self._site = web.SockSite(self._runner, self._socket, ssl_context=context, backlog=BACKLOG)
        await self._site.start()
        return self.url

    async def close(self, drain_s: float) -> None:
        """Stop accepting at once; give open requests `drain_s` seconds to end; then cut them off."""
        if self._site is None:
            self._socket.close()
            return
        await self._site.stop()
        server = self._runner.server
        if server is not None:
            server.pre_shutdown()
            await server.shutdown(drain_s)
        # Transports that were closed just now report it in the next turns of the loop.
        await asyncio.sleep(0)
        await self._runner.cleanup()

"""The data port's server: makes a protocol for every connection and knows those that are open.

How a connection is treated is `listener.py`; where connections come from is `server.py`.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser
from aiohttp.web_protocol import RequestHandler

from cbk_gateway.listener import GatewayProtocol, Handler, ListenerOptions, OnRefused
from cbk_gateway.proxy_protocol import Address
from cbk_gateway.request_head import BrokenFraming
from cbk_gateway.shortcut import Shortcut


class GatewayServer(web.Server):
    """Makes one protocol per connection. Unlike the library's, it never falls back to other settings."""

    def __init__(
        self,
        handler: Handler,
        options: ListenerOptions,
        on_refused: OnRefused,
        shortcut: Shortcut[Any] | None = None,
    ) -> None:
        # Cancellation tells a handler that its client has left, so that paid work upstream stops.
        super().__init__(handler, handler_cancellation=True)
        self.usual_handler = handler
        self._listener_options = options
        self._on_refused = on_refused
        self._shortcut = shortcut

    def __call__(self) -> RequestHandler:
        """A protocol for a new connection."""
        return self.connection_from(None)

    def connection_from(self, source: Address | None) -> GatewayProtocol:
        """A protocol for a new connection that a trusted front opened for `source`; None for its own."""
        return GatewayProtocol(
            self, self._loop, self._listener_options, self._on_refused, self._shortcut, source=source
        )

    def connection_refused(self, reason: str) -> None:
        """Count a connection that was closed before a protocol spoke on it."""
        self._on_refused(BrokenFraming("The connection did not begin as agreed.", reason=reason))


def require_compiled_parser() -> None:
    """Fail start-up without the C parser: the pure Python one is laxer, which is how smuggling begins.

    Raises:
        RuntimeError: aiohttp was installed without its extensions.
    """
    if HttpRequestParser.__module__ != "aiohttp._http_parser":
        message = "aiohttp lacks its C extensions; install a wheel of it for this platform"
        raise RuntimeError(message)

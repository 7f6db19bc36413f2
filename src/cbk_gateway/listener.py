"""The data port's protocol: aiohttp's own, made impatient, and speaking the API's error shape.

aiohttp's C parser is strict about framing (conflicting or malformed lengths, transfer codings, bare line
feeds, folded fields, control bytes); what it refuses is answered here as the API would, and the connection
closed. This module adds what it leaves open: time bounds on request heads, a bound on connections, and the
rules of RFC 9112 that a parser cannot judge (`inadmissible`). What a request means is not decided here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import HttpRequestParser
from aiohttp.http_writer import HttpVersion10, HttpVersion11
from aiohttp.web_protocol import RequestHandler

from cbk_gateway.errors import (
    BadRequest,
    HeadersTooLarge,
    InternalError,
    Refusal,
    RequestTimeout,
    ServiceUnavailable,
)
from cbk_gateway.exchange import SERVER
from cbk_gateway.telemetry.request_id import new_request_id

_log = structlog.get_logger(__name__)

MAX_LINE_BYTES: Final = 8190
MAX_FIELD_BYTES: Final = 16_384
MAX_FIELDS: Final = 100
READ_BUFFER_BYTES: Final = 64 * 1024
LINGER_S: Final = 1.0

# RFC 3986 section 3.2.2, as a Host field may hold it: a name, an IPv4 or bracketed IPv6 address, a port.
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
OnRefused = Callable[[Refusal], None]


class HttpVersionUnsupported(Refusal):
    """505: not HTTP/1.0 or HTTP/1.1 (RFC 9110 section 15.6.6)."""

    status = 505
    code = "BAD_REQUEST"
    closes = True
    default_reason = "http_version"


class BrokenFraming(BadRequest):
    """400 for a request whose end is in doubt: nothing after it on the connection can be trusted."""

    closes = True
    default_reason = "framing"


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """How the data port treats connections.

    Attributes:
        keepalive_s: Seconds an idle connection is kept between requests.
        head_timeout_s: Seconds from the first byte of a request head (or from the connection) to its last.
        max_connections: Connections of one worker; further ones get 503 and are closed.
    """

    keepalive_s: float = 75.0
    head_timeout_s: float = 15.0
    max_connections: int = 20_000


def inadmissible(request: web.BaseRequest) -> Refusal | None:
    """What is wrong with a request that parses, before anything looks at its meaning.

    HTTP versions other than 1.0 and 1.1; transfer codings in HTTP/1.0 (RFC 9112 section 6.1); a Host that
    is no authority or differs from the target's (RFC 9112 section 3.2); a body on a method without one.
    """
    headers = request.headers
    if request.version not in {HttpVersion10, HttpVersion11}:
        return HttpVersionUnsupported("This server speaks HTTP/1.1.")
    if request.version == HttpVersion10 and "Transfer-Encoding" in headers:
        return BrokenFraming("A transfer coding needs HTTP/1.1.")
    host = headers.get("Host")
    if host is not None and _HOST.fullmatch(host) is None:
        return BrokenFraming("The Host header is not a host.", reason="host")
    target = request.raw_path
    if not target.startswith("/") and target != "*" and host is not None:
        authority = urlsplit(target).netloc
        if authority.lower() != host.lower():
            return BrokenFraming(
                "The request target and the Host header name different hosts.", reason="host"
            )
    if request.method in {"GET", "HEAD", "OPTIONS"} and request.can_read_body:
        return BrokenFraming(f"A {request.method} request of this API has no body.", reason="body_on_get")
    return None


class GatewayProtocol(RequestHandler):
    """One client connection."""

    __slots__ = ("_head_timer", "_on_refused", "_options")

    def __init__(
        self,
        server: GatewayServer,
        loop: asyncio.AbstractEventLoop,
        options: ListenerOptions,
        on_refused: OnRefused,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=options.keepalive_s,
            access_log=None,  # type: ignore[arg-type] # accepted and documented; we write one line of our own
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
            lingering_time=LINGER_S,
            read_bufsize=READ_BUFFER_BYTES,
            # Bodies pass as they are; only the upstream decodes them.
            auto_decompress=False,
        )
        self._options = options
        self._on_refused = on_refused
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection and wait for its first head, unless there are too many."""
        super().connection_made(transport)
        manager = self._manager
        if manager is not None and len(manager._connections) > self._options.max_connections:  # noqa: SLF001
            self._refuse_at_once(ServiceUnavailable("Too many connections.", reason="connections"))
            return
        self._head_timer = self._loop.call_later(self._options.head_timeout_s, self._head_is_late)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Let the library parse, and watch how long the head of a request takes.

        A timer runs from the first byte of a head to its last and is not renewed by further bytes, so a
        client that drips is as late as one that is silent.
        """
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._stop_timer()
        elif self._head_timer is None and not self._request_in_progress and not self._messages:
            self._head_timer = self._loop.call_later(self._options.head_timeout_s, self._head_is_late)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused, or a defect, in the API's shape; the connection is closed."""
        del request, message
        refusal: Refusal
        if isinstance(exc, LineTooLong) or "Too many" in str(exc):
            refusal = HeadersTooLarge("The request line or a header is too large.")
        elif status == 400:
            refusal = BrokenFraming("The request is not well-formed HTTP/1.1.", reason="http_syntax")
        else:
            _log.error("listener_failed", status=status, exc_info=exc)
            refusal = InternalError("The gateway failed to serve this request.")
        self._on_refused(refusal)
        request_id = new_request_id()
        response = web.Response(
            status=refusal.status,
            body=refusal.body(request_id),
            headers={"Content-Type": "application/json", "X-Request-Id": request_id, "Server": SERVER},
        )
        response.force_close()
        return response

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._request_in_progress and not self._messages:
            self._refuse_at_once(RequestTimeout("The request head did not arrive in time."))

    def _refuse_at_once(self, refusal: Refusal) -> None:
        """Answer outside any request, straight to the socket, and close."""
        self._on_refused(refusal)
        transport = self.transport
        if transport is not None:
            request_id = new_request_id()
            body = refusal.body(request_id)
            head = (
                f"HTTP/1.1 {refusal.status} {refusal.code}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nServer: {SERVER}\r\nX-Request-Id: {request_id}\r\n"
                "Connection: close\r\n\r\n"
            )
            transport.write(head.encode() + body)
        self.force_close()


class GatewayServer(web.Server):
    """Makes one protocol per connection. Unlike the library's, it never falls back to other settings."""

    def __init__(self, handler: Handler, options: ListenerOptions, on_refused: OnRefused) -> None:
        # Cancellation tells a handler that its client has left, so that paid work upstream stops.
        super().__init__(handler, handler_cancellation=True)
        self._listener_options = options
        self._on_refused = on_refused

    def __call__(self) -> RequestHandler:
        """A protocol for a new connection."""
        return GatewayProtocol(self, self._loop, self._listener_options, self._on_refused)


def require_compiled_parser() -> None:
    """Fail start-up without the C parser: the pure Python one is laxer, which is how smuggling begins.

    Raises:
        RuntimeError: aiohttp was installed without its extensions.
    """
    if HttpRequestParser.__module__ != "aiohttp._http_parser":
        message = "aiohttp lacks its C extensions; install a wheel of it for this platform"
        raise RuntimeError(message)

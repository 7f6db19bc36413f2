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
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import HttpRequestParser
from aiohttp.http_writer import HttpVersion10, HttpVersion11
from aiohttp.streams import EMPTY_PAYLOAD
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
_END_OF_HEAD: Final = b"\r\n\r\n"

# RFC 3986 section 3.2.2, as a Host field may hold it: a name, an IPv4 or bracketed IPv6 address, a port.
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
OnRefused = Callable[[Refusal], None]
EntryT_contra = TypeVar("EntryT_contra", contravariant=True)


class Shortcut(Protocol[EntryT_contra]):
    """Whoever may answer a request from its bytes (`hotpath.py`). What it keeps is its own business."""

    def answer(self, head: bytes, connection: GatewayProtocol) -> bool:
        """Answer the whole of a read buffer of an idle connection; False to have it parsed."""
        ...

    def keep(self, head: bytes, entry: EntryT_contra, response: web.StreamResponse) -> None:
        """Take what was offered for a request, now that its answer has gone out."""
        ...

    def compare(self, entry: EntryT_contra, response: web.StreamResponse) -> None:
        """Compare what was expected of a request with its answer."""
        ...


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
    """One client connection.

    Attributes:
        sole_head: The request being served, when it came alone in its read buffer between two messages.
        offered: What the shortcut may keep once that request's answer has gone out.
        expected: What the shortcut would have said to it.
    """

    __slots__ = (
        "_answered_count",
        "_body_left",
        "_head_timer",
        "_is_reusable",
        "_on_refused",
        "_options",
        "_shortcut",
        "_usual_handler",
        "expected",
        "offered",
        "sole_head",
    )

    def __init__(
        self,
        server: GatewayServer,
        loop: asyncio.AbstractEventLoop,
        options: ListenerOptions,
        on_refused: OnRefused,
        shortcut: Shortcut[Any] | None = None,
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
        self._shortcut = shortcut
        self._usual_handler = server.usual_handler
        # Bytes until the next message begins; None when only the parser knows.
        self._body_left: int | None = 0
        self._answered_count = 0
        self._is_reusable = True
        self.sole_head: bytes | None = None
        self.offered: Any = None
        self.expected: Any = None

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
        if self._shortcut is not None:
            # Every request read so far has been answered to its last byte. The library's own loop may be
            # a turn behind; a client that is quicker than that would never be answered here otherwise.
            is_idle = self._answered_count == self._request_count and self._is_reusable
            if self._body_left == 0 and is_idle and self._answered(data):
                return
            self._watch_boundary(data)
            return
        self._parse(data)

    def give(self, answer: bytes) -> None:
        """Write a whole answer of the shortcut, and take the request for one of the connection's."""
        transport, manager = self.transport, self._manager
        if transport is None or manager is None:
            return
        transport.write(answer)
        self._request_count += 1
        self._answered_count += 1
        manager.requests_count += 1
        self._next_keepalive_close_time = self._loop.time() + self._options.keepalive_s
        if self._head_timer is not None:
            self._stop_timer()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, and show it to the shortcut."""
        finished = await super().finish_response(request, resp, start_time)
        self._answered_count += 1
        self._is_reusable = not finished[1] and bool(finished[0].keep_alive)
        if self.offered is not None or self.expected is not None:
            offered, expected = self.offered, self.expected
            self.offered = self.expected = None
            if self._shortcut is not None and self.sole_head is not None and not finished[1]:
                if expected is not None:
                    self._shortcut.compare(expected, finished[0])
                if offered is not None:
                    self._shortcut.keep(self.sole_head, offered, finished[0])
        return finished

    def _answered(self, data: bytes) -> bool:
        """Let the shortcut answer. The connection waits between two messages; nothing may be left to send.

        A server that drains says so in every answer, by another handler than the usual one.
        """
        transport, shortcut = self.transport, self._shortcut
        if (
            transport is None
            or shortcut is None
            or self._messages
            or self._force_close
            or self._close
            or self._paused
            or self._request_handler is not self._usual_handler
            or type(data) is not bytes
        ):
            return False
        return transport.get_write_buffer_size() == 0 and shortcut.answer(data, self)

    def _watch_boundary(self, data: bytes) -> None:
        """Parse, and keep count of where messages end, which the parser does not tell."""
        before, left = self._request_count, self._body_left
        was_idle = not self._request_in_progress and not self._messages
        self._parse(data)
        grown = self._request_count - before
        if not data and not grown:
            return
        self.sole_head = None
        if self._upgraded or grown > 1 or self._buffer_paused:
            self._body_left = None
        elif grown == 0:
            self._body_left = None if not left else (left - len(data) if left >= len(data) else None)
        else:
            self._body_left = self._left_after(data, starts_at_boundary=left == 0)
            if left == 0 and self._body_left == 0 and was_idle and _is_one_get(data):
                self.sole_head = data

    def _left_after(self, data: bytes, *, starts_at_boundary: bool) -> int | None:
        """Bytes of the one message that began or ended its head in `data` which are still to come."""
        if not self._messages:
            return None
        message, payload = self._messages[-1]
        if payload is EMPTY_PAYLOAD:
            # An incomplete head behind it cannot end in an empty line; stray line ends begin no message.
            return 0 if data.endswith(_END_OF_HEAD) else None
        length = getattr(message, "headers", {}).get("Content-Length", "")
        if not starts_at_boundary or not length.isdigit() or not data[:1].isalpha():
            return None
        left = int(length) - (len(data) - data.find(_END_OF_HEAD) - len(_END_OF_HEAD))
        return left if left >= 0 else None

    def _parse(self, data: bytes) -> None:
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
        return GatewayProtocol(self, self._loop, self._listener_options, self._on_refused, self._shortcut)


def _is_one_get(data: bytes) -> bool:
    return data.startswith(b"GET ") and data.find(_END_OF_HEAD) == len(data) - len(_END_OF_HEAD)


def require_compiled_parser() -> None:
    """Fail start-up without the C parser: the pure Python one is laxer, which is how smuggling begins.

    Raises:
        RuntimeError: aiohttp was installed without its extensions.
    """
    if HttpRequestParser.__module__ != "aiohttp._http_parser":
        message = "aiohttp lacks its C extensions; install a wheel of it for this platform"
        raise RuntimeError(message)

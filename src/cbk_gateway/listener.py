"""The data port's protocol: aiohttp's own, made impatient, and speaking the API's error shape.

aiohttp's C parser is strict about framing (conflicting or malformed lengths, transfer codings, bare line
feeds, folded fields, control bytes); what it refuses is answered here as the API would, and the connection
closed. This module adds what it leaves open: bounds in time and size on request heads, in time on clients
that do not read their answers, and in number on connections. What a parsed head must be is
`request_head.py`; what a request means is not decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_writer import HttpVersion10, HttpVersion11
from aiohttp.streams import EMPTY_PAYLOAD

from cbk_gateway.errors import (
    HeadersTooLarge,
    InternalError,
    Refusal,
    RequestTimeout,
    ServiceUnavailable,
)
from cbk_gateway.exchange import SERVER
from cbk_gateway.proxy_protocol import Address
from cbk_gateway.request_head import (
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    BrokenFraming,
    answer_in_http11,
    too_long,
)
from cbk_gateway.resting import RestingProtocol
from cbk_gateway.shortcut import Shortcut
from cbk_gateway.telemetry.request_id import new_request_id

if TYPE_CHECKING:
    from cbk_gateway.data_server import GatewayServer

_log = structlog.get_logger(__name__)

READ_BUFFER_BYTES: Final = 64 * 1024
LINGER_S: Final = 1.0
_END_OF_HEAD: Final = b"\r\n\r\n"
_SPOKEN: Final = (HttpVersion11, HttpVersion10)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
OnRefused = Callable[[Refusal], None]


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """How the data port treats connections.

    Attributes:
        keepalive_s: Seconds an idle connection is kept between requests.
        head_timeout_s: Seconds from the first byte of a request head (or from the connection) to its last.
        max_connections: Connections of one worker; further ones get 503 and are closed.
        write_timeout_s: Seconds in which a client must make room for more of its answer, and take the last
            of it when the connection is closed; then the connection is cut.
    """

    keepalive_s: float = 75.0
    head_timeout_s: float = 15.0
    max_connections: int = 20_000
    write_timeout_s: float = 60.0


class GatewayProtocol(RestingProtocol):
    """One client connection.

    Attributes:
        drawn_trace: The trace id that was drawn for the request being served, before its head was parsed.
        sole_head: The request being served, when it came alone in its read buffer between two messages.
        offered: What the shortcut may keep once that request's answer has gone out.
        expected: What the shortcut would have said to it.
    """

    __slots__ = (
        "_farewell_timer",
        "_head_bytes",
        "_head_timer",
        "_on_refused",
        "_options",
        "_peer",
        "_write_timer",
        "drawn_trace",
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
        *,
        source: Address | None = None,
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
        self._peer = source
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._farewell_timer: asyncio.TimerHandle | None = None
        self._begin_rest(shortcut, server.usual_handler)
        self.drawn_trace: int | None = None
        self.sole_head: bytes | None = None
        self.offered: Any = None
        self.expected: Any = None

    @property
    def peername(self) -> Any:  # noqa: ANN401 - a socket's name has the form of its family
        """Who is at the other end: as a trusted front said, else as the socket says."""
        return self._peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection and wait for its first head, unless there are too many."""
        if self._peer is None:
            self._peer = transport.get_extra_info("peername")
        super().connection_made(transport)
        manager = self._manager
        if manager is not None and len(manager._connections) > self._options.max_connections:  # noqa: SLF001
            self._refuse_at_once(ServiceUnavailable("Too many connections.", reason="connections"))
            return
        self._start_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._stop_timer()
        for timer in (self._write_timer, self._farewell_timer):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        """The client does not keep up with its answer: from now on it is on the clock."""
        super().pause_writing()
        self._write_timer = self._loop.call_later(self._options.write_timeout_s, self._cut_off)

    def resume_writing(self) -> None:
        """It has made room."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    async def start(self) -> None:
        """Serve the connection to its end."""
        try:
            await super().start()
        finally:
            self._limit_farewell(self.transport)

    def force_close(self) -> None:
        """Close, after what was written has left; a client that does not take it is cut off."""
        transport = self.transport
        super().force_close()
        self._limit_farewell(transport)

    def data_received(self, data: bytes) -> None:
        """Let the library parse, and watch how long the head of a request takes.

        A timer runs from the first byte of a head to its last and is not renewed by further bytes, so a
        client that drips is as late as one that is silent.
        """
        if self._is_resting and self._shortcut.answer(data, self):  # type: ignore[union-attr] # or it would not
            if self._head_timer is not None:
                self._stop_timer()
        elif self._work is None:
            self._watch_boundary(data)
        else:
            self._hold(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, and show it to the shortcut."""
        if request.version not in _SPOKEN:
            answer_in_http11(request)
        finished = await super().finish_response(request, resp, start_time)
        self._answered_count += 1
        self._is_reusable = not finished[1] and bool(finished[0].keep_alive)
        self._look_at_rest()
        if self._body_left is None and self._is_reusable and not self._messages:
            # The beginning of another head may have come along with this request.
            self._start_timer()
        if self.offered is not None or self.expected is not None:
            offered, expected = self.offered, self.expected
            self.offered = self.expected = None
            if self._shortcut is not None and self.sole_head is not None and not finished[1]:
                if expected is not None:
                    self._shortcut.compare(expected, finished[0])
                if offered is not None:
                    self._shortcut.keep(self.sole_head, offered, finished[0])
        return finished

    def _is_answered(self, head: bytes) -> bool:
        return self._shortcut is not None and self._shortcut.answer_late(head, self)

    def _watch_boundary(self, data: bytes) -> None:
        """Parse, and keep count of where messages end, which the parser does not tell."""
        self._is_resting = False
        self._parse_counted(data)
        # The rest of a body may be all that was missing.
        self._look_at_rest()

    def _parse_counted(self, data: bytes) -> None:
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
        if grown and self._messages:
            message, payload = self._messages[-1]
            if isinstance(message, RawRequestMessage) and message.upgrade and not _is_one_get(data):
                # The library may drop what came along behind it, so what comes next may begin anywhere.
                self._messages[-1] = (message._replace(should_close=True), payload)

    def _left_after(self, data: bytes, *, starts_at_boundary: bool) -> int | None:
        """Bytes of the one message that began or ended its head in `data` which are still to come."""
        if not self._messages:
            return None
        message, payload = self._messages[-1]
        if payload.is_eof() and data.endswith(_END_OF_HEAD):
            # An incomplete head behind it cannot end in an empty line; stray line ends begin no message.
            return 0
        length = getattr(message, "headers", {}).get("Content-Length", "")
        if payload is EMPTY_PAYLOAD or not (starts_at_boundary and length.isdigit() and data[:1].isalpha()):
            return None
        left = int(length) - (len(data) - data.find(_END_OF_HEAD) - len(_END_OF_HEAD))
        return left if left >= 0 else None

    def _parse(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._stop_timer()
        elif self._awaits_head():
            self._start_timer()
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse_at_once(HeadersTooLarge("The request head is too large."))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused, or a defect, in the API's shape; the connection is closed."""
        del message
        answer_in_http11(request)
        refusal: Refusal
        if isinstance(exc, LineTooLong):
            refusal = too_long(exc.args[1])
        elif "Too many" in str(exc):
            refusal = HeadersTooLarge("There are too many header fields.")
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

    def _awaits_head(self) -> bool:
        """Whether what comes next belongs to a head; after a last answer it is dropped, whatever it is."""
        # Counted, because between taking a message up and serving it the library knows of neither.
        is_between = self._answered_count == self._request_count and self._work is None
        return is_between and self._is_reusable and not self._force_close

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self._loop.call_later(self._options.head_timeout_s, self._head_is_late)

    def _stop_timer(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._awaits_head():
            self._refuse_at_once(RequestTimeout("The request head did not arrive in time."))

    def _refuse_at_once(self, refusal: Refusal) -> None:
        """Answer outside any request, straight to the socket, and close.

        What the client still sends is read and dropped for a moment: closing at once would reset the
        connection, and the answer with it (RFC 9112 section 9.6).
        """
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
            if transport.can_write_eof():
                transport.write_eof()
            self._loop.call_later(LINGER_S, transport.close)
        self._force_close = True
        self._is_resting = False
        if self._waiter is not None:
            self._waiter.cancel()

    def _limit_farewell(self, transport: asyncio.Transport | None) -> None:
        """Bound how long a close waits for the client to take what was written."""
        if transport is not None and self._farewell_timer is None and transport.is_closing():
            self._farewell_timer = self._loop.call_later(self._options.write_timeout_s, transport.abort)

    def _cut_off(self) -> None:
        self._write_timer = None
        if self.transport is not None:
            self.transport.abort()


def _is_one_get(data: bytes) -> bool:
    return data.startswith(b"GET ") and data.find(_END_OF_HEAD) == len(data) - len(_END_OF_HEAD)

"""What a request head must be before anything looks at its meaning: bounds, and rules no parser can judge.

Pure: a parsed request in, a refusal or None out. What is not HTTP at all is `listener.py`'s business, what a
request asks for is `operation`'s.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.http_writer import HttpVersion10, HttpVersion11

from cbk_gateway.errors import BadRequest, HeadersTooLarge, Refusal

MAX_LINE_BYTES: Final = 8190
"""Of the request target; it differs from `MAX_FIELD_BYTES`, so that the two can be told apart."""
MAX_FIELD_BYTES: Final = 16_384
MAX_FIELDS: Final = 100
MAX_HEAD_BYTES: Final = 128 * 1024
"""Of a head that comes in pieces; a head in one piece is no larger than one read of the socket."""

# RFC 3986 section 3.2.2, as a Host field may hold it: a name, an IPv4 or bracketed IPv6 address, a port.
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


class HttpVersionUnsupported(Refusal):
    """505: not HTTP/1.0 or HTTP/1.1 (RFC 9110 section 15.6.6)."""

    status = 505
    code = "BAD_REQUEST"
    closes = True
    default_reason = "http_version"


class TargetTooLong(Refusal):
    """414: the request target is longer than the gateway reads (RFC 9110 section 15.5.15)."""

    status = 414
    code = "BAD_REQUEST"
    closes = True
    default_reason = "target_too_long"


class BrokenFraming(BadRequest):
    """400 for a request whose end is in doubt: nothing after it on the connection can be trusted."""

    closes = True
    default_reason = "framing"


def too_long(limit: object) -> Refusal:
    """The refusal of a head in which something was longer than the parser's `limit`."""
    if limit == MAX_LINE_BYTES:
        return TargetTooLong("The request target is too long.")
    return HeadersTooLarge("The header fields are too large.")


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
    names_host = not target.startswith("/") and target != "*"
    if names_host and host is not None and _authority_of(target) != host.lower():
        return BrokenFraming("The request target and the Host header name different hosts.", reason="host")
    if request.method in {"GET", "HEAD", "OPTIONS"} and request.can_read_body:
        return BrokenFraming(f"A {request.method} request of this API has no body.", reason="body_on_get")
    return None


def answer_in_http11(request: web.BaseRequest) -> None:
    """An answer names the version its sender speaks, not the one it was asked in (RFC 9110 section 6.2)."""
    request._version = HttpVersion11  # noqa: SLF001 - the library answers in the request's version
    request._cache.pop("version", None)  # noqa: SLF001 - where the property remembers it


def is_connected(request: web.BaseRequest) -> bool:
    """Whether the client is still there to be answered."""
    return request.transport is not None and not request.transport.is_closing()


def _authority_of(target: str) -> str | None:
    try:
        return urlsplit(target).netloc.lower()
    except ValueError:
        return None

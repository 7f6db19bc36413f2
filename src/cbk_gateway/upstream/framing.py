"""How the messages on an upstream connection begin and end: the request's head, the answer's framing.

Pure functions on bytes (RFC 9112 sections 3 to 7). The parser in C finds names, values and chunk
borders and refuses most bad spellings; what it would let pass and we do not is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

from cbk_gateway.operation import Operation

MAX_CONTENT_LENGTH: Final = 1 << 50
LAST_CHUNK: Final = b"0\r\n\r\n"


class BodyEnd(Enum):
    """What ends an answer's body."""

    AT_ONCE = "at_once"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class BadFraming(ValueError):  # noqa: N818 - a verdict on what arrived
    """The answer's head contradicts itself or asks for what we do not speak."""


def request_head(
    operation: Operation,
    path_prefix: str,
    headers: Iterable[tuple[str, str]],
    body_length: int | None,
    *,
    has_body: bool,
) -> bytes:
    """The head of a request: path and query byte for byte, our own framing.

    Args:
        operation: Gives method, path and query.
        path_prefix: What stands before its path.
        headers: All fields but the framing.
        body_length: Bytes of the body; None for one of unknown length, which goes chunked.
        has_body: Whether there is a body; a POST without one says so with a length of 0.

    Raises:
        ValueError: Something would break the head into more lines than it has.
    """
    query = operation.query
    target = f"{path_prefix}{operation.path}?{query}" if query else f"{path_prefix}{operation.path}"
    lines = [f"{operation.method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    if has_body:
        lines.append(
            "Transfer-Encoding: chunked" if body_length is None else f"Content-Length: {body_length}"
        )
    elif operation.method == "POST":
        lines.append("Content-Length: 0")
    expected = len(lines) + 1
    lines.append("\r\n")
    head = "\r\n".join(lines)
    # One comparison against a split head, whoever let the line break in.
    if head.count("\n") != expected or head.count("\r") != expected or " " in target:
        raise ValueError("a request line or field holds a line break")
    return head.encode("utf-8", "surrogateescape")


def chunk(piece: bytes) -> bytes:
    """A piece of a body in the chunked coding. Never called with an empty piece, which would end it."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def body_end(status: int, method: str, fields: Iterable[tuple[bytes, bytes]]) -> tuple[BodyEnd, int | None]:
    """How the body of an answer ends, and its length when declared (RFC 9112 section 6.3).

    Raises:
        BadFraming: Two framings, a length that is no number, or a coding other than `chunked`.
    """
    length: int | None = None
    coding: bytes | None = None
    for name, value in fields:
        # Both names have their own length, so most fields cost one comparison.
        if len(name) == 14 and name.lower() == b"content-length":
            length = _length(value, length)
        elif len(name) == 17 and name.lower() == b"transfer-encoding":
            if coding is not None:
                raise BadFraming("more than one Transfer-Encoding")
            coding = value.strip().lower()
    if coding is not None:
        if coding != b"chunked":
            raise BadFraming("a transfer coding other than chunked")
        if length is not None:
            raise BadFraming("both Content-Length and Transfer-Encoding")
    if method == "HEAD" or status in {204, 304}:
        return BodyEnd.AT_ONCE, length
    if coding is not None:
        return BodyEnd.CHUNKED, None
    if length is None:
        return BodyEnd.CLOSE, None
    return (BodyEnd.LENGTH if length else BodyEnd.AT_ONCE), length


def _length(value: bytes, known: int | None) -> int:
    text = value.strip(b" \t")
    if known is not None:
        raise BadFraming("more than one Content-Length")
    if not text.isdigit() or len(text) > 16 or int(text) > MAX_CONTENT_LENGTH:
        raise BadFraming("a Content-Length that is no length")
    return int(text)

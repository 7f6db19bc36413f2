"""Taking a request's body: whole and checked when it is JSON, as a bounded stream otherwise.

Called only after the request was understood, identified, authorised and admitted, so that nobody uploads
for nothing; the `100 Continue` that some clients wait for is sent here (RFC 9110 section 10.1.1).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

from cbk_gateway.errors import BadRequest, ContentTooLarge, RequestTimeout

SLOWEST_BYTES_PER_S: Final = 2048
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """How much of a body is taken, and how long it may be silent.

    Attributes:
        max_json_bytes: Largest JSON body; it is held in memory.
        max_stream_bytes: Largest other body.
        idle_s: Longest silence between two pieces.
    """

    max_json_bytes: int = 6 * 1024**2
    max_stream_bytes: int = 2 * 1024**3
    idle_s: float = 20.0


class TakenBody:
    """A request body on its way upstream, with its size and digest as far as it has passed.

    Attributes:
        whole: All of it when it was JSON or empty, else None.
        length: Declared length in bytes, or None when chunked.
        size: Bytes passed so far.
    """

    __slots__ = ("_digest", "_pieces", "length", "size", "whole")

    def __init__(self, whole: bytes | None, length: int | None, pieces: AsyncIterator[bytes] | None) -> None:
        self.whole = whole
        self.length = length
        self.size = 0
        self._digest = hashlib.sha256()
        self._pieces = pieces
        if whole is not None:
            self._count(whole)

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes passed so far."""
        return self._digest.hexdigest()

    def outgoing(self) -> bytes | AsyncIterator[bytes] | None:
        """What the upstream client is to send: bytes, a stream to be read once, or None for no body."""
        if self.whole is not None:
            return self.whole or None
        return self._counted()

    async def _counted(self) -> AsyncIterator[bytes]:
        if self._pieces is not None:
            async for piece in self._pieces:
                self._count(piece)
                yield piece

    def _count(self, piece: bytes) -> None:
        self.size += len(piece)
        self._digest.update(piece)


async def take(request: web.BaseRequest, bounds: BodyBounds) -> TakenBody:
    """Take the body of a request that will be forwarded.

    Raises:
        BadRequest: It says JSON and is not, or its framing is broken, or a GET carries one.
        ContentTooLarge: It is over its bound.
        RequestTimeout: It stopped arriving.
    """
    if not request.can_read_body:
        return TakenBody(b"", 0, None)
    if request.method == "GET":
        raise BadRequest("A GET request of this API has no body.", reason="body_on_get")
    length = request.content_length
    is_json = is_json_media(request.headers.get("Content-Type", ""))
    bound = bounds.max_json_bytes if is_json else bounds.max_stream_bytes
    if length is not None and length > bound:
        raise ContentTooLarge(f"The body is larger than {bound} bytes.")
    await _invite(request)
    pieces = _pieces(request, bound, bounds.idle_s)
    if not is_json:
        return TakenBody(None, length, pieces)
    whole = b"".join([piece async for piece in pieces])
    if whole and "Content-Encoding" not in request.headers:
        refuse_bad_json(whole)
    return TakenBody(whole, len(whole), None)


def is_json_media(content_type: str) -> bool:
    """Whether a Content-Type is JSON as the API means it: that media type, parameters allowed."""
    return content_type.partition(";")[0].strip().lower() == "application/json"


def refuse_bad_json(document: bytes) -> None:
    """Refuse what the upstream's parser would refuse (RFC 8259).

    The quick parser refuses lone surrogates, which JavaScript writes and reads, so what it refuses gets a
    second opinion.

    Raises:
        BadRequest: The document is not JSON, or is nested beyond reason.
    """
    try:
        orjson.loads(document)
    except orjson.JSONDecodeError:
        try:
            # Decoded first: the library would guess UTF-16 too, which nothing else here reads (RFC 8259
            # section 8.1 knows UTF-8 only), so that what it says would go unchecked.
            json.loads(document.decode("utf-8", "surrogatepass"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise BadRequest("The body is not valid JSON.", reason="bad_json") from None


def _refuse_constant(name: str) -> None:
    message = f"{name} is not JSON"
    raise ValueError(message)


async def _invite(request: web.BaseRequest) -> None:
    expectation = request.headers.get("Expect")
    if expectation is None:
        return
    if expectation.strip().lower() != "100-continue":
        raise BadRequest("The only expectation that is met is 100-continue.", reason="expectation")
    if request.version >= (1, 1):
        await request.writer.write(CONTINUE)
        # The writer counts it as part of the answer; the answer has not begun.
        request.writer.output_size = 0


async def _pieces(request: web.BaseRequest, bound: int, idle_s: float) -> AsyncIterator[bytes]:
    taken, waited_s = 0, 0.0
    content = request.content
    loop = asyncio.get_running_loop()
    while True:
        # Waiting is paid for with bytes, so that dripping does not last longer than silence. The time the
        # upstream takes to accept a piece is not the client's fault and is not counted.
        begun = loop.time()
        try:
            async with asyncio.timeout(min(idle_s, idle_s + taken / SLOWEST_BYTES_PER_S - waited_s)):
                piece = await content.readany()
        except TimeoutError:
            raise RequestTimeout("The request body stopped arriving.", reason="slow_body") from None
        except web.RequestPayloadError:
            raise BadRequest("The framing of the request body is broken.", reason="body_framing") from None
        if not piece:
            return
        waited_s += loop.time() - begun
        taken += len(piece)
        if taken > bound:
            raise ContentTooLarge(f"The body is larger than {bound} bytes.")
        yield piece

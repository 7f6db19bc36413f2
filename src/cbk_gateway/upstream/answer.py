"""The upstream's answer as the pipeline holds it: status, cleaned fields, and a body to be read once."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from cbk_gateway.upstream.body import Body
from cbk_gateway.upstream.connection import Connection


class AnswerTooLarge(Exception):  # noqa: N818 - the reader's own bound, not a malfunction
    """The body is larger than the reader wanted to hold.

    `taken` holds what was read so far; the rest still comes from `Answer.chunks()`.
    """

    def __init__(self, limit: int, taken: bytes) -> None:
        super().__init__(f"the answer is larger than {limit} bytes")
        self.taken = taken


class Chunks:
    """The body as it arrives: `async for piece in answer.chunks()`; each piece is to be passed on at once.

    Raises:
        StreamBroken: The body broke off; the pieces before were all there was.
    """

    __slots__ = ("_body",)

    def __init__(self, body: Body) -> None:
        self._body = body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._body.next()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def wait(self, until: float | None) -> bytes | None:
        """Like iteration, but empty at the end and None when loop time `until` comes first."""
        return await self._body.next(until)

    def interrupt(self) -> None:
        """Make a `wait` that is under way return None now."""
        self._body.interrupt()

    def take(self) -> bytes:
        """What has arrived and was not taken yet, without waiting."""
        return self._body.take()


class Answer:
    """A final answer. Leave it by `async with`, or call `close`, or its connection stays taken.

    Attributes:
        status: HTTP status, 200 to 999.
        headers: Fields the client may see, in order.
        attempts: Attempts it took, the successful one included.
        first_byte_s: Seconds from the start of that attempt to the head of the answer.
        connect_s: Seconds spent on a new connection for it, 0 when one was reused.
    """

    __slots__ = ("_body", "_connection", "attempts", "connect_s", "first_byte_s", "headers", "status")

    def __init__(
        self,
        connection: Connection,
        body: Body,
        *,
        status: int,
        headers: tuple[tuple[str, str], ...],
        attempts: int,
        first_byte_s: float,
        connect_s: float,
    ) -> None:
        self._connection = connection
        self._body = body
        self.status = status
        self.headers = headers
        self.attempts = attempts
        self.first_byte_s = first_byte_s
        self.connect_s = connect_s

    def header(self, name: str) -> str | None:
        """The first value of a field, by name in any case."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    def set_header(self, name: str, value: str) -> None:
        """Replace a field, whatever its case, or add it."""
        wanted = name.lower()
        kept = [pair for pair in self.headers if pair[0].lower() != wanted]
        self.headers = (*kept, (name, value))

    def on_end(self, told: Callable[[], None]) -> None:
        """Have `told` called once when nothing more of the body will come; at once if it has ended."""
        if self._body.has_ended:
            told()
        else:
            self._body.on_end = told

    @property
    def content_length(self) -> int | None:
        """Declared length of the body, None when it is not declared."""
        text = self.header("content-length")
        return int(text) if text is not None else None

    @property
    def is_complete(self) -> bool:
        """Whether the whole body has arrived, read or not."""
        return self._body.is_complete

    def chunks(self) -> Chunks:
        """The body, piece by piece, as received."""
        return Chunks(self._body)

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Args:
            limit: Most bytes to hold.

        Raises:
            AnswerTooLarge: It is larger; nothing is lost.
            StreamBroken: It broke off.
        """
        body = self._body
        if body.is_complete:
            whole = body.take()
            if len(whole) > limit:
                raise AnswerTooLarge(limit, whole)
            return whole
        pieces = []
        size = 0
        while piece := await body.next():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise AnswerTooLarge(limit, b"".join(pieces))
        return b"".join(pieces)

    async def close(self) -> None:
        """Leave the answer. If its body is still coming, the connection is closed and the work ends."""
        self.abort()

    def abort(self) -> None:
        """As `close`, without a coroutine: for clean-up in a hurry."""
        # A body that has ended may belong to a connection that serves somebody else by now.
        if not self._body.has_ended:
            self._connection.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self._body!r}>"

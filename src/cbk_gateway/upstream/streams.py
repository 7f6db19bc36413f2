"""Passing an event stream on: whole lines or events only, never silent, never a false happy end.

The relay is byte-exact for whatever is complete; it adds heartbeats between events and, when the stream
breaks, one `error` event. After that it raises, so that the client's connection is broken too. Where to
cut and what closes a stream is `event_forms.py`'s knowledge.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from cbk_gateway.upstream.answer import Chunks
from cbk_gateway.upstream.event_forms import (
    Cutter,
    StreamForm,
    Terminal,
    TerminalWatch,
    error_event,
    heartbeat,
)
from cbk_gateway.upstream.observer import SilentObserver, UpstreamObserver
from cbk_gateway.upstream.outcomes import Cause, StreamBroken


class Ending(StrEnum):
    """How a relayed stream ended."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    CLIENT_ABORT = "client_abort"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """How streams are relayed.

    Attributes:
        heartbeat_s: Silence after which a heartbeat is written; below what proxies between allow.
        deadline_s: Longest life of a stream, None for no bound.
        max_line_bytes: A line or event longer than this is passed on in parts, cut between characters.
        check_terminal: Whether a stream that ends without its terminal event counts as truncated.
    """

    heartbeat_s: float = 15.0
    deadline_s: float | None = None
    max_line_bytes: int = 1_048_576
    check_terminal: bool = True


class Relay:
    """An event stream on its way to a client: `async for piece in relay(...)`. Made by `relay`.

    Raises from iteration:
        StreamBroken: The stream is not whole; the `error` event was the last piece. The client's
            connection must be broken now.

    Attributes:
        ending: How it ended, None while it has not.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        form: StreamForm,
        options: RelayOptions,
        *,
        terminal: Terminal,
        ended: asyncio.Event | None,
        observer: UpstreamObserver,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._source = Source(pieces)
        self._form = form
        self._options = options
        self._terminal = terminal
        self._cutter = Cutter(form, options.max_line_bytes)
        self._watch = TerminalWatch(form, terminal if options.check_terminal else Terminal.NONE)
        self._ended = ended
        self._observer = observer
        self._ear: asyncio.Task[None] | None = None
        self._fault: StreamBroken | None = None
        self._last_written_at = self._loop.time()
        self._ends_at = None if options.deadline_s is None else self._last_written_at + options.deadline_s
        self.ending: Ending | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._fault is not None:
            raise self._fault
        if self.ending is not None:
            raise StopAsyncIteration
        if self._ended is not None and self._ear is None:
            self._ear = self._loop.create_task(self._listen(self._ended))
        try:
            piece = await self._next()
        except BaseException:
            self._leave(Ending.CLIENT_ABORT)
            raise
        if not piece:
            raise StopAsyncIteration
        self._last_written_at = self._loop.time()
        return piece

    async def aclose(self) -> None:
        """Leave the stream; when it has not ended, the client is taken to have left."""
        self._leave(Ending.CLIENT_ABORT)
        await self._source.aclose()

    async def _next(self) -> bytes:
        """The next piece to write; empty after a happy end."""
        while True:
            if self._ended is not None and self._ended.is_set():
                return self._break(Ending.DEADLINE, Cause.STOPPED, "The stream was ended by the gateway.")
            now = self._loop.time()
            if self._ends_at is not None and now >= self._ends_at:
                return self._break(
                    Ending.DEADLINE, Cause.TOTAL_TIMEOUT, "The stream reached its longest life."
                )
            beat_at = self._last_written_at + self._options.heartbeat_s
            until = beat_at if self._ends_at is None else min(beat_at, self._ends_at)
            try:
                piece = await self._source.wait(max(until, now + 0.001))
            except StreamBroken as fault:
                return self._break(Ending.TRUNCATED, fault.cause, "The upstream API broke off the stream.")
            if piece is None:
                if self._loop.time() >= beat_at and self._cutter.is_between:
                    return heartbeat(self._form)
                if self._loop.time() >= beat_at:
                    self._last_written_at = self._loop.time()
                continue
            if not piece:
                return self._end()
            ready = self._cutter.feed(piece)
            if ready:
                self._watch.look(ready)
                return ready

    def _end(self) -> bytes:
        """The upstream ended the stream as HTTP should; whether it is whole is another question."""
        rest = self._cutter.rest()
        if rest:
            self._watch.look(rest)
        if self._watch.is_seen:
            self._leave(Ending.COMPLETE)
            return rest
        lost = rest if rest.endswith(b"\n") else b""
        return lost + self._break(
            Ending.TRUNCATED, Cause.CLOSED, "The upstream API ended the stream before its result."
        )

    def _break(self, ending: Ending, cause: Cause, message: str) -> bytes:
        """Tell the client in its own form; the next step raises. An incomplete line is not passed on."""
        self._leave(ending)
        self._fault = StreamBroken(cause, message)
        code = "GATEWAY_TIMEOUT" if ending is Ending.DEADLINE else "BAD_GATEWAY"
        border = b"" if self._cutter.is_between else b"\n" if self._form is StreamForm.JSONL else b"\n\n"
        return border + error_event(self._form, self._terminal, message, code)

    def _leave(self, ending: Ending) -> None:
        if self.ending is None:
            self.ending = ending
            self._observer.stream_ended(ending)
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.cancel()

    async def _listen(self, ended: asyncio.Event) -> None:
        await ended.wait()
        self._source.interrupt()

    def __repr__(self) -> str:
        return f"<Relay {self._form} {self.ending or 'open'}>"


class Source:
    """Pieces that can be waited for until a time, from the transport or from any iterator."""

    __slots__ = ("_chunks", "_is_interrupted", "_iterator", "_pending", "_woken")

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._chunks = pieces if isinstance(pieces, Chunks) else None
        self._iterator = pieces
        self._pending: asyncio.Task[bytes] | None = None
        self._woken: asyncio.Event | None = None

    async def wait(self, until: float) -> bytes | None:
        """The next piece; empty at the end, None when `until` or an interruption came first.

        Raises:
            StreamBroken: The stream broke off.
        """
        if self._chunks is not None:
            return await self._chunks.wait(until)
        loop = asyncio.get_running_loop()
        if self._pending is None:
            self._pending = loop.create_task(_step(self._iterator))
        self._woken = asyncio.Event()
        woken = loop.create_task(self._woken.wait())
        try:
            # A wait that ends must not cancel the step, which would break an innocent iterator.
            await asyncio.wait(
                (self._pending, woken), timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
        except BaseException:
            self._pending.cancel()
            raise
        finally:
            woken.cancel()
        if not self._pending.done():
            return None
        pending, self._pending = self._pending, None
        return pending.result()

    def interrupt(self) -> None:
        """Make a wait that is under way return None."""
        if self._chunks is not None:
            self._chunks.interrupt()
        elif self._woken is not None:
            self._woken.set()

    async def aclose(self) -> None:
        """Stop a step that is under way."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
            await asyncio.wait((pending,))


async def _step(pieces: AsyncIterator[bytes]) -> bytes:
    async for piece in pieces:
        if piece:
            return piece
    return b""


def relay(
    pieces: AsyncIterator[bytes],
    form: StreamForm,
    options: RelayOptions,
    *,
    terminal: Terminal = Terminal.NONE,
    ended: asyncio.Event | None = None,
    observer: UpstreamObserver | None = None,
) -> Relay:
    """Pass an event stream on.

    Args:
        pieces: `answer.chunks()`, or any iterator of bytes that raises `StreamBroken`.
        form: How its events are written.
        options: See `RelayOptions`.
        terminal: What must have come before the end; see `terminal_for`.
        ended: Set it to end the stream with a word to the client (drain, revocation).
        observer: Told of the ending.
    """
    return Relay(pieces, form, options, terminal=terminal, ended=ended, observer=observer or SilentObserver())

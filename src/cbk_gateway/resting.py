"""A client connection that knows when it rests between two messages, so that a shortcut may answer it.

Whether it rests is concluded when something of it changes and not for every request: the answers of a
shortcut change nothing, and they are what must be quick. What is answered is not known here.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cbk_gateway.busy import BusyProtocol, Work
from cbk_gateway.shortcut import Shortcut

if TYPE_CHECKING:
    from aiohttp.web_protocol import _RequestHandler


class RestingProtocol(BusyProtocol):
    """A connection that may be answered by a shortcut while it rests. Base of `GatewayProtocol`.

    Whatever this is concluded from must be followed by `_look_at_rest` when it changes, or by clearing
    `_is_resting` when it can only end.

    Attributes:
        write: Writes to the client, as long as the connection rests.
        given_at: When the shortcut wrote an answer last, by its own clock.
    """

    __slots__ = (
        "_body_left",
        "_is_resting",
        "_is_reusable",
        "_shortcut",
        "_usual_handler",
        "given_at",
        "write",
    )

    _body_left: int | None
    _shortcut: Shortcut[Any] | None

    def _begin_rest(self, shortcut: Shortcut[Any] | None, usual_handler: _RequestHandler) -> None:
        """Set what belongs to this class, once the library's part is set."""
        self._shortcut = shortcut
        self._usual_handler = usual_handler
        # Bytes until the next message begins; None when only the parser knows.
        self._body_left = 0
        self._answered_count = 0
        self._work = None
        self._held = b""
        self._is_reusable = True
        self._is_resting = False
        self.write: Callable[[bytes], None] = _unheard
        self.given_at = -math.inf

    def _look_at_rest(self) -> None:
        """Note whether the shortcut may answer what comes next.

        The connection is between two messages: every request read so far has been answered to its last
        byte, so none waits and nothing is awaited. The library's own loop may be a turn behind; a client that
        is quicker than that would never be answered here otherwise. The client takes what it is sent, and
        nobody has begun to close the connection. A server that drains says so in every answer, by another
        handler than the usual one.
        """
        self._is_resting = (
            self._answered_count == self._request_count
            and self._body_left == 0
            and self._is_reusable
            and not self._force_close
            and not self._close
            and not self._paused
            and self._request_handler is self._usual_handler
            and self._shortcut is not None
        )

    def take_no_shortcut(self) -> None:
        """Every request from now on must be served by the handler, which is not the usual one any more."""
        self._is_resting = False

    def give(self, answer: bytes, now: float) -> None:
        """Write a whole answer of the shortcut. The request was never the library's, so it counts none.

        Args:
            answer: Its bytes.
            now: The shortcut's clock.
        """
        self.write(answer)
        self.given_at = now

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection rests."""
        super().connection_made(transport)
        if self.transport is not None:
            self.write = self.transport.write
        self._look_at_rest()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nobody is there any more."""
        self._is_resting = False
        self.write = _unheard
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self._is_resting = False
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has made room."""
        super().resume_writing()
        self._look_at_rest()

    def close(self) -> None:
        """Take no further request."""
        self._is_resting = False
        super().close()

    def force_close(self) -> None:
        """Close now."""
        self._is_resting = False
        super().force_close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - the library's own words
        """Stop; what is being served gets so many seconds to end."""
        self._is_resting = False
        await super().shutdown(timeout)

    def await_answer(self, work: Work) -> None:
        """The shortcut has taken a request, and its answer will come later."""
        self._is_resting = False
        super().await_answer(work)

    def _end_work(self) -> None:
        super()._end_work()
        self._look_at_rest()

    def _process_keepalive(self) -> None:
        if self._shortcut is not None:
            # Answers of the shortcut leave no more than a note of their time: this is looked at less often.
            idle_s = self._shortcut.now() - self.given_at
            close_time = self._loop.time() - idle_s + self._keepalive_timeout
            self._next_keepalive_close_time = max(self._next_keepalive_close_time, close_time)
        super()._process_keepalive()


def _unheard(_: bytes) -> None:
    """Nobody is there."""

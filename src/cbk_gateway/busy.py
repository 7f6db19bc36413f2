"""A client connection whose answer is awaited by a shortcut: what it must not do meanwhile.

While something other than the library's own loop works for the connection (`lease_queue.py`,
`fastforward.py`), it counts as busy: what the client sends on is kept unread, an idle time does not end it, a
server that stops waits for the answer, and a client that leaves ends the work. How the answer is made is not
known here.
"""

from __future__ import annotations

from typing import Protocol

from aiohttp.web_protocol import RequestHandler


class Work(Protocol):
    """What a shortcut does for one request over several turns of the loop."""

    def leave(self) -> None:
        """The client has gone."""
        ...


class BusyProtocol(RequestHandler):
    """A connection that can wait for a shortcut. Base of `GatewayProtocol`."""

    __slots__ = ("_answered_count", "_held", "_work")

    _answered_count: int
    _held: bytes
    _work: Work | None

    def await_answer(self, work: Work) -> None:
        """The shortcut has taken a request, and its answer will come later."""
        self._work = work
        self._request_count += 1
        self._request_in_progress = True

    def give_awaited(self, answer: bytes) -> None:
        """Write the answer that was awaited, and go on with what the client has sent since."""
        self._answered_count += 1
        transport = self.transport
        if transport is not None:
            transport.write(answer)
        self._end_work()
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._force_close or self._close:
            self.force_close()
        elif self._held:
            self._take_up()

    def retry(self, head: bytes) -> None:
        """Try the shortcut once more with the request that was taken, or serve it in the full way."""
        if self.transport is None or self._force_close or self._close:
            self.resume(head)
            return
        self._give_up_work()
        if not self._is_answered(head):
            self._watch_boundary(head)
        if self._work is None:
            self._take_up()

    def resume(self, head: bytes) -> None:
        """Serve the request that was taken in the full way instead."""
        closes = self._force_close or self._close
        self._give_up_work()
        if closes:
            # It stops, and reads no more: a read may be sent again.
            self.force_close()
        elif self.transport is not None:
            self._watch_boundary(head)
            self._take_up()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the work: nobody waits for it."""
        work = self._work
        if work is not None:
            self._end_work()
            work.leave()
        super().connection_lost(exc)

    def _is_answered(self, head: bytes) -> bool:
        """Have the shortcut answer, if it can."""
        raise NotImplementedError

    def _watch_boundary(self, data: bytes) -> None:
        """Have the library parse."""
        raise NotImplementedError

    def _hold(self, data: bytes) -> None:
        """Keep what came too early, and read no more until the answer is out."""
        self._held += data
        if self.transport is not None:
            self.transport.pause_reading()

    def _take_up(self) -> None:
        held, self._held = self._held, b""
        if held and self.transport is not None:
            self.transport.resume_reading()
            self.data_received(held)

    def _give_up_work(self) -> None:
        self._request_count -= 1
        self._end_work()

    def _end_work(self) -> None:
        self._work = None
        self._request_in_progress = False
        waiter = self._handler_waiter
        if waiter is not None and not waiter.done():
            # Somebody stops the server and waits for this.
            waiter.set_result(None)

    def _process_keepalive(self) -> None:
        if self._work is not None:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

"""The fault matrix: a fault at each byte of request and answer, and whether the outcome tells the truth.

The upstream is a thread on blocking sockets, so that it knows exactly what it has read and sent. Each row
runs on both event loops: what they tell of a broken connection differs, the outcome must not.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import pytest
import uvloop

from cbk_gateway.operation import understand
from cbk_gateway.upstream import (
    BreakerOptions,
    Call,
    Outcome,
    RetryOptions,
    StreamBroken,
    Timeouts,
    Upstream,
    UpstreamFault,
    UpstreamOptions,
)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Row: 1\r\nContent-Length: 12\r\n\r\n"
ANSWER = HEAD + b'{"id":"b001"}'[:12]
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
How = Literal["close", "reset"]


@dataclass
class Plan:
    """What to do to one request: read so many of its bytes, send so many of the answer, end it."""

    read: int | None  # None: all
    send: int
    how: How


@dataclass
class Close:
    """A close behind an answer, of both directions or of the upstream's own, once it may happen."""

    half: bool = False
    may: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)


@dataclass
class TruthfulUpstream:
    """An upstream that follows plans and counts what reached it.

    Attributes:
        attempts: Requests of which at least a byte arrived.
        acted: Requests that arrived whole.
        requests: The whole ones.
    """

    plans: list[Plan] = field(default_factory=list)
    attempts: int = 0
    acted: int = 0
    requests: list[bytes] = field(default_factory=list)
    port: int = 0
    live: list[socket.socket] = field(default_factory=list)
    ending: Close | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[TruthfulUpstream]:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        accepting = threading.Thread(target=self._accept, args=(listener,))
        accepting.start()
        try:
            yield self
        finally:
            # A thread that waits in accept() is woken by shutting the socket down, not by closing it.
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(10)
            listener.close()
            for sock in self.live:
                sock.close()

    def _accept(self, listener: socket.socket) -> None:
        threads = []
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                sock.settimeout(20)
                self.live.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,))
                thread.start()
                threads.append(thread)
        for sock in self.live:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while sock.recv(1, socket.MSG_PEEK):
                self.attempts += 1
                if self.plans:
                    self._follow(sock, self.plans.pop(0))
                    return
                self._read_whole(sock)
                sock.sendall(ANSWER)
                ending = self.ending
                if ending is not None:
                    ending.may.wait(10)
                    sock.shutdown(socket.SHUT_WR) if ending.half else sock.close()
                    ending.done.set()
        sock.close()

    def _follow(self, sock: socket.socket, plan: Plan) -> None:
        if plan.read is None:
            self._read_whole(sock)
        elif plan.read:
            sock.recv(plan.read, socket.MSG_WAITALL)
        if plan.send:
            sock.sendall(ANSWER[: plan.send])
        if plan.how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def _read_whole(self, sock: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += sock.recv(65536)
        length = re.search(rb"Content-Length: (\d+)", request)
        missing = request.index(b"\r\n\r\n") + 4 + int(length[1] if length else 0) - len(request)
        if missing > 0:
            request += sock.recv(missing, socket.MSG_WAITALL)
        self.acted += 1
        self.requests.append(request)


def the_call(method: str) -> Call:
    path, body = ("/v1/bot/list?take=1", None) if method == "GET" else ("/v1/bot/create", b'{"name":"x"}')
    return Call(understand(method, path), [("Host", "up.test")], body, account="a")


def options(port: int) -> UpstreamOptions:
    return UpstreamOptions(
        url=f"http://127.0.0.1:{port}",
        idle_s=30,
        retry=RetryOptions(first_wait_s=0.001, budget_reserve=10_000),
        breaker=BreakerOptions(enabled=False),
    )


async def answered(upstream: Upstream, call: Call) -> tuple[bytes, int]:
    async with await upstream.send(call) as answer:
        return await answer.read(1000), answer.attempts


def run(loop: str, scenario: Callable[[TruthfulUpstream, Upstream], Awaitable[None]]) -> TruthfulUpstream:
    async def main(server: TruthfulUpstream) -> None:
        upstream = Upstream(options(server.port))
        await upstream.start()
        try:
            await scenario(server, upstream)
        finally:
            await upstream.stop()

    with TruthfulUpstream().running() as server, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main(server))
    return server


async def one_row(
    server: TruthfulUpstream, upstream: Upstream, method: str, plan: Plan, *, reused: bool
) -> tuple[Outcome | None, int, int, int]:
    """Outcome (None: answered whole), attempts by our count, attempts and actions by the upstream's."""
    if reused:
        await answered(upstream, the_call("GET"))
    else:
        upstream.pool.retire()
    server.attempts = server.acted = 0
    server.plans = [plan]
    try:
        _, attempts = await answered(upstream, the_call(method))
    except UpstreamFault as fault:
        count = 1 if isinstance(fault, StreamBroken) else fault.attempts
        return fault.outcome, count, server.attempts, server.acted
    return None, attempts, server.attempts, server.acted


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_fault_at_any_byte_of_the_request(loop: str, how: How, reused: bool, method: str) -> None:
    async def scenario(server: TruthfulUpstream, upstream: Upstream) -> None:
        await answered(upstream, the_call(method))
        size = len(server.requests[-1])
        for count in range(size + 1):
            row = await one_row(server, upstream, method, Plan(count, 0, how), reused=reused)
            # Some bytes had reached it, so it may have acted: a read is repeated, a write is not.
            expected = (None, 2, 2, 1) if method == "GET" else (Outcome.UNKNOWN, 1, 1, 0)
            assert row == expected, f"after {count} bytes of the request"

    run(loop, scenario)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_fault_at_any_byte_of_the_answer(loop: str, how: How, reused: bool, method: str) -> None:
    async def scenario(server: TruthfulUpstream, upstream: Upstream) -> None:
        for count in range(len(ANSWER) + 1):
            row = await one_row(server, upstream, method, Plan(None, count, how), reused=reused)
            if count == len(ANSWER):
                expected: tuple[Outcome | None, int, int, int] = (None, 1, 1, 1)
            elif count >= len(HEAD):
                expected = (Outcome.ANSWERED, 1, 1, 1)
            elif method == "GET":
                expected = (None, 2, 2, 2)
            else:
                expected = (Outcome.UNKNOWN, 1, 1, 1)
            assert row == expected, f"after {count} bytes of the answer"

    run(loop, scenario)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_idle_connection_that_was_closed_is_noticed_before_it_is_used(loop: str, method: str) -> None:
    async def scenario(server: TruthfulUpstream, upstream: Upstream) -> None:
        for _ in range(20):
            server.ending = Close()
            server.ending.may.set()
            await answered(upstream, the_call("GET"))
            # The event loop sees nothing of the close: this blocks it until the close has happened.
            assert server.ending.done.wait(10)
            server.ending = None
            server.attempts = 0
            assert (await answered(upstream, the_call(method)))[1] == 1
            assert server.attempts == 1
            upstream.pool.retire()

    run(loop, scenario)


async def race(server: TruthfulUpstream, upstream: Upstream, *, half: bool) -> UpstreamFault:
    """Begin a request on a connection that looked open and is closed by the time it is sent."""
    server.ending = Close(half)
    await answered(upstream, the_call("GET"))
    connection = upstream.pool.reuse()
    assert connection is not None
    server.ending.may.set()
    assert server.ending.done.wait(10)
    request = b"POST /v1/bot/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    waiter = connection.begin(request, "POST", Timeouts(5, 5), float("inf"), whole=True)
    with pytest.raises(UpstreamFault) as fault:
        await waiter
    return fault.value


@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_that_met_a_closed_socket_was_not_sent(loop: str) -> None:
    async def scenario(server: TruthfulUpstream, upstream: Upstream) -> None:
        fault = await race(server, upstream, half=False)
        assert fault.outcome is Outcome.NOT_SENT
        assert server.acted == 1

    run(loop, scenario)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_that_met_a_half_closed_socket_may_have_been_read(loop: str) -> None:
    async def scenario(server: TruthfulUpstream, upstream: Upstream) -> None:
        fault = await race(server, upstream, half=True)
        assert fault.outcome is Outcome.UNKNOWN

    # It did read it: with this the outcome would have been a lie.
    assert run(loop, scenario).acted == 2

"""Between gateway and sandbox: a relay that breaks an exchange at a chosen byte and logs what got through.

Threads on blocking sockets, so that bytes are read and sent exactly as planned and the log is the truth.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

_PATIENCE_S: Final = 60
_ID: Final = re.compile(rb"\r\nX-Request-Id: ([^\r]+)\r\n", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\nTransfer-Encoding: chunked\r\n", re.IGNORECASE)
_DATE: Final = re.compile(rb"(?<=\r\n)Date: [^\r]*\r\n")
HEAD_END: Final = b"\r\n\r\n"


class Side(StrEnum):
    """Which message breaks."""

    REQUEST = "request"
    ANSWER = "answer"


class How(StrEnum):
    """How it breaks: closed in order, reset, or silent until the other side gives up."""

    CLOSE = "close"
    RESET = "reset"
    STALL = "stall"


@dataclass(frozen=True, slots=True)
class Plan:
    """Let `count` bytes of one side through, then break."""

    side: Side
    count: int
    how: How


@dataclass(slots=True)
class Passed:
    """One exchange: what the relay was sent, and how much of it got through.

    Attributes:
        was_reused: Whether its connection had served before.
        request: The request as the gateway sent it.
        delivered: How many of its bytes the sandbox was given.
        answer: The sandbox's answer, empty when it was not waited for.
        returned: How many of its bytes the gateway was given.
    """

    request_id: str
    was_reused: bool
    request: bytes
    delivered: int = 0
    answer: bytes = b""
    returned: int = 0

    @property
    def target(self) -> str:
        return self.request.split(b" ", 2)[1].decode()

    @property
    def is_write(self) -> bool:
        return self.request.startswith(b"POST ")

    @property
    def is_delivered(self) -> bool:
        return self.delivered == len(self.request)

    @property
    def is_returned(self) -> bool:
        return bool(self.answer) and self.returned == len(self.answer)

    @property
    def has_returned_head(self) -> bool:
        return bool(self.answer) and self.returned >= self.answer.index(HEAD_END) + 4


@dataclass
class BreakingRelay:
    """The relay.

    Attributes:
        plans: What to do to the first exchange with a request id, or of a target.
        passed: Exchanges in the order of their beginnings; HEADs, which are probes, left out.
        together: Exchanges whose id begins with `prime` are answered only once so many are there.
        is_undated: Whether answers lose their `Date`, as those of a host without a clock have none.
    """

    target: tuple[str, int]
    plans: dict[str, Plan] = field(default_factory=dict)
    passed: list[Passed] = field(default_factory=list)
    together: threading.Barrier | None = None
    is_undated: bool = False
    url: str = ""
    _listener: socket.socket | None = None
    _live: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[BreakingRelay]:
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener
        accepting = threading.Thread(target=self._accept, args=(listener,))
        accepting.start()
        try:
            yield self
        finally:
            self.refuse()
            accepting.join(_PATIENCE_S)
            for thread in self._threads:
                thread.join(_PATIENCE_S)

    def refuse(self) -> None:
        """Close the port and every connection."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # A thread that waits in accept() is woken by shutting the socket down, not by closing it.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.close_connections()

    def close_connections(self) -> None:
        """Close every connection; it is done when this returns."""
        live, self._live = self._live, []
        for sock in live:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def attempts(self, request_id: str) -> list[Passed]:
        return [one for one in self.passed if one.request_id == request_id]

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                thread = threading.Thread(target=self._serve, args=(sock,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sandbox = socket.create_connection(self.target)
        for one in (sock, sandbox):
            one.settimeout(_PATIENCE_S)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._live.append(one)
        served = 0
        with contextlib.suppress(OSError), sock, sandbox:
            while request := _peeked(sock):
                found = _ID.search(request)
                passed = Passed(found[1].decode() if found else "", served > 0, request)
                plan = None
                if not request.startswith(b"HEAD "):
                    self.passed.append(passed)
                    plan = self.plans.pop(passed.request_id, None) or self.plans.pop(passed.target, None)
                self._pass(sock, sandbox, passed, plan)
                served += 1
                # Silence behind a whole answer cannot be told from waiting for the next request,
                # and must not swallow that.
                if plan is not None and not (plan.how is How.STALL and passed.is_returned):
                    _break(sock, plan.how)
                    return

    def _pass(self, sock: socket.socket, sandbox: socket.socket, passed: Passed, plan: Plan | None) -> None:
        count = len(passed.request)
        if plan is not None and plan.side is Side.REQUEST:
            count = min(count, plan.count)
        if count:
            sandbox.sendall(sock.recv(count, socket.MSG_WAITALL))
        passed.delivered = count
        if count < len(passed.request):
            sandbox.close()
            return
        # Also of an answer that is not passed on: by then the sandbox has done what it does.
        answer = _answer(sandbox, passed.request)
        passed.answer = _DATE.sub(b"", answer) if self.is_undated else answer
        if plan is not None and plan.side is Side.REQUEST:
            return
        if self.together is not None and passed.request_id.startswith("prime"):
            self.together.wait(_PATIENCE_S)
        returned = passed.answer if plan is None else passed.answer[: plan.count]
        # Said before it is done: who has the answer may look here at once.
        passed.returned = len(returned)
        sock.sendall(returned)


def _peeked(sock: socket.socket) -> bytes:
    """The next request, whole, left in the kernel; empty when there is none. The gateway sends it at once."""
    while True:
        seen = sock.recv(65_536, socket.MSG_PEEK)
        head_end = seen.find(HEAD_END)
        length = _LENGTH.search(seen)
        if not seen or (head_end >= 0 and len(seen) == head_end + 4 + int(length[1] if length else 0)):
            return seen


def _answer(sandbox: socket.socket, request: bytes) -> bytes:
    answer = b""
    while HEAD_END not in answer:
        piece = sandbox.recv(65_536)
        if not piece:
            return answer
        answer += piece
    if _CHUNKED.search(answer):
        # The only last chunk there is, because events hold no such bytes.
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            answer += sandbox.recv(65_536)
        return answer
    length = _LENGTH.search(answer)
    size = answer.index(HEAD_END) + 4
    if length is not None and not request.startswith(b"HEAD "):
        size += int(length[1])
    while len(answer) < size:
        answer += sandbox.recv(65_536)
    return answer


def _break(sock: socket.socket, how: How) -> None:
    if how is How.RESET:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif how is How.STALL:
        while sock.recv(65_536):
            continue

"""How much later the first byte of a stream comes through the gateway than directly.

A stream that runs a model is journalled before it is sent, and the journal waits for the disk; what one sync
of this disk takes is measured beside it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import statistics
import sys
import tempfile
import time
from urllib.parse import urlsplit

from benchmarks import contestants
from benchmarks.figure import Figure

COMPLETE = "/api/v1/conversation/complete"
FIRST_BYTE_MS = 1.0
_EVERY_S, _PIECES = 0.005, 3
_numbers = itertools.count()


class Listener:
    """A client of streams on one connection, which asks for one after the other."""

    def __init__(self, url: str, bearer: str) -> None:
        parts = urlsplit(url)
        self._host = f"{parts.hostname}:{parts.port}"
        self._bearer = bearer
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def begin(self) -> tuple[float, bytes]:
        """Ask for a stream. Returns seconds until its first byte after the head, and what came with it.

        Raises:
            RuntimeError: The answer is no stream.
        """
        # Equal bodies at the same time would be taken for one that was sent twice.
        body = f'{{"messages":[{{"type":"user","text":"hello {next(_numbers)}"}}]}}'
        head = f"POST {COMPLETE} HTTP/1.1\r\nHost: {self._host}\r\n{self._bearer}\r\n"
        head += (
            f"Accept: application/jsonl\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        began = time.perf_counter()
        self._socket.sendall(f"{head}\r\n{body}".encode())
        have = b""
        while not have.partition(b"\r\n\r\n")[2]:
            came = self._socket.recv(65_536)
            have += came
            if not came or not have.startswith(b"HTTP/1.1 200"[: len(have)]):
                message = f"no stream: {have!r}"
                raise RuntimeError(message)
        return time.perf_counter() - began, have.partition(b"\r\n\r\n")[2]

    def finish(self, have: bytes) -> None:
        """Hear a stream to its end."""
        while not have.endswith(b"0\r\n\r\n"):
            came = self._socket.recv(65_536)
            if not came:
                message = "a stream broke off"
                raise RuntimeError(message)
            have = have[-8:] + came


def first_byte_s(listener: Listener, count: int) -> float:
    """The median over some streams, one after the other."""
    spent = []
    for _ in range(count):
        first_s, have = listener.begin()
        spent.append(first_s)
        listener.finish(have)
    return statistics.median(spent)


def sync_s(count: int = 50) -> float:
    """The median time that appending a line and having the disk keep it takes, where the journals are."""
    spent = []
    with tempfile.TemporaryFile() as file:
        for _ in range(count):
            began = time.perf_counter()
            os.write(file.fileno(), b"x" * 400)
            os.fdatasync(file.fileno())
            spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def figures(rounds: int, count: int = 50) -> list[Figure]:
    """Streams directly and through gateways, in turn; `count` of each per round."""
    (port,) = contestants.free_ports(1)
    with contextlib.ExitStack() as stack:
        behind = stack.enter_context(contestants.streaming(port, _EVERY_S, _PIECES))
        plain = stack.enter_context(contestants.gateway(port))
        unaudited = stack.enter_context(contestants.gateway(port, "audit.enabled=false"))
        listeners = {
            "direct": Listener(behind.url, plain.bearer("wide")),
            "audited": Listener(plain.url, plain.bearer("wide")),
            "not audited": Listener(unaudited.url, unaudited.bearer("wide")),
        }
        for one in listeners.values():
            stack.callback(one.close)
            first_byte_s(one, 20)
        found: dict[str, list[float]] = {name: [] for name in listeners}
        syncs = []
        for number in range(rounds):
            syncs.append(sync_s() * 1e3)
            for name in listeners if number % 2 == 0 else reversed(listeners):
                found[name].append(first_byte_s(listeners[name], count) * 1e3)
                sys.stderr.write(f"{number + 1}/{rounds} first byte, {name:24} {found[name][-1]:.3f} ms\n")

    def added(name: str) -> tuple[float, ...]:
        return tuple(one - direct for one, direct in zip(found[name], found["direct"], strict=True))

    return [
        Figure("added to a stream's first byte", added("audited"), FIRST_BYTE_MS, "ms", is_kept=False),
        Figure("the same without audit", added("not audited"), None, "ms", is_kept=False),
        Figure("one sync of the disk, for comparison", tuple(syncs), None, "ms", is_kept=False),
    ]

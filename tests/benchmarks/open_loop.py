"""Requests at a fixed rate, whatever the answers do: latency as independent clients have it.

    python -m benchmarks.open_loop URL [--rate N] [--seconds S] [--connections N] [--header H ...]

Every request has its time before the run begins, and its latency is counted from that time: a server that
stalls pays for all who would have come meanwhile (a generator that waits for the answer before it sends the
next one hides them). `{n}` in the URL becomes another word with every request. Runs in a process of its own
and prints one line of JSON.

It waits with `select`, which keeps microseconds, where event loops round their timers to milliseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import gc
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from urllib.parse import urlsplit

from benchmarks.contestants import ENVIRONMENT

_TIMER_SLACK = 29  # prctl(2), PR_SET_TIMERSLACK
_PATIENCE_S = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Latencies:
    """What a run showed; times in milliseconds, counted from the time a request was due.

    Attributes:
        count: Answers.
        others: Answers that were not 200.
        p50_ms: Half of the answers took at most this.
        p99_ms: Ninety-nine of a hundred did.
        most_ms: All did.
        late_p99_ms: How late the generator itself sent: what of the above may be its own.
    """

    count: int
    others: int
    p50_ms: float
    p99_ms: float
    most_ms: float
    late_p99_ms: float


class Lane:
    """One connection, with at most one request under way."""

    __slots__ = ("_have", "_need", "_socket", "due", "status")

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._have = b""
        self._need = 0
        self.due = 0.0
        self.status = b""

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due at some time."""
        self.due, self._have, self._need = due, b"", 0
        self._socket.sendall(request)

    def receive(self) -> bool:
        """Take what came; whether the answer is complete.

        Raises:
            ConnectionError: The server closed the connection.
        """
        came = self._socket.recv(262_144)
        if not came:
            message = "the server closed a connection"
            raise ConnectionError(message)
        self._have += came
        if not self._need:
            end = self._have.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = self._have[:end].lower()
            self.status = head[9:12]
            place = head.find(b"\r\ncontent-length:")
            length = int(head[place + 17 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            self._need = end + 4 + length
        return len(self._have) >= self._need


def percentile(ordered: list[float], share: float) -> float:
    """The value that `share` of the ordered values do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def run(url: str, headers: tuple[str, ...], rate: float, seconds: float, connections: int) -> Latencies:
    """Send at a rate and wait for all answers.

    Args:
        url: Where to; `{n}` becomes another word each time.
        headers: Header lines, without line ends.
        rate: Requests per second.
        seconds: For how long.
        connections: How many; requests that find none idle wait, and their wait counts.

    Raises:
        TimeoutError: No answer came for ten seconds.
        ConnectionError: The server closed a connection.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = "".join(f"{line}\r\n" for line in (f"Host: {host}:{port}", *headers))
    word = f"{os.getpid()}x{time.monotonic_ns()}x"
    lanes = [Lane(host, port) for _ in range(connections)]
    total = round(rate * seconds)
    requests = [
        f"GET {target.replace('{n}', f'{word}{number}')} HTTP/1.1\r\n{lines}\r\n".encode()
        for number in range(total if "{n}" in target else 1)
    ]
    try:
        return _sent(lanes, requests, 1.0 / rate, total)
    finally:
        for lane in lanes:
            lane.close()


def _sent(lanes: list[Lane], requests: list[bytes], every_s: float, total: int) -> Latencies:
    idle, busy, waiting = deque(lanes), list[Lane](), deque[tuple[int, float]]()
    latencies, late = list[float](), list[float]()
    others = sent = 0
    clock = time.perf_counter
    gc.disable()
    start = clock() + 0.05
    while len(latencies) < total:
        now = clock()
        while sent < total and start + sent * every_s <= now:
            waiting.append((sent, start + sent * every_s))
            late.append(now - waiting[-1][1])
            sent += 1
        while waiting and idle:
            number, due = waiting.popleft()
            lane = idle.popleft()
            lane.send(requests[number % len(requests)], due)
            busy.append(lane)
        wait_s = max(0.0, start + sent * every_s - clock()) if sent < total else _PATIENCE_S
        ready, _, _ = select.select(busy, (), (), wait_s)
        if not ready and sent == total:
            message = f"{len(busy)} requests were not answered"
            raise TimeoutError(message)
        for lane in ready:
            if lane.receive():
                latencies.append(clock() - lane.due)
                others += lane.status != b"200"
                busy.remove(lane)
                idle.append(lane)
    gc.enable()
    latencies.sort()
    late.sort()
    p50, p99, most = (percentile(latencies, share) * 1e3 for share in (0.5, 0.99, 1.0))
    return Latencies(total, others, p50, p99, most, percentile(late, 0.99) * 1e3)


def measured(
    url: str, headers: tuple[str, ...], *, rate: float, seconds: float, connections: int = 16
) -> Latencies:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.open_loop", url, f"--rate={rate}", f"--seconds={seconds}"]
    command += [f"--connections={connections}", *(f"--header={one}" for one in headers)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT).stdout
    return Latencies(**json.loads(told))


def main() -> int:
    """Run once and print what was seen."""
    parser = argparse.ArgumentParser(prog="benchmarks.open_loop")
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--header", action="append", default=[])
    asked = parser.parse_args()
    if sys.platform == "linux":
        # The kernel groups wake-ups within 50 microseconds to save power: as much as what is measured.
        ctypes.CDLL(None).prctl(_TIMER_SLACK, 1, 0, 0, 0)
    found = run(asked.url, tuple(asked.header), asked.rate, asked.seconds, asked.connections)
    sys.stdout.write(json.dumps(dataclasses.asdict(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""CPU per forwarded request: this gateway's transport against aiohttp's client session, in one run.

    python tests/benchmarks/bench_upstream.py [requests per round] [rounds]

Both talk to the same raw upstream in a process of its own, with the same request and the same settings an
intermediary needs. CPU is this process's own; rounds alternate, so that a noisy neighbour hurts both; the
ratio is the median over rounds. Seconds on shared machines mean little, their ratio does.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import uvloop
from yarl import URL

from cbk_gateway.operation import understand
from cbk_gateway.upstream import Call, Upstream, UpstreamOptions

BODY = b'{"items":[' + b",".join(b'{"id":"bot_%03d","name":"x"}' % n for n in range(50)) + b"]}"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\n"
    b"Vary: Accept\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
HEADERS = [
    ("Host", "127.0.0.1"),
    ("Authorization", "Bearer sk-0123456789abcdef0123456789abcdef"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "identity"),
    ("User-Agent", "node"),
    ("X-Request-Id", "01HZX3V5T8QJ4C9W2M6N7P0R1S"),
]
LANES = 16
Send = Callable[[], Awaitable[None]]


class Canned(asyncio.Protocol):
    """Answers every request head with the same bytes."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))


def serve(listener: socket.socket) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Canned, sock=listener)
        await server.serve_forever()

    uvloop.run(main())


def report(line: str) -> None:
    sys.stdout.write(line + "\n")


async def cpu_per_request(send: Send, requests: int) -> float:
    """Microseconds of CPU of this process per request, over `LANES` at a time."""

    async def lane() -> None:
        for _ in range(requests // LANES):
            await send()

    began = time.process_time()
    await asyncio.gather(*(lane() for _ in range(LANES)))
    return (time.process_time() - began) / (requests // LANES * LANES) * 1e6


async def measure(port: int, requests: int, rounds: int) -> None:
    base = f"http://127.0.0.1:{port}"
    operation = understand("GET", "/api/v1/bot/list?take=50")
    upstream = Upstream(UpstreamOptions(url=base))
    await upstream.start()
    session = aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        skip_auto_headers={"User-Agent", "Accept", "Accept-Encoding", "Content-Type"},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60),
    )
    url = URL(f"{base}/api/v1/bot/list?take=50", encoded=True)

    async def ours() -> None:
        async with await upstream.send(Call(operation, HEADERS, account="a")) as answer:
            assert len(await answer.read(1 << 20)) == len(BODY)

    async def theirs() -> None:
        async with session.request("GET", url, headers=HEADERS, allow_redirects=False) as answer:
            assert len(await answer.read()) == len(BODY)

    pairs = []
    for number in range(rounds + 1):
        pair = (await cpu_per_request(ours, requests), await cpu_per_request(theirs, requests))
        if number:  # the first round warms up
            pairs.append(pair)
            report(f"{number}: {pair[0]:6.1f} us, aiohttp {pair[1]:6.1f} us, {pair[0] / pair[1]:.2f}")
    ratios = [ours_us / theirs_us for ours_us, theirs_us in pairs]
    report(
        f"median: ours {statistics.median(a for a, _ in pairs):.1f} us, "
        f"aiohttp {statistics.median(b for _, b in pairs):.1f} us, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    await session.close()
    await upstream.stop()


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    listener = socket.create_server(("127.0.0.1", 0))
    server = multiprocessing.get_context("fork").Process(target=serve, args=(listener,), daemon=True)
    server.start()
    try:
        for name, factory in (("uvloop", uvloop.new_event_loop), ("asyncio", asyncio.new_event_loop)):
            report(f"{name}:")
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(measure(listener.getsockname()[1], requests, rounds))
    finally:
        server.terminate()
        server.join()
        listener.close()


if __name__ == "__main__":
    main()

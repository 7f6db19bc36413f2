"""What the gateway keeps in memory: per idle connection, idle stream, remembered answer, and over time.

Connections and streams are counted from outside, by the kernel: the proportional set size (proc(5),
smaps_rollup) before and after, each in a fresh gateway, since memory once used is used again. What an answer
takes is counted from inside, in this process, where the body's bytes are known exactly.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import resource
import socket
import sys
import time
import tracemalloc
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import contestants
from benchmarks.contestants import Contestant
from benchmarks.figure import Figure
from benchmarks.ladder import BYPASS, LIST
from benchmarks.load import Load, measure
from benchmarks.streams import Listener
from cbk_gateway.cache import Cache, CacheKeyParts, CacheOptions, Fill
from cbk_gateway.operation import understand
from cbk_gateway.store import EmbeddedServer, StoreOptions, open_store

CONNECTIONS, STREAMS, ANSWERS = 2000, 500, 1000
CONNECTION_KB, STREAM_KB, OVERHEAD_SHARE, GROWTH_PERCENT = 12.0, 40.0, 0.15, 3.0
PAGE_BYTES, SMALL_BYTES = 16_384, 1_600
_WARM = 50
# Until then the bounded books of a worker fill up, and its allocator finds its size.
SOAK = 150_000
# A bit of everything: of five requests one is known by its bytes, one is forwarded, one is new, one is
# refused for its token, and one takes the cache's whole way because it says something that changes nothing.
MIXED = f"""local start, count = os.time(), 0
local known, odd = wrk.headers["Authorization"], wrk.headers["Authorization"] .. "x"
request = function()
  count = count + 1
  local turn = count % 5
  local headers = {{ Authorization = turn == 3 and odd or known }}
  if turn == 1 or turn == 2 then headers["{BYPASS.partition(":")[0]}"] = "bypass" end
  if turn == 4 then headers["User-Agent"] = "n" .. start .. count end
  return wrk.format(nil, wrk.path .. (turn == 2 and "?cursor=c" .. start .. count or ""), headers)
end
"""


def resident_kb(pid: int) -> float:
    """Kilobytes (1,000 bytes) of memory of one process, shared pages in part."""
    said = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss: +(\d+) kB", said, re.MULTILINE)
    if found is None:
        message = f"the kernel says nothing of process {pid}"
        raise RuntimeError(message)
    return int(found[1]) * 1.024


def settled_kb(pid: int) -> float:
    """The same once it has stood still for half a second, five seconds later at the latest."""
    last, still = resident_kb(pid), 0
    for _ in range(50):
        time.sleep(0.1)
        now = resident_kb(pid)
        still = still + 1 if abs(now - last) < 50 else 0
        last = now
        if still == 5:
            break
    return last


def _asked_once(one: Contestant) -> socket.socket:
    """A connection that got one answer and is silent since."""
    parts = urlsplit(one.url)
    opened = socket.create_connection((parts.hostname, parts.port or 80), timeout=20)
    head = f"GET {LIST} HTTP/1.1\r\nHost: {parts.netloc}\r\n{one.bearer('wide')}\r\n\r\n"
    opened.sendall(head.encode())
    have = b""
    while not have.endswith(b"}"):
        have += opened.recv(65_536)
    return opened


def connection_kb(count: int = CONNECTIONS) -> float:
    """Kilobytes that an idle connection holds."""
    (port,) = contestants.free_ports(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contestants.upstream(port))
        one = stack.enter_context(contestants.gateway(port))
        for _ in range(_WARM):
            stack.enter_context(_asked_once(one))
        before = settled_kb(one.pid)
        for _ in range(count):
            stack.enter_context(_asked_once(one))
        return (settled_kb(one.pid) - before) / count


def stream_kb(count: int = STREAMS) -> float:
    """Kilobytes that a stream holds which has begun and is silent, with both of its connections."""
    (port,) = contestants.free_ports(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contestants.streaming(port, 600.0, 2))
        one = stack.enter_context(contestants.gateway(port))

        def begin() -> None:
            listener = Listener(one.url, one.bearer("wide"))
            stack.callback(listener.close)
            listener.begin()

        for _ in range(_WARM):
            begin()
        before = settled_kb(one.pid)
        for _ in range(count):
            begin()
        return (settled_kb(one.pid) - before) / count


async def overhead_share(body_bytes: int, count: int = ANSWERS) -> float:
    """What a remembered answer takes beyond its body, as a part of the body."""
    parts = CacheKeyParts("acme", "key", None, "application/json", "")
    headers = (("Content-Type", "application/json"),)
    with EmbeddedServer() as server:
        async with await open_store(StoreOptions(url=server.url, call_timeout_s=2.0)) as store:
            cache = Cache(store, CacheOptions(account_share=1.0))
            await cache.start()
            while not cache.is_live:
                await asyncio.sleep(0.01)

            async def fill(first: int, last: int) -> None:
                for number in range(first, last):
                    found = await cache.recall(understand("GET", f"/v1/bot/b{number}/fetch"), parts)
                    if not isinstance(found, Fill):
                        message = "an answer is there that nobody gave"
                        raise TypeError(message)
                    await found.store(200, headers, b'{"id":"%06d"}' % number + b" " * (body_bytes - 15))

            await fill(0, _WARM)
            gc.collect()
            tracemalloc.start()
            await fill(_WARM, _WARM + count)
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            await cache.stop()
    payload = count * (body_bytes)
    return (taken - payload) / payload


def growth_percent(requests: int, folder: Path) -> float:
    """How much of its memory a gateway gains over mixed requests, after the warm-up."""
    (port,) = contestants.free_ports(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contestants.upstream(port))
        one = stack.enter_context(contestants.gateway(port, "cache.l1_max_bytes=4194304"))
        load = Load(one.url + LIST, (one.bearer("reader"),), seconds=2, lua=MIXED)

        def serve(wanted: int) -> None:
            served = 0
            while served < wanted:
                served += measure(load, one.pid, folder).count
                sys.stderr.write(f"{served:,} of {wanted:,} mixed requests: {resident_kb(one.pid):,.0f} kB\n")

        serve(SOAK)
        before = settled_kb(one.pid)
        serve(requests)
        return (settled_kb(one.pid) - before) / before * 100


def figures(requests: int, folder: Path, *, has_wrk: bool) -> list[Figure]:
    """All of it, once: bytes need no rounds.

    Args:
        requests: How many the growth is watched over.
        folder: For files of the measurement.
        has_wrk: Whether there is anything to make them with.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The gateway inherits it.
    wanted = 4 * CONNECTIONS
    if 0 <= soft < wanted:
        limit = hard if 0 <= hard < wanted else wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    large, small = (asyncio.run(overhead_share(size)) for size in (PAGE_BYTES, SMALL_BYTES))
    found = [
        Figure("memory of an idle connection", (connection_kb(),), CONNECTION_KB, "kB"),
        Figure("memory of an idle stream", (stream_kb(),), STREAM_KB, "kB"),
        Figure(f"memory beyond the body of {PAGE_BYTES:,} bytes", (large,), OVERHEAD_SHARE),
        Figure(f"memory beyond the body of {SMALL_BYTES:,} bytes", (small,)),
    ]
    if has_wrk:
        title = f"memory gained over {requests:,} mixed requests"
        found.append(Figure(title, (growth_percent(requests, folder),), GROWTH_PERCENT, "%", is_kept=False))
    return found

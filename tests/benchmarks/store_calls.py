"""What reads ask of the store: its own count of messages read, before and after.

A read of the store's sockets is a round trip: what a gateway sends in one pipeline arrives as one. What
gateways send unasked (heartbeats, roll calls) is taken out of cold reads by what an idle while showed, and
left in where the requests are many.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import redis

from benchmarks import contestants
from benchmarks.figure import Figure
from benchmarks.ladder import LIST
from benchmarks.open_loop import measured
from cbk_gateway.store import EmbeddedServer

HOT = 0.05
# One, and what the clock cuts off at either end of a measurement.
COLD = 1.05
_IDLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the store had read from its sockets at some time."""

    at: float
    reads: float


def look(client: redis.Redis) -> Seen:
    """The count now."""
    return Seen(time.monotonic(), float(client.info("stats")["total_reads_processed"]))


def figures(rounds: int, seconds: float, rate: float = 1000.0) -> list[Figure]:
    """Repeated reads at a rate, as a tenant with a rate of its own; then reads that nobody asked before."""
    (port,) = contestants.free_ports(1)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer())
        stack.enter_context(contestants.upstream(port))
        one = stack.enter_context(contestants.gateway(port, f"store.url={server.url}"))
        forgetful = stack.enter_context(
            contestants.gateway(port, f"store.url={server.url}", "cache.l1_max_bytes=0")
        )
        client = redis.Redis.from_url(server.url)
        stack.callback(client.close)
        paced, reader = (one.bearer("paced"),), (one.bearer("reader"),)
        new = f"{one.url}{LIST}?cursor={{n}}"
        measured(one.url + LIST, paced, rate=rate, seconds=1)
        measured(new, reader, rate=100, seconds=1)
        elsewhere = (forgetful.url + LIST, (forgetful.bearer("wide"),))
        measured(*elsewhere, rate=100, seconds=1, connections=1)
        before = look(client)
        time.sleep(_IDLE_S)
        after = look(client)
        idle_s = (after.reads - before.reads) / (after.at - before.at)
        hot, found, missed = list[float](), list[float](), list[float]()
        for _ in range(rounds):
            before = look(client)
            told = measured(one.url + LIST, paced, rate=rate, seconds=seconds)
            hot.append((look(client).reads - before.reads) / told.count)
            for seen, url, headers in ((found, *elsewhere), (missed, new, reader)):
                before = look(client)
                told = measured(url, headers, rate=200, seconds=1, connections=1)
                after = look(client)
                unasked = idle_s * (after.at - before.at)
                seen.append((after.reads - before.reads - unasked) / told.count)
    return [
        Figure(f"store round trips per repeated read, {rate:,.0f}/s of one tenant", tuple(hot), HOT),
        Figure("store round trips per read that the store answers", tuple(found), COLD),
        Figure("store round trips per read that nobody asked before, its keeping included", tuple(missed)),
    ]

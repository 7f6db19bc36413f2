"""The feature ladder: what is measured in a closed loop, from the bare upstream to everything, and the peers.

Each rung adds something to the one before: the upstream, a bare server of the same library, a gateway that
only checks tokens, one that also limits, a miss, a hit in the store, a hit in memory, and the hot path. Loads
and processes only; `report.py` says what is compared with what.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
from pathlib import Path

from benchmarks import contestants, report
from benchmarks.contestants import Contestant
from benchmarks.load import Load, measure

LIST = "/api/v1/bot/list"
# Equal creates at the same time are taken for one that was sent twice, so every body is another.
NEW_BODY = """local start, count = os.time(), 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  count = count + 1
  return wrk.format(nil, nil, nil, '{"name":"Ada ' .. start .. "-" .. count .. '","description":"made"}')
end
"""
NEW_QUERY = """local start, count = os.time(), 0
request = function()
  count = count + 1
  return wrk.format(nil, wrk.path .. "?cursor=c" .. start .. "-" .. count)
end
"""
BYPASS = "X-CBK-Cache: bypass"
# Only what a token asks for: no cache, no journal, no metrics, no hot path.
LEAST = ("cache.enabled=false", "audit.enabled=false", "telemetry.metrics=false", "listen.hot_path=off")


@dataclasses.dataclass(frozen=True, slots=True)
class Rung:
    """One thing to measure: a load and the process that pays for it."""

    name: str
    contestant: Contestant
    load: Load


def asking(one: Contestant, tenant: str, *headers: str, lua: str = "") -> Load:
    """A load on the list, as a tenant."""
    return Load(one.url + LIST, (one.bearer(tenant), *headers), lua=lua)


def writing(one: Contestant) -> Load:
    """A load of writes."""
    return Load(f"{one.url}/api/v1/bot/create", (one.bearer("writer"),), connections=64, lua=NEW_BODY)


def rungs_of(stack: contextlib.ExitStack, folder: Path, packages: Path) -> list[Rung]:
    """Start everybody and say what each is to be asked."""
    port, bare_port = contestants.free_ports(2)
    behind = stack.enter_context(contestants.upstream(port))
    floor = stack.enter_context(contestants.bare(bare_port))

    def gateway(*changes: str) -> Contestant:
        return stack.enter_context(contestants.gateway(port, *changes))

    plain = gateway()
    least = gateway(*LEAST)
    shared = gateway("cache.l1_max_bytes=0")
    cold = gateway("listen.hot_path=off")
    uncounted = gateway("telemetry.metrics=false")
    unaudited = gateway("audit.enabled=false")
    logged = gateway("logging.access=true")
    rungs = [
        Rung("upstream alone", behind, Load(behind.url + LIST, ())),
        Rung("bare", floor, Load(floor.url + LIST, ())),
        Rung("token only", least, asking(least, "free")),
        Rung("token and limit", least, asking(least, "wide")),
        Rung("miss", plain, asking(plain, "reader", lua=NEW_QUERY)),
        Rung("hit in the store", shared, asking(shared, "wide")),
        Rung("cached, hot path off", cold, asking(cold, "wide")),
        Rung("cached", plain, asking(plain, "wide")),
        Rung("cached, no rate", plain, asking(plain, "free")),
        Rung("cached, no metrics", uncounted, asking(uncounted, "wide")),
        Rung("cached, a line in the log each", logged, asking(logged, "wide")),
        Rung("forwarded", plain, asking(plain, "wide", BYPASS)),
        Rung("forwarded, no metrics", uncounted, asking(uncounted, "wide", BYPASS)),
        Rung("forwarded, new each time", plain, asking(plain, "reader", BYPASS, lua=NEW_QUERY)),
        Rung("refused 429", plain, asking(plain, "narrow")),
        Rung("refused 401", plain, Load(plain.url + LIST, (plain.bearer("wide") + "x",))),
        Rung("write audited", plain, writing(plain)),
        Rung("write", unaudited, writing(unaudited)),
    ]
    if contestants.has_exporter():
        # The upstream answers whatever it is sent with 200, so it will do as a collector.
        tracing = f'{{enabled: true, endpoint: "{behind.url}/v1/traces"}}'
        traced = gateway(f"telemetry.tracing={tracing}")
        rungs += [
            Rung("cached, traced", traced, asking(traced, "wide")),
            Rung("forwarded, traced", traced, asking(traced, "wide", BYPASS)),
        ]
    return rungs + _peers(stack, port, folder, packages, plain.bearer("wide"))


def _peers(stack: contextlib.ExitStack, port: int, folder: Path, packages: Path, bearer: str) -> list[Rung]:
    rungs = []
    if contestants.has_nginx():
        cached, forwarded = stack.enter_context(contestants.nginx(port, folder / "nginx"))
        rungs += [
            Rung("nginx cached", cached, Load(cached.url + LIST, (bearer,))),
            Rung("nginx forwarded", forwarded, Load(forwarded.url + LIST, (bearer,))),
        ]
    if shutil.which("npm"):
        node = stack.enter_context(contestants.fastify(port, packages))
        rungs.append(Rung("fastify", node, Load(node.url + LIST, (bearer,))))
    return rungs


def climb(rounds: int, seconds: int, only: list[str], folder: Path, packages: Path) -> report.Rounds:
    """Measure every rung in every round; every other round goes downwards.

    Args:
        rounds: How many.
        seconds: Of each measurement, whole ones.
        only: Words of the names wanted; all when empty.
        folder: For files of the measurement.
        packages: Where packages of Node are kept from one run to the next.
    """
    found: report.Rounds = {}
    with contextlib.ExitStack() as stack:
        rungs = rungs_of(stack, folder, packages)
        chosen = [one for one in rungs if not only or any(word in one.name for word in only)]
        for one in chosen:
            measure(dataclasses.replace(one.load, seconds=1), one.contestant.pid, folder)
        for number in range(rounds):
            for one in chosen if number % 2 == 0 else reversed(chosen):
                load = dataclasses.replace(one.load, seconds=seconds)
                reading = measure(load, one.contestant.pid, folder)
                found.setdefault(one.name, []).append(dataclasses.asdict(reading))
                sys.stderr.write(f"{number + 1}/{rounds} {one.name:24} {reading}\n")
    return {one.name: found[one.name] for one in chosen}

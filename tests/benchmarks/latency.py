"""What the gateway adds to the time of an answer, at a fixed rate, over the same upstream asked directly.

Also reads, from the gateway's own metrics, how late its event loop ran meanwhile.
"""

from __future__ import annotations

import contextlib
import re
import sys
import urllib.request

from benchmarks import contestants
from benchmarks.contestants import Contestant
from benchmarks.figure import Figure
from benchmarks.ladder import BYPASS, LIST
from benchmarks.open_loop import Latencies, measured

RATE = 1000.0
P50_MS, P99_MS = 0.25, 1.5
DIRECT = "direct"
_LAG = re.compile(r'event_loop_lag_seconds_bucket\{[^}]*le="([^"]+)"[^}]*\} (\S+)')


def figures(rounds: int, seconds: float) -> list[Figure]:
    """Ask the upstream and the gateway in turn, in every round.

    Args:
        rounds: How many.
        seconds: Of each measurement.
    """
    (port,) = contestants.free_ports(1)
    with contextlib.ExitStack() as stack:
        behind = stack.enter_context(contestants.upstream(port))
        one = stack.enter_context(contestants.gateway(port))
        wide, list_url = one.bearer("wide"), one.url + LIST
        asked: dict[str, tuple[str, tuple[str, ...]]] = {
            DIRECT: (behind.url + LIST, (wide,)),
            "cached": (list_url, (wide,)),
            "forwarded": (list_url, (wide, BYPASS)),
            "forwarded, new each time": (f"{list_url}?cursor={{n}}", (one.bearer("reader"), BYPASS)),
        }
        for url, headers in asked.values():
            measured(url, headers, rate=RATE, seconds=1)
        before = lags(one)
        found: dict[str, list[Latencies]] = {name: [] for name in asked}
        for number in range(rounds):
            for name in asked if number % 2 == 0 else reversed(asked):
                url, headers = asked[name]
                told = measured(url, headers, rate=RATE, seconds=seconds)
                if told.others:
                    message = f"{name}: {told.others} of {told.count} answers were not 200"
                    raise RuntimeError(message)
                found[name].append(told)
                sys.stderr.write(f"{number + 1}/{rounds} open loop, {name:24} {told}\n")
        lag_p99_ms = quantile(before, lags(one), 0.99) * 1e3
    return [
        *(added(name, found, is_p99=is_p99) for name in asked if name != DIRECT for is_p99 in (False, True)),
        Figure("event loop lag during the open loop, p99", (lag_p99_ms,), unit="ms", is_kept=False),
    ]


def added(name: str, found: dict[str, list[Latencies]], *, is_p99: bool) -> Figure:
    """What one kind of request took beyond the direct call of its round."""
    pairs = zip(found[name], found[DIRECT], strict=True)
    if is_p99:
        values = [one.p99_ms - direct.p99_ms for one, direct in pairs]
    else:
        values = [one.p50_ms - direct.p50_ms for one, direct in pairs]
    rate = f"{RATE:,.0f} requests/s"
    title = f"added at {rate}, {name}, {'p99' if is_p99 else 'p50'}"
    return Figure(title, tuple(values), P99_MS if is_p99 else P50_MS, "ms", is_kept=False)


def lags(one: Contestant) -> dict[float, float]:
    """The event loop's lags so far: how many were at most so many seconds."""
    with urllib.request.urlopen(f"{one.admin}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {float(bound): float(count) for bound, count in _LAG.findall(text)}


def quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """The upper end of the bucket that the quantile of what came between lies in, in seconds."""
    grown = {bound: count - before.get(bound, 0.0) for bound, count in sorted(after.items())}
    whole = max(grown.values(), default=0.0)
    return next((bound for bound, count in grown.items() if count >= whole * share), float("nan"))

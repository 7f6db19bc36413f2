"""Audited against unaudited writes through whole gateways in processes of their own, loaded by wrk.

Two gateways stand side by side, one with its journal and one without, and take turns in short slices, so
that both meet the same machine. Every body is another: equal creates at a time are taken for repetitions
of one, and would share its record.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import orjson

from benchmarks import contestants
from benchmarks.contestants import Contestant
from benchmarks.load import Load, Reading, measure

SLICES = 10
BODIES = """local count = 0
request = function()
  count = count + 1
  local body = string.format('{"name":"%s-%d","description":"made by a benchmark"}', RUN, count)
  return wrk.format("POST", nil, {["Content-Type"] = "application/json", AUTH}, body)
end
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """One number of connections, with the journal and without: medians over the slices."""

    connections: int
    off_per_s: float
    on_per_s: float
    ratio: float
    ratios: tuple[float, float]
    p50_added_ms: float
    p99_added_ms: float
    cpu_added_us: float
    group_mean: float
    group_p50: float
    group_p99: float


def compare(folder: Path, connections: int, seconds: float) -> Compared:
    """Measure both gateways in turns."""
    journal = folder / f"outside-{connections}"
    port, *_ = contestants.free_ports(1)
    with (
        _upstream(port),
        contestants.gateway(port, f"audit.directory={journal}") as on,
        contestants.gateway(port, "audit.enabled=false") as off,
    ):
        pairs: list[tuple[Reading, Reading]] = []
        for turn in range(SLICES + 1):
            readings = [_slice(one, f"{turn}", connections, seconds, folder) for one in (on, off)]
            if turn:  # the first warms both up
                pairs.append((readings[0], readings[1]))
    ratios = sorted(with_.per_second / without.per_second for with_, without in pairs)
    sizes = list(group_sizes(journal))
    marks = statistics.quantiles(sizes, n=100)
    return Compared(
        connections=connections,
        off_per_s=statistics.median(without.per_second for _, without in pairs),
        on_per_s=statistics.median(with_.per_second for with_, _ in pairs),
        ratio=statistics.median(ratios),
        ratios=(ratios[0], ratios[-1]),
        p50_added_ms=statistics.median(w.p50_us - o.p50_us for w, o in pairs) / 1000,
        p99_added_ms=statistics.median(w.p99_us - o.p99_us for w, o in pairs) / 1000,
        cpu_added_us=statistics.median(w.cpu_us - o.cpu_us for w, o in pairs),
        group_mean=statistics.fmean(sizes),
        group_p50=marks[49],
        group_p99=marks[98],
    )


def group_sizes(journal: Path) -> Iterator[int]:
    """Records per sync, as the marks in the journal say where each group began."""
    for path in sorted(journal.rglob("*.jsonl")):
        lines = path.read_bytes().splitlines()
        begun = [number for number, line in enumerate(lines) if "batch" in orjson.loads(line)]
        yield from (after - before for before, after in pairwise(begun))


def _slice(one: Contestant, run: str, connections: int, seconds: float, folder: Path) -> Reading:
    bodies = BODIES.replace("RUN", f'"{run}"').replace(
        "AUTH", f'["Authorization"] = "Bearer {one.tokens["writer"]}"'
    )
    slice_s = max(1, round(seconds / SLICES))  # wrk takes whole seconds
    load = Load(f"{one.url}/api/v1/bot/create", (), connections=connections, seconds=slice_s, lua=bodies)
    reading = measure(load, one.pid, folder)
    if reading.others:
        message = f"{reading.others} writes were refused"
        raise RuntimeError(message)
    return reading


@contextmanager
def _upstream(port: int) -> Iterator[None]:
    script = str(Path(__file__).with_name("bench_audit_upstream.py"))
    with subprocess.Popen([sys.executable, script, str(port)], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        try:
            yield
        finally:
            running.terminate()

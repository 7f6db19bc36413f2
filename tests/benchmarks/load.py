"""One load against one process: wrk from outside, CPU time from the kernel's own accounting.

What is compared between contestants is CPU time per request, which other work on the machine hardly moves;
throughput and latency of one run are shown, and compared within a run only.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MICROS = {"us": 1.0, "ms": 1e3, "s": 1e6}


@dataclass(frozen=True, slots=True)
class Reading:
    """What one load showed.

    Attributes:
        cpu_us: CPU microseconds per request of the process and its children.
        per_second: Requests per second.
        count: Requests.
        p50_us: Half of the answers took at most this.
        p99_us: Ninety-nine of a hundred did.
        others: Answers that were not 2xx or 3xx.
    """

    cpu_us: float
    per_second: float
    count: int
    p50_us: float
    p99_us: float
    others: int


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop of requests, for whole seconds; `lua` is a wrk script, where they are not all alike."""

    url: str
    headers: tuple[str, ...]
    connections: int = 32
    seconds: float = 2
    lua: str = ""


def measure(load: Load, pid: int, scratch: Path) -> Reading:
    """Run a load and read what it cost `pid` and its children.

    Raises:
        RuntimeError: wrk said nothing that can be read.
    """
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{load.seconds:g}s", "--latency"]
    for header in load.headers:
        command += ["-H", header]
    if load.lua:
        script = scratch / "load.lua"
        script.write_text(load.lua)
        command += ["-s", str(script)]
    before = cpu_ticks(pid)
    # S603: a fixed program with arguments of our own.
    said = subprocess.run([*command, load.url], capture_output=True, text=True, check=True).stdout
    spent = cpu_ticks(pid) - before
    requests = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if requests is None or rate is None:
        message = f"wrk failed: {said}"
        raise RuntimeError(message)
    others = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return Reading(
        cpu_us=spent / _TICKS_PER_S * 1e6 / max(1, int(requests[1])),
        per_second=float(rate[1]),
        count=int(requests[1]),
        p50_us=_percentile(said, "50"),
        p99_us=_percentile(said, "99"),
        others=int(others[1]) if others else 0,
    )


def cpu_ticks(pid: int) -> int:
    """User and system time of a process and its children so far, in clock ticks (proc(5), stat)."""
    total = 0
    for one in (pid, *_children(pid)):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


def _children(pid: int) -> list[int]:
    named = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    # The embedded store is no part of what is compared: contestants count in their own memory.
    return [int(one) for one in named if "valkey" not in Path(f"/proc/{one}/comm").read_text()]


def _percentile(said: str, name: str) -> float:
    found = re.search(rf"^\s+{name}%\s+([\d.]+)(us|ms|s)", said, re.MULTILINE)
    return float(found[1]) * _MICROS[found[2]] if found else float("nan")

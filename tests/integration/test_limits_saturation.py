"""Four processes at saturation: nothing over the limit in any window, little under it, few round trips."""

from __future__ import annotations

import asyncio
import bisect
import math
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from cbk_gateway.store import Store

WORKERS = 4


async def _start(
    url: str, rate: float, burst: float, seconds: float, quota: int
) -> asyncio.subprocess.Process:
    """Start one worker; returns when it is ready to begin."""
    program = str(Path(__file__).with_name("limits_worker.py"))
    words = (program, url, *(repr(one) for one in (rate, burst, seconds, quota)))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def _results(workers: list[asyncio.subprocess.Process]) -> list[dict[str, Any]]:
    """Let all begin at the same instant, and collect what they saw."""
    begin = f"{time.monotonic() + 0.2!r}\n".encode()
    outputs = await asyncio.gather(*(worker.communicate(begin) for worker in workers))
    return [orjson.loads(output) for output, _ in outputs]


def over_admitted(admitted: list[tuple[float, float]], rate: float, burst: float) -> float:
    """The most requests admitted beyond burst + rate * window, over all windows.

    A request was decided between asking and being answered: only a window with both surely holds it.
    """
    befores, afters = sorted(one[0] for one in admitted), sorted(one[1] for one in admitted)
    lowest = [math.inf]
    for i, before in enumerate(befores):
        lowest.append(min(lowest[-1], i - rate * before))
    worst = -math.inf
    for j, after in enumerate(afters):
        worst = max(worst, j + 1 - rate * after - lowest[bisect.bisect_right(befores, after)])
    return max(0.0, worst - burst)


@pytest.mark.parametrize(
    ("rate", "burst", "seconds", "quota"),
    [
        (500.0, 250.0, 4.0, 0),
        (200.0, 400.0, 4.0, 0),
        (10.0, 5.0, 2.0, 0),
        (500.0, 250.0, 4.0, 1000),
        pytest.param(500.0, 250.0, 30.0, 0, marks=pytest.mark.long),
        pytest.param(500.0, 250.0, 30.0, 1_000_000, marks=pytest.mark.long),
    ],
)
async def test_no_window_is_over_admitted_by_four_processes(
    store: Store,
    valkey_url: str,
    rate: float,
    burst: float,
    seconds: float,
    quota: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workers = await asyncio.gather(*(_start(valkey_url, rate, burst, seconds, quota) for _ in range(WORKERS)))
    results = await _results(workers)
    admitted = [(before, after) for one in results for before, after in one["admitted"]]
    asked, calls = sum(one["asked"] for one in results), sum(one["calls"] for one in results)
    under = 1 - len(admitted) / (burst + rate * seconds)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{WORKERS} workers, {rate:g}/s burst {burst:g}, quota {quota}, {seconds:g} s: asked {asked}, "
            f"admitted {len(admitted)}, under-admitted {under:.2%}, "
            f"round trips per request {calls / asked:.4f}\n"
        )
    assert over_admitted(admitted, rate, burst) == 0
    if 0 < quota < burst + rate * seconds:
        # Exact in the end: the last of a quota is counted one by one, call by call.
        assert 0.99 * quota <= len(admitted) <= quota
    else:
        assert calls / asked <= 0.05
    if seconds > 10:
        # A short run is mostly its own ends: what lies in the bucket when the clock stops, what the machine
        # was too busy to ask for when it began.
        assert under <= 0.02


def test_the_check_itself_sees_one_request_too_many() -> None:
    exact = [(float(second), float(second)) for second in range(10)]
    assert over_admitted(exact, 1, 1) == 0
    assert over_admitted([*exact, (5.0, 5.0)], 1, 1) == 1

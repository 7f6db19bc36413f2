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


async def _run(url: str, rate: float, burst: float, start: float, end: float) -> dict[str, Any]:
    program = str(Path(__file__).with_name("limits_worker.py"))
    words = (program, url, *(repr(one) for one in (rate, burst, start, end)))
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    document: dict[str, Any] = orjson.loads(output)
    return document


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
    ("rate", "burst", "seconds"),
    [
        (500.0, 250.0, 5.0),
        (200.0, 400.0, 5.0),
        (10.0, 5.0, 3.0),
        pytest.param(500.0, 250.0, 30.0, marks=pytest.mark.long),
    ],
)
async def test_no_window_is_over_admitted_by_four_processes(
    store: Store,
    valkey_url: str,
    rate: float,
    burst: float,
    seconds: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = time.monotonic() + 1.5
    results = await asyncio.gather(
        *(_run(valkey_url, rate, burst, start, start + seconds) for _ in range(WORKERS))
    )
    admitted = [(before, after) for one in results for before, after in one["admitted"]]
    asked, calls = sum(one["asked"] for one in results), sum(one["calls"] for one in results)
    under = 1 - len(admitted) / (burst + rate * seconds)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{WORKERS} workers, {rate:g}/s burst {burst:g}, {seconds:g} s: asked {asked}, admitted "
            f"{len(admitted)}, under-admitted {under:.2%}, round trips per request {calls / asked:.4f}\n"
        )
    assert over_admitted(admitted, rate, burst) == 0
    assert calls / asked <= 0.05
    # Ends included: what lies in the bucket or on lease when the clock stops was not admitted either.
    assert under <= 0.05


def test_the_check_itself_sees_one_request_too_many() -> None:
    exact = [(float(second), float(second)) for second in range(10)]
    assert over_admitted(exact, 1, 1) == 0
    assert over_admitted([*exact, (5.0, 5.0)], 1, 1) == 1

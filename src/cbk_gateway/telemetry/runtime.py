"""What a process knows of itself: memory, processor time, files, and how late its event loop runs."""

from __future__ import annotations

import asyncio
import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cbk_gateway.telemetry.logs import log_lines_dropped
from cbk_gateway.telemetry.process_events import ProcessEvents

_STATM: Final = Path("/proc/self/statm")
_DESCRIPTORS: Final = Path("/dev/fd")


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process uses: bytes of resident memory, seconds of processor time, open descriptors."""

    memory_bytes: int
    cpu_s: float
    open_files: int


def read_resources() -> Resources:
    """What this process uses now. Without /proc the memory is the largest it ever was."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    try:
        memory = int(_STATM.read_bytes().split()[1]) * resource.getpagesize()
    except OSError:
        memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    # The listing itself holds one descriptor open.
    return Resources(memory, usage.ru_utime + usage.ru_stime, sum(1 for _ in _DESCRIPTORS.iterdir()) - 1)


def report_process(runtime: ProcessEvents, version: str, at_epoch_s: float) -> Callable[[], None]:
    """Report the start of this process; the result is a reading for `Metrics.before_scrape`."""
    runtime.started(version, platform.python_version(), at_epoch_s)

    def reading() -> None:
        used = read_resources()
        runtime.resources(used.memory_bytes, used.cpu_s, used.open_files)
        runtime.log_lines_dropped(log_lines_dropped())

    return reading


async def watch_loop_lag(report: Callable[[float], None], interval_s: float = 1.0) -> None:
    """Report, for ever, how many seconds late the loop wakes this task up. Cancel it to stop."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        report(max(0.0, loop.time() - due))

"""Running asyncio programs: the fast loop, and a clean end on signals. What runs is the caller's business."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end on the fast loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


async def until_told(*, stop_on: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)) -> None:
    """Wait until a signal asks this process to end. A second one is left to its default: end now."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def tell() -> None:
        for one in stop_on:
            loop.remove_signal_handler(one)
        told.set()

    for one in stop_on:
        loop.add_signal_handler(one, tell)
    await told.wait()

"""Running asyncio programs: the fast loop, and a clean end on signals. What runs is the caller's business."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import uvloop

T = TypeVar("T")

_YOUNG_OBJECTS: Final = 20_000


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end on the fast loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def settle_memory() -> None:
    """Tell the collector that what is here stays: to be called once, when a process has started.

    A started gateway holds some 100,000 objects that live as long as it does; going through them again and
    again finds nothing. What requests leave behind has hardly any cycles, so young objects may be many
    before they are looked through.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)


def forbid_core_dumps() -> None:
    """Have the system keep no memory of this process and its children when they crash: it holds keys."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


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

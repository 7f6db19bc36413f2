"""Whether the store is asked at all: the breaker at work, and the probe that finds a lost store again.

Whoever asks the store reports here how that ended. What a failure means to callers is not decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from cbk_gateway.store.breaker import Breaker
from cbk_gateway.store.observer import StoreObserver

_log = structlog.get_logger(__name__)


class Health:
    """What is known of one store.

    Args:
        breaker: Counts the failures.
        probe: Asks the store once, bounded in time, and says whether it answered.
        observer: Told when the store is lost and found.
        shown_url: The URL for the log.
    """

    def __init__(
        self, breaker: Breaker, probe: Callable[[], Awaitable[bool]], observer: StoreObserver, shown_url: str
    ) -> None:
        self._breaker = breaker
        self._probe = probe
        self._observer = observer
        self._shown_url = shown_url
        self._prober: asyncio.Task[None] | None = None
        self._is_closed = False
        self._has_failed = False

    @property
    def is_good(self) -> bool:
        """Whether calls go out: the store answered lately."""
        return self._breaker.is_closed

    def succeeded(self) -> None:
        """The store has answered a call, be it with an error of the caller's."""
        if self._has_failed and self._breaker.is_closed:
            self._breaker.succeeded()
            self._has_failed = False

    def failed(self, why: str) -> None:
        """The store has not answered a call, or cannot serve now."""
        self._has_failed = True
        if self._breaker.failed(asyncio.get_running_loop().time()) and not self._is_closed:
            _log.warning("store_lost", store=self._shown_url, why=why)
            self._observer.available(is_available=False)
            self._prober = asyncio.get_running_loop().create_task(self._probe_until_back())

    async def close(self) -> None:
        """Look for the store no more."""
        self._is_closed = True
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.wait((self._prober,))

    async def _probe_until_back(self) -> None:
        """The half-open state: one probe per pause, on nobody's time, until the store answers."""
        loop = asyncio.get_running_loop()
        while not self._breaker.is_closed:
            await asyncio.sleep(self._breaker.seconds_to_probe(loop.time()))
            if not self._breaker.may_probe(loop.time()):
                continue
            if await self._probe():
                self._breaker.succeeded()
                _log.info("store_back", store=self._shown_url)
                self._observer.available(is_available=True)
            else:
                self._breaker.failed(loop.time())

    def __repr__(self) -> str:
        return repr(self._breaker)

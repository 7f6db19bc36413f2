"""Alive and ready: what a load balancer and an orchestrator ask."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from cbk_gateway.app import Gateway

PROBE_EVERY_S: Final = 1.0
"""Readiness is asked often and by many; the upstream is asked at most this often."""
MOST_PROBLEMS: Final = 20
"""Problems of the tenants' sources that are told; each names a file, a row or a reference, never a secret."""


async def alive(_: web.Request) -> web.Response:
    """200 as long as the event loop turns. A gateway without its store or upstream is alive."""
    return web.json_response({"status": "alive"})


class Readiness:
    """200 when a request would be served as promised, else 503 and what is missing."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._probed_at = 0.0
        self._is_reachable = False
        self._probing = asyncio.Lock()

    async def answer(self, _: web.Request) -> web.Response:
        """Store, upstream and journal, each by name; beside them what is wrong and serves all the same."""
        gateway = self._gateway
        checks = {
            "store": await self._store_answers(),
            "upstream": await self._upstream_answers(),
            "journal": gateway.parts.journal is None or gateway.parts.journal.is_healthy,
            "accepting": not gateway.is_draining,
        }
        is_ready = all(checks.values())
        detail = {name: "ok" if fine else "failing" for name, fine in checks.items()}
        body = {
            "status": "ready" if is_ready else "not ready",
            "checks": detail,
            "keys_refused": list(gateway.parts.credentials.unhealthy()),
            "problems": [str(problem) for problem in gateway.directory.problems()[:MOST_PROBLEMS]],
        }
        return web.json_response(body, status=200 if is_ready else 503)

    async def _store_answers(self) -> bool:
        try:
            await self._gateway.store.ping()
        except Exception:  # noqa: BLE001 - whatever it is, the store does not answer
            return False
        return True

    async def _upstream_answers(self) -> bool:
        async with self._probing:
            if time.monotonic() - self._probed_at >= PROBE_EVERY_S:
                self._is_reachable = await self._gateway.parts.upstream.probe()
                self._probed_at = time.monotonic()
                self._gateway.parts.metrics.upstream.reachable(is_reachable=self._is_reachable)
        return self._is_reachable

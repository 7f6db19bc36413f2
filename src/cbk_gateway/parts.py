"""The parts a request meets, bound together once by the app and handed to the pipeline.

A value, nothing more: who starts and stops the parts is `app.py`'s business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cbk_gateway.addresses import Network
from cbk_gateway.attempts import Attempts
from cbk_gateway.audit import Journal
from cbk_gateway.breaks import Breaks
from cbk_gateway.cache import Cache
from cbk_gateway.identity import Identity
from cbk_gateway.limits import Limiter
from cbk_gateway.request_body import BodyBounds
from cbk_gateway.shedding import Shedding
from cbk_gateway.streams_open import OpenStreams
from cbk_gateway.telemetry import AccessLog, Metrics, Tracer
from cbk_gateway.tenancy.credentials import Credentials
from cbk_gateway.tenancy.ownership import Ownership
from cbk_gateway.tenancy.registry import Registry
from cbk_gateway.upstream import RelayOptions, Shield, Upstream

if TYPE_CHECKING:
    from cbk_gateway.hotpath import HotPath


class Background:
    """Work that outlives its request: closing invalidations, settling grants. Drained at shutdown."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` to its end whatever happens to the caller; a reference is kept until then."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self, timeout_s: float) -> None:
        """Wait for what is under way, at most `timeout_s` seconds, then cancel it."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(set(self._tasks), timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


@dataclass(slots=True)
class Parts:
    """What the pipeline works with.

    Attributes:
        journal: The audit journal, None when it is switched off (benchmarks only).
        access: Writes the access log, or None when it is off.
        shield: Keeps repeated writes from being carried out twice; None lets all through.
        attempts: When creates began, for finding lost ones.
        fingerprint_key: Keys the fingerprints of upstream keys in the journal.
        trusted_proxies: Networks whose `X-Forwarded-For` is believed.
        shedding: What is refused while the event loop runs late.
        write_timeout_s: How long a client may refuse to read.
        max_whole_bytes: Answers up to this size are taken whole, so that they can be kept or checked
            before their last byte leaves.
        relay_options: How event streams are passed on.
        shows_timing: Whether answers carry `Server-Timing`.
        hot_path: Answers repeated reads before they are parsed; None when it is off.
        tracer: Makes spans; None when tracing is off.
        breaks: Notes what may make a decision of a moment ago wrong.
        doubts: Set when nobody can say what became of a write, for whoever finds out later.
        tags_creates: Whether creates bear a tag by which they are found again; see `audit.tag`.
    """

    identity: Identity
    registry: Registry
    credentials: Credentials
    ownership: Ownership
    limiter: Limiter
    cache: Cache
    journal: Journal | None
    upstream: Upstream
    metrics: Metrics
    access: AccessLog | None
    fingerprint_key: bytes
    shield: Shield | None = None
    attempts: Attempts | None = None
    bounds: BodyBounds = field(default_factory=BodyBounds)
    trusted_proxies: tuple[Network, ...] = ()
    shedding: Shedding = field(default_factory=Shedding)
    write_timeout_s: float = 60.0
    max_whole_bytes: int = 1024**2
    shows_timing: bool = True
    relay_options: RelayOptions = field(default_factory=RelayOptions)
    background: Background = field(default_factory=Background)
    open_streams: OpenStreams = field(default_factory=OpenStreams)
    hot_path: HotPath | None = None
    tracer: Tracer | None = None
    breaks: Breaks = field(default_factory=Breaks)
    doubts: asyncio.Event = field(default_factory=asyncio.Event)
    tags_creates: bool = False

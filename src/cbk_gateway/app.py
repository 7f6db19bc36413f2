"""The composition root: settings in, a running gateway out. Everything is started and stopped here.

Parts are started in the order in which they need one another and stopped in reverse. A part that cannot
start takes down those before it and names itself; nothing half-started is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import Self

import structlog
from aiohttp import web

from cbk_gateway import __version__, assembly, repeats
from cbk_gateway.admin import AdminPort
from cbk_gateway.aftercare import Aftercare, started, tenants_changed
from cbk_gateway.audit import Journal, JournalOptions
from cbk_gateway.breaks import Breaks
from cbk_gateway.cache import Cache
from cbk_gateway.cache.tiers import steady
from cbk_gateway.data_server import GatewayServer, require_compiled_parser
from cbk_gateway.errors import Refusal
from cbk_gateway.hotpath import HotPath
from cbk_gateway.identity import Identity, Minter, Revocation
from cbk_gateway.limits import Limiter
from cbk_gateway.parties import Principal, Tenant
from cbk_gateway.parts import Parts
from cbk_gateway.pipeline import Pipeline
from cbk_gateway.server import Doors, OwnDoors, Port, UnixPort
from cbk_gateway.settings.load import Loaded
from cbk_gateway.shedding import LOOK_EVERY_S, Shedding
from cbk_gateway.store import Store, look_at_primary, open_store
from cbk_gateway.telemetry import AccessLog, Metrics, open_tracer, report_process, watch_loop_lag
from cbk_gateway.tenancy import Change, Registry
from cbk_gateway.tenancy.credentials import Credentials
from cbk_gateway.tenancy.directory import Directory
from cbk_gateway.tenancy.ownership import Ownership
from cbk_gateway.tenancy.promotion import Promotion
from cbk_gateway.upstream import Upstream
from cbk_gateway.watching import Watch, count_connections

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Identification:
    """Which gateway process this is: its name among the workers."""

    worker: str = "0"
    started_at: float = field(default_factory=time.time)


class Gateway:
    """One gateway process.

    Args:
        loaded: The settings.
        tenants: The tenants, instead of those of the settings' file.
        identification: Which worker this is.
        doors: Where it listens; where its settings say when None.

    Attributes:
        url: Base URL of the data port, once started.
        admin_url: Base URL of the operators' port, once started.
        parts: What requests meet.
        minter: The gateway's own issuer, if it has one.
        store: What requests share.
        directory: Where the tenants come from.
        is_draining: Whether it is being stopped.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        tenants: tuple[Tenant, ...] | None = None,
        identification: Identification | None = None,
        doors: Doors | None = None,
    ) -> None:
        self.loaded = loaded
        self.identification = identification or Identification()
        self.minter: Minter | None = None
        self.url = ""
        self.admin_url = ""
        self._tenants = tenants
        self._doors: Doors = doors if doors is not None else OwnDoors()
        self._idle_grace_s = 0.0
        self._ports: tuple[Port | UnixPort, ...] = ()
        self._stack = contextlib.AsyncExitStack()
        self.parts: Parts
        self.store: Store
        self.directory: Directory
        self.is_draining = False

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> Self:
        """Start everything and listen.

        Raises:
            SettingsError: The settings contradict themselves or name what is not there.
            StoreFault: The store does not answer; the message names its URL without a password.
            JournalFault: The journal cannot be opened.
            OSError: A port is taken, or a certificate cannot be read.
        """
        require_compiled_parser()
        try:
            self.parts = await self._start_parts()
            await self._listen()
        except BaseException:
            await self.stop()
            raise
        _log.info("gateway_ready", url=self.url, admin_url=self.admin_url, version=__version__)
        return self

    async def stop(self, *, idle_grace_s: float = 0.0) -> None:
        """Stop accepting, let open requests end within the drain time, flush the journal, stop the parts.

        Args:
            idle_grace_s: Seconds in which idle connections are still listened to; see `Port.close`.
        """
        self.is_draining = True
        self._idle_grace_s = idle_grace_s
        if self.url:
            self.parts.metrics.runtime.draining(is_draining=True)
            # Streams get half of the drain time to end by themselves, the rest to tell their clients.
            patience_s = self.loaded.settings.listen.drain_s / 2
            asyncio.get_running_loop().call_later(
                patience_s, self.parts.open_streams.end_where, _everybody, "drained"
            )
        await self._stack.aclose()

    async def reload_tenants(self) -> bool:
        """Read the tenants again at once; says whether their file is usable; if not, they stay."""
        registry, before = self.parts.registry, self.parts.registry.version
        is_usable = await self.directory.reload()
        outcome = "refused" if not is_usable else "applied" if registry.version != before else "unchanged"
        self.parts.metrics.runtime.reload(outcome, time.time())
        return is_usable

    async def renew_certificates(self) -> None:
        """Read the ports' certificates again at once. Connections keep what they began with.

        Raises:
            OSError: One cannot be used; that port keeps its own.
        """
        for port in self._ports:
            await port.renew()

    async def _start_parts(self) -> Parts:
        loaded, settings, enter = self.loaded, self.loaded.settings, self._stack.push_async_callback
        metrics = Metrics(
            tenant_cap=settings.telemetry.tenant_cap,
            labels_off=frozenset(settings.telemetry.labels_off),
            worker=self.identification.worker,
            is_enabled=settings.telemetry.metrics,
        )
        tracer = open_tracer(assembly.tracing_options(loaded))
        if tracer is not None:
            # Exporting what is left blocks.
            enter(asyncio.to_thread, tracer.close)
        registry = Registry()
        credentials = Credentials(assembly.tenancy_options(loaded).rotation, metrics.tenancy)

        self.store = await open_store(assembly.store_options(loaded), metrics.store)
        enter(self.store.close)
        await look_at_primary(self.store)

        self.minter = assembly.minter(loaded)
        self.directory = Directory(
            registry,
            assembly.key_source(loaded, metrics.tenancy),
            tenants=self._tenants or (),
            path=loaded.path(settings.tenants_file) if self._tenants is None else None,
            store=self.store,
            options=assembly.tenancy_options(loaded),
            observer=metrics.tenancy,
        )
        enter(self.directory.stop)
        await self.directory.start()
        for source in ("store",) if self._tenants is not None else ("store", "file"):
            metrics.tenancy.source_recovered(source)
        metrics.runtime.configured(self.identification.started_at)

        breaks = Breaks()
        identity = Identity(
            assembly.identity_options(loaded, self.minter), self.store, metrics.identity, breaks=breaks
        )
        enter(identity.stop)
        await identity.start()

        # The hot path reads one clock for both, and leases of both must end while the machine sleeps.
        limiter = Limiter(self.store, assembly.limiter_options(loaded), metrics.limits, steady)
        enter(limiter.stop)
        await limiter.start()

        # An embedded store has just been started by this process, and nobody else knows it.
        cache_options = replace(assembly.cache_options(loaded), store_is_new=self.store.url is not None)
        cache = Cache(self.store, cache_options, metrics.cache, breaks=breaks)
        enter(cache.stop)
        await cache.start()

        journal_options = assembly.journal_options(loaded)
        journal = await self._open_journal(journal_options, metrics) if settings.audit.enabled else None

        promotion_options = assembly.tenancy_options(loaded).promotion
        if promotion_options is not None:
            promotion = Promotion(self.directory, promotion_options, journal.record if journal else None)
            credentials.on_next_judged(promotion.note)
            enter(promotion.stop)
            promotion.start()

        upstream = Upstream(assembly.upstream_options(loaded), metrics.upstream)
        enter(upstream.stop)
        await upstream.start()

        shield, attempts = await repeats.open_shield(
            self.store, cache_options.encryption_key, metrics.upstream
        )
        parts = Parts(
            shield=shield,
            attempts=attempts,
            identity=identity,
            registry=registry,
            credentials=credentials,
            ownership=Ownership(self.store, assembly.tenancy_options(loaded), metrics.tenancy),
            limiter=limiter,
            cache=cache,
            journal=journal,
            upstream=upstream,
            metrics=metrics,
            access=AccessLog(assembly.access_options(loaded)) if settings.logging.access else None,
            fingerprint_key=journal_options.digest_key,
            bounds=assembly.body_bounds(loaded),
            trusted_proxies=assembly.trusted_proxies(loaded),
            shedding=Shedding(assembly.shedding_options(loaded), metrics.runtime.request_shed),
            write_timeout_s=settings.listen.write_timeout_s,
            max_whole_bytes=settings.cache.max_entry_bytes,
            relay_options=assembly.relay_options(loaded),
            tags_creates=settings.audit.tag_creates,
            shows_timing=settings.telemetry.server_timing,
            tracer=tracer,
            breaks=breaks,
        )
        if settings.listen.hot_path != "off":
            parts.hot_path = HotPath(parts, is_verifying=settings.listen.hot_path == "verify")
        enter(parts.background.drain, 5.0)
        self._watch(parts)
        watch = Watch(parts, assembly.certificates(loaded), most_tenants=settings.telemetry.tenant_cap)
        enter(watch.stop)
        watch.start()
        if journal is not None:
            await self._look_after(parts, journal)
        return parts

    async def _open_journal(self, options: JournalOptions, metrics: Metrics) -> Journal:
        journal = Journal(options, metrics.audit, f"w{self.identification.worker}")
        self._stack.push_async_callback(journal.stop)
        await journal.start()
        return journal

    async def _look_after(self, parts: Parts, journal: Journal) -> None:
        """Record what the journal speaks of without requests, and keep it in order."""
        settings = self.loaded.settings
        journal.note("config", started(settings, len(parts.registry)))
        self._stack.callback(
            parts.registry.subscribe(lambda change: journal.note("config", tenants_changed(change)))
        )
        aftercare = Aftercare(
            parts,
            journal,
            lambda: assembly.upkeep(self.loaded, journal.options, self.store),
            settle_s=settings.audit.resolve_after_s,
        )
        self._stack.push_async_callback(aftercare.stop)
        await aftercare.start()

    def _watch(self, parts: Parts) -> None:
        """Let what changes in one part reach the others: the app is where packages meet."""

        def end_revoked(revocation: Revocation) -> None:
            parts.open_streams.end_where(revocation.matches, "revoked")
            if parts.hot_path is not None:
                parts.hot_path.clear()

        def end_changed(change: Change) -> None:
            parts.open_streams.end_where(
                lambda principal: _may_not_go_on(parts.registry, principal), "revoked"
            )
            parts.credentials.forget(change.removed)
            if parts.hot_path is not None:
                parts.hot_path.clear()

        self._stack.callback(parts.identity.on_revoked(end_revoked))
        self._stack.callback(parts.registry.subscribe(end_changed))

        def note_lag(lag_s: float) -> None:
            parts.metrics.runtime.loop_lag(lag_s)
            parts.shedding.observe(lag_s)

        lag = asyncio.get_running_loop().create_task(watch_loop_lag(note_lag, LOOK_EVERY_S))
        self._stack.callback(lag.cancel)
        parts.metrics.before_scrape(
            report_process(parts.metrics.runtime, __version__, self.identification.started_at)
        )

    async def _listen(self) -> None:
        loaded, settings, parts = self.loaded, self.loaded.settings, self.parts
        pipeline = Pipeline(parts)

        def on_refused(refusal: Refusal) -> None:
            parts.metrics.refusal(refusal.reason, refusal.status, None)
            parts.metrics.request(None, "other", "other", refusal.status, "none", 0.0)

        admin_port = self._doors.admin(
            AdminPort(self).application(), settings.admin, assembly.admin_port_options(loaded)
        )
        self._stack.push_async_callback(admin_port.close, 1.0)
        self.admin_url = await admin_port.open()

        server = GatewayServer(pipeline.handle, assembly.listener_options(loaded), on_refused, parts.hot_path)
        count_connections(parts.metrics, server)
        data_port = self._doors.data(
            web.ServerRunner(server), settings.listen, assembly.data_port_options(loaded)
        )
        self._ports = (admin_port, data_port)

        async def close_data_port() -> None:
            await data_port.close(settings.listen.drain_s, self._idle_grace_s)

        self._stack.push_async_callback(close_data_port)
        self.url = await data_port.open()


def _everybody(_: Principal) -> bool:
    return True


def _may_not_go_on(registry: Registry, principal: Principal) -> bool:
    tenant = registry.get(principal.tenant)
    return tenant is None or tenant.disabled or principal.issued_at < tenant.token_not_before

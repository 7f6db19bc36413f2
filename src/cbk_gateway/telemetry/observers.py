"""What the domain packages report, counted: one class per package.

Each fits its package's observer protocol by its shape alone, since this floor imports none of them.

A method knows which metric an event moves and nothing about why it happened. Words given as labels come
from closed sets of the package that reports. What is read rather than reported (sizes, health) is set
before a scrape; those methods stand at the end of a class.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Sequence
from typing import Final

from cbk_gateway.telemetry.instrument_set import InstrumentSet
from cbk_gateway.telemetry.instruments import HistogramCell, ValueCell

_BREAKER_STATES: Final = {"closed": 0, "half_open": 1}


class LimiterEvents:
    """What limits decided and how the limiter fares."""

    def __init__(self, made: InstrumentSet) -> None:
        self._decisions = made.counter("limit_decisions_total")
        self._store_calls = made.counter("limit_store_calls_total")
        self._shadow = made.counter("limit_shadow_refusals_total")
        self._quota_marks = made.counter("quota_marks_total")
        self._wait = made.histogram("limit_wait_seconds")
        self._mode = made.gauge("limiter_mode")
        self._rate = made.gauge("limit_rate_per_second")
        self._use = made.gauge("limit_use_ratio")
        self._quota_use = made.gauge("quota_use_ratio")
        self._mode_now: str | None = None

    def decided(self, tenant: str, outcome: str, policy: str, times: int = 1) -> None:
        """A decision: admitted, rate, quota, concurrency or unavailable, and by which policy refused."""
        self._decisions.add((tenant, outcome, policy), times)

    def asked_store(self, calls: int) -> None:
        """So many round trips were made for one decision."""
        self._store_calls.add((), calls)

    def shadow_refused(self, tenant: str, policy: str) -> None:
        """A shadow policy would have refused."""
        self._shadow.add((tenant, policy))

    def quota_reached(self, tenant: str, quota: str, percent: int) -> None:
        """A quota passed 80 or 100 percent."""
        self._quota_marks.add((tenant, quota, percent))

    def paced(self, tenant: str, waited_s: float) -> None:  # noqa: ARG002 - the protocol's, too many series
        """A request waited for its token and was admitted."""
        self._wait.observe(waited_s)

    def mode_changed(self, mode: str) -> None:
        """The limiter of this worker is now in this mode."""
        if self._mode_now is not None:
            self._mode.set(0, (self._mode_now,))
        self._mode.set(1, (mode,))
        self._mode_now = mode

    def configured(self, tenant: str, policy: str, per_second: float) -> None:
        """A tenant's rate, as configured, in tokens per second."""
        self._rate.set(per_second, (tenant, policy))

    def use(self, tenant: str, policy: str, ratio: float) -> None:
        """This share (0 to 1) of a rate's burst is in use."""
        self._use.set(ratio, (tenant, policy))

    def quota_use(self, tenant: str, quota: str, ratio: float) -> None:
        """This share (0 to 1, or more for a soft quota) of a calendar quota is used up."""
        self._quota_use.set(ratio, (tenant, quota))

    def keep_only(self, tenants: Container[str]) -> None:
        """Forget what was said of tenants that are no more."""
        for one in (self._rate, self._use, self._quota_use):
            one.forget_tenants(tenants)


class CacheEvents:
    """What the cache found, kept and dropped."""

    def __init__(self, made: InstrumentSet) -> None:
        self._hits = made.counter("cache_hits_total")
        self._misses = made.counter("cache_misses_total")
        self._passes = made.counter("cache_passes_total")
        self._collapsed = made.counter("cache_collapsed_total")
        self._stores = made.counter("cache_stores_total")
        self._stored_bytes = made.counter("cache_stored_bytes_total")
        self._invalidations = made.counter("cache_invalidations_total")
        self._stale = made.counter("cache_stale_served_total")
        self._evictions = made.counter("cache_evictions_total")
        self._entries = made.gauge("cache_entries")
        self._bytes = made.gauge("cache_size_bytes")
        self._lag = made.gauge("cache_feed_lag_seconds")
        self._live = made.gauge("cache_feed_live")
        self._write_wait = made.histogram("cache_write_wait_seconds")

    def hit(self, tier: str, times: int = 1) -> None:
        """An answer from memory: l1, l2, shared or stale."""
        self._hits.add((tier,), times)

    def missed(self, reason: str) -> None:
        """A request that will fetch: miss, stale or handover."""
        self._misses.add((reason,))

    def passed(self, reason: str, times: int = 1) -> None:
        """A request forwarded without being remembered."""
        self._passes.add((reason,), times)

    def collapsed(self) -> None:
        """A request answered by another's fetch."""
        self._collapsed.add()

    def stored(self, size_bytes: int) -> None:
        """An answer was kept."""
        self._stores.add(("stored",))
        self._stored_bytes.add((), size_bytes)

    def unstored(self, reason: str) -> None:
        """An answer was not kept."""
        self._stores.add((reason,))

    def invalidated(self, cause: str) -> None:
        """Types of an account became old: write, purge, feed or recovery."""
        self._invalidations.add((cause,))

    def stale_served(self, kind: str) -> None:
        """An answer past its lifetime was served: revalidate or error."""
        self._stale.add((kind,))

    def evicted(self, tier: str, count: int) -> None:
        """Entries gave way to others."""
        self._evictions.add((tier,), count)

    def memory(self, entries: int, size_bytes: int) -> None:
        """Size of the worker's own tier after a change."""
        self._entries.set(entries)
        self._bytes.set(size_bytes)

    def feed_lag(self, seconds: float) -> None:
        """How long the feed took to bring this worker's own beat back."""
        self._lag.set(seconds)

    def feed_live(self, *, is_live: bool) -> None:
        """Whether the worker's own tier may be served from."""
        self._live.set(int(is_live))

    def write_waited(self, seconds: float) -> None:
        """How long a write's answer waited for the other workers."""
        self._write_wait.observe(seconds)


class JournalEvents:
    """What the journal wrote and how it fares.

    The journal reports from its writer's thread and from the event loop, so here, and only here, events
    take a lock. They come once per write or per group of writes, not per request.
    """

    def __init__(self, made: InstrumentSet) -> None:
        self._lock = threading.Lock()
        self._records = made.counter("audit_records_total")
        self._bytes = made.counter("audit_journal_bytes_total")
        self._sync = made.histogram("audit_sync_seconds")
        self._group = made.histogram("audit_group_records")
        self._wait = made.histogram("audit_intent_wait_seconds")
        self._refused = made.counter("audit_refused_writes_total")
        self._allowed = made.counter("audit_unjournalled_writes_total")
        self._dropped = made.counter("audit_dropped_records_total")
        self._segments = made.counter("audit_segments_total")
        self._recovered = made.counter("audit_recovered_intents_total")
        self._outcomes = made.counter("audit_outcomes_total")
        self._open = made.gauge("audit_open_intents").bind()
        self._healthy = made.gauge("audit_healthy")
        self._queue = made.gauge("audit_queue_records")
        self._sync_age = made.gauge("audit_last_sync_age_seconds")

    def committed(self, records: int, size_bytes: int, sync_s: float) -> None:
        """One group commit ended well."""
        with self._lock:
            self._records.add((), records)
            self._bytes.add((), size_bytes)
            self._sync.observe(sync_s)
            self._group.observe(records)

    def intent_waited(self, wait_s: float) -> None:
        """An intent became durable after this time."""
        with self._lock:
            self._wait.observe(wait_s)

    def refused(self, reason: str) -> None:
        """A write was refused because its intent could not be made durable."""
        with self._lock:
            self._refused.add((reason,))

    def allowed(self, reason: str) -> None:
        """A write went ahead without a durable intent, as configured."""
        with self._lock:
            self._allowed.add((reason,))

    def dropped(self, kind: str) -> None:
        """A record was lost in memory."""
        with self._lock:
            self._dropped.add((kind,))

    def segment_opened(self, reason: str) -> None:
        """A new segment began: started, rotated or lost."""
        with self._lock:
            self._segments.add((reason,))

    def recovered(self, open_intents: int) -> None:
        """That many intents of a dead process were closed as unknown."""
        with self._lock:
            self._recovered.add((), open_intents)

    def write_begun(self) -> None:
        """A write has an intent and no outcome yet. Reported by the pipeline."""
        with self._lock:
            self._open.value += 1

    def write_ended(self, outcome: str) -> None:
        """Its outcome is known, in a word of `catalogue.WRITE_OUTCOMES`. Reported by the pipeline."""
        with self._lock:
            self._open.value -= 1
            self._outcomes.add((outcome,))

    def health(self, *, is_healthy: bool, waiting: int, last_sync_age_s: float | None) -> None:
        """Read before a scrape; the age is None before the first sync."""
        with self._lock:
            self._healthy.set(int(is_healthy))
            self._queue.set(waiting)
            if last_sync_age_s is not None:
                self._sync_age.set(last_sync_age_s)


class AnswerCells:
    """The series that the upstream's answers of one kind move.

    Attributes:
        first_byte: How long their heads took.
        reachable: Whether the upstream answers at all.
    """

    __slots__ = ("_attempts", "_count", "first_byte", "reachable")

    def __init__(
        self, count: ValueCell, attempts: ValueCell, first_byte: HistogramCell, reachable: ValueCell
    ) -> None:
        self._count = count
        self._attempts = attempts
        self.first_byte = first_byte
        self.reachable = reachable

    def observe(self, first_byte_s: float, attempts: int) -> None:
        """Count one answer."""
        self.reachable.value = 1
        self._count.value += 1
        self._attempts.value += attempts
        self.first_byte.observe(first_byte_s)

    def count(self, times: int) -> None:
        """Count answers that came at the first attempt; that the upstream is there was told before."""
        self._count.value += times
        self._attempts.value += times

    def spread(self, first_bytes_s: Sequence[float]) -> None:
        """Spread the times of such answers, the newest last."""
        self.first_byte.observe_all(first_bytes_s)


class UpstreamEvents:
    """How the upstream answers and how it is reached."""

    def __init__(self, made: InstrumentSet) -> None:
        self._connections = made.gauge("upstream_connections").bind()
        self._connect = made.histogram("upstream_connect_seconds")
        self._connect_failures = made.counter("upstream_connect_failures_total")
        self._answers = made.counter("upstream_answers_total")
        self._first_byte = made.histogram("upstream_first_byte_seconds")
        self._attempts = made.counter("upstream_attempts_total")
        self._faults = made.counter("upstream_faults_total")
        self._retries = made.counter("upstream_retries_total")
        self._breaker = made.gauge("upstream_breaker_state")
        self._breaker_changes = made.counter("upstream_breaker_changes_total")
        self._bound = made.gauge("upstream_concurrency_bound")
        self._queue = made.histogram("upstream_queue_seconds")
        self._endings = made.counter("upstream_stream_endings_total")
        self._shield = made.counter("upstream_shield_decisions_total")
        self._reachable = made.gauge("upstream_reachable")
        self._kinds: dict[tuple[str, int], AnswerCells] = {}

    def connection_opened(self, connect_s: float) -> None:
        """A connection is ready, TLS included."""
        self._connections.value += 1
        self._connect.observe(connect_s)

    def connection_closed(self) -> None:
        """A connection that was opened is gone."""
        self._connections.value -= 1

    def connection_failed(self, cause: str) -> None:
        """No connection could be had."""
        self._connect_failures.add((cause,))
        self._reachable.set(0)

    def answered(self, cost_class: str, status: int, first_byte_s: float, attempts: int) -> None:
        """The head of an answer arrived."""
        self.bind_answers(cost_class, status).observe(first_byte_s, attempts)

    def bind_answers(self, cost_class: str, status: int) -> AnswerCells:
        """The cells of such answers, for callers that keep them; there are not many statuses."""
        cells = self._kinds.get((cost_class, status))
        if cells is None:
            cells = self._kinds[cost_class, status] = AnswerCells(
                self._answers.bind(cost_class, status),
                self._attempts.bind(),
                self._first_byte.bind(cost_class),
                self._reachable.bind(),
            )
        return cells

    def faulted(self, cost_class: str, cause: str, outcome: str, attempts: int) -> None:
        """A call ended without an answer."""
        self._faults.add((cost_class, cause, outcome))
        self._attempts.add((), attempts)

    def retried(self, cause: str, *, paid: bool) -> None:
        """An attempt is repeated; `paid` when it took from the retry budget."""
        self._retries.add((cause, "yes" if paid else "no"))

    def breaker_changed(self, scope: str, state: str) -> None:
        """A breaker went to closed, open or half_open.

        Only the upstream's own has a state to show: those of accounts are many, so changes are counted.
        """
        if scope == "upstream":
            self._breaker.set(_BREAKER_STATES.get(state, 2), (scope,))
        self._breaker_changes.add((scope, state))

    def concurrency_changed(self, bound: float) -> None:
        """The bound on short calls moved."""
        self._bound.set(bound)

    def queued(self, waited_s: float, *, admitted: bool) -> None:
        """A call waited for its turn and got it, or was refused."""
        self._queue.observe(waited_s, ("yes" if admitted else "no",))

    def stream_ended(self, ending: str) -> None:
        """A relayed stream ended: complete, truncated, client_abort or deadline."""
        self._endings.add((ending,))

    def shielded(self, decision: str) -> None:
        """The duplicate shield decided."""
        self._shield.add((decision,))

    def reachable(self, *, is_reachable: bool) -> None:
        """The upstream did, or did not, answer a probe of readiness."""
        self._reachable.set(int(is_reachable))


class StoreEvents:
    """How Redis or Valkey fares."""

    def __init__(self, made: InstrumentSet) -> None:
        self._calls = made.histogram("store_call_seconds")
        self._pipelines = made.counter("store_pipelines_total")
        self._errors = made.counter("store_errors_total")
        self._available = made.gauge("store_available")

    def answered(self, seconds: float) -> None:
        """A call got its answer."""
        self._calls.observe(seconds)

    def sent(self, commands: int) -> None:  # noqa: ARG002 - the protocol's; calls are counted when answered
        """Commands left in one pipeline."""
        self._pipelines.add(())

    def failed(self, trouble: str) -> None:
        """A call got none: timeout, away, open, rejected or closed."""
        self._errors.add((trouble,))

    def available(self, *, is_available: bool) -> None:
        """Whether calls go out. Reported, or read before a scrape."""
        self._available.set(int(is_available))

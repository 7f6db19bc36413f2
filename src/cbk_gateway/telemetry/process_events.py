"""What processes report of themselves: start, restarts, resources, reloads, draining."""

from __future__ import annotations

from cbk_gateway.telemetry.instrument_set import InstrumentSet


class ProcessEvents:
    """The processes themselves. `worker` names the one that reports."""

    def __init__(self, made: InstrumentSet, worker: str) -> None:
        self._worker = worker
        self._build = made.gauge("build_info")
        self._start = made.gauge("start_timestamp_seconds")
        self._up = made.gauge("worker_up")
        self._restarts = made.counter("worker_restarts_total")
        self._lag = made.histogram("event_loop_lag_seconds")
        self._memory = made.gauge("resident_memory_bytes")
        self._cpu = made.counter("cpu_seconds_total")
        self._files = made.gauge("open_files")
        self._reloads = made.counter("config_reloads_total")
        self._applied = made.gauge("config_applied_timestamp_seconds")
        self._shed = made.counter("requests_shed_total")
        self._dropped = made.counter("log_lines_dropped_total").bind()
        self._draining = made.gauge("draining")

    def started(self, version: str, python: str, at_epoch_s: float) -> None:
        """The process serves since then."""
        self._build.set(1, (version, python))
        self._start.set(at_epoch_s)
        self._up.set(1, (self._worker,))
        self._draining.set(0)

    def worker_up(self, worker: str, *, is_up: bool) -> None:
        """A worker serves, or does not; for the supervisor, which sees those that are gone."""
        self._up.set(int(is_up), (worker,))

    def worker_restarted(self, reason: str) -> None:
        """A worker was started again: crashed, rolled or silent."""
        self._restarts.add((reason,))

    def loop_lag(self, seconds: float) -> None:
        """The event loop ran something this late."""
        self._lag.observe(seconds)

    def request_shed(self, kind: str) -> None:
        """A request of this kind was refused because the loop runs late."""
        self._shed.add((kind,))

    def resources(self, memory_bytes: int, cpu_s: float, open_files: int) -> None:
        """What the process uses now; `cpu_s` is since its start."""
        self._memory.set(memory_bytes, (self._worker,))
        self._cpu.bind(self._worker).value = cpu_s
        self._files.set(open_files, (self._worker,))

    def configured(self, at_epoch_s: float) -> None:
        """The configuration in force was applied then, at the start."""
        self._applied.set(at_epoch_s)

    def reload(self, result: str, at_epoch_s: float) -> None:
        """A configuration was applied, refused, or brought nothing new (unchanged)."""
        self._reloads.add((result,))
        if result == "applied":
            self._applied.set(at_epoch_s)

    def log_lines_dropped(self, total: int) -> None:
        """This many log lines have been dropped since the start."""
        self._dropped.value = total

    def draining(self, *, is_draining: bool) -> None:
        """The process takes no new requests, or does again."""
        self._draining.set(int(is_draining))

"""Spans of requests and their steps, by OpenTelemetry, when it is installed and enabled.

Off, there is no tracer at all: `open_tracer` gives None and callers ask `if tracer is not None`, which is
all that tracing costs then. On, spans are made by hand at the steps of the pipeline; nothing is patched.
Names of attributes follow OpenTelemetry's semantic conventions for HTTP.

The SDK is an extra, so it is imported by name only when a tracer is opened.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from cbk_gateway.telemetry.traceparent import TraceContext

_INSTALL: Final = "tracing is enabled, but OpenTelemetry is not installed: pip install 'cbk-gateway[otel]'"


class TracingUnavailable(RuntimeError):  # noqa: N818 - it is a state of the installation
    """Tracing was asked for and the extra is not installed. The message says how to install it."""


@dataclass(frozen=True, slots=True)
class TracingOptions:
    """How requests are traced.

    Attributes:
        is_enabled: Whether spans are made. Default false; a sampled request with four steps costs
            some 170 microseconds, an unsampled one 20; a repeated cached read that is not sampled, 3.
        endpoint: URL of an OTLP collector that takes traces over HTTP, such as
            `http://127.0.0.1:4318/v1/traces`. None: what the standard `OTEL_*` variables say.
        sample: Share of traces that start here and are recorded, 0 to 1. Default 0.1. The choice of a
            client that sends `traceparent` is followed when clients are trusted.
        trusts_clients: Whether a client's `traceparent` continues its trace. Default true. Not for
            gateways open to the public: a client could make every request sampled.
        service_name: What the gateway is called in traces.
    """

    is_enabled: bool = False
    endpoint: str | None = None
    sample: float = 0.1
    trusts_clients: bool = True
    service_name: str = "cbk-gateway"


class StepSpan:
    """One step of a request. `context` is what a call made in this step sends as its parent."""

    __slots__ = ("_span", "context")

    def __init__(self, span: Any, state: str) -> None:  # noqa: ANN401 - a type of the optional extra
        self._span = span
        self.context = _context_of(span, state)

    def note(self, name: str, value: str | float | bool) -> None:
        """Add an attribute. Never a credential, an object id or anything of a body."""
        self._span.set_attribute(name, value)


class RequestSpan(StepSpan):
    """A request. End it exactly once."""

    __slots__ = ("_state", "_tracer")

    def __init__(self, tracer: Tracer, span: Any, state: str) -> None:  # noqa: ANN401 - as above
        super().__init__(span, state)
        self._tracer = tracer
        self._state = state

    @contextmanager
    def step(self, name: str) -> Iterator[StepSpan]:
        """A span around one step. An exception marks it as failed, by its type alone, and passes on."""
        if not self._span.is_recording():
            yield self  # nobody will look at the steps
            return
        span = self._tracer.child_of(self._span, name)
        try:
            yield StepSpan(span, self._state)
        except BaseException as exc:
            span.set_attribute("error.type", type(exc).__name__)
            span.set_status(self._tracer.failed)
            raise
        finally:
            span.end()

    def end(self, status: int) -> None:
        """The answer went out with this status; 5xx are failures of ours (semantic conventions, server)."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(self._tracer.failed)
        self._span.end()


class _TraceIds:
    """Makes the ids of traces and spans. A trace id that was drawn before is the next one."""

    def __init__(self, usual: Any) -> None:  # noqa: ANN401 - a type of the optional extra
        self._usual = usual
        self.drawn: int | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else the extra asks of its own
        return getattr(self._usual, name)

    def generate_span_id(self) -> int:
        return int(self._usual.generate_span_id())

    def generate_trace_id(self) -> int:
        drawn, self.drawn = self.drawn, None
        return int(self._usual.generate_trace_id()) if drawn is None else drawn


class Tracer:
    """Makes spans.

    Args:
        options: How requests are traced.
        exporter: Takes finished spans; None for OTLP over HTTP. Given in tests and by embedders.

    Raises:
        TracingUnavailable: The extra is not installed.
    """

    def __init__(self, options: TracingOptions, exporter: object | None = None) -> None:
        try:
            api = importlib.import_module("opentelemetry.trace")
            sdk = importlib.import_module("opentelemetry.sdk.trace")
            export = importlib.import_module("opentelemetry.sdk.trace.export")
            sampling = importlib.import_module("opentelemetry.sdk.trace.sampling")
            ids = importlib.import_module("opentelemetry.sdk.trace.id_generator")
            resources = importlib.import_module("opentelemetry.sdk.resources")
            if exporter is None:
                otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
                exporter = otlp.OTLPSpanExporter(endpoint=options.endpoint)
        except ImportError as exc:
            raise TracingUnavailable(_INSTALL) from exc
        self._api = api
        self._trusts_clients = options.trusts_clients
        self._ids = _TraceIds(ids.RandomIdGenerator())
        self._of_roots = sampling.TraceIdRatioBased(options.sample)
        self._provider = sdk.TracerProvider(
            resource=resources.Resource.create({"service.name": options.service_name}),
            sampler=sampling.ParentBased(self._of_roots),
            id_generator=self._ids,
        )
        self._provider.add_span_processor(export.BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("cbk_gateway")
        self.failed = api.Status(api.StatusCode.ERROR)

    def draw(self) -> int:
        """A trace id for a request whose trace starts here. To be told to `request`, if it comes to that."""
        return self._ids.generate_trace_id()

    def records(self, trace_id: int) -> bool:
        """Whether the sampler wants a trace that starts here with this id: always the same of one id."""
        return bool(self._of_roots.should_sample(None, trace_id, "").decision.is_sampled())

    def request(
        self,
        method: str,
        template: str,
        received: TraceContext | None = None,
        *,
        drawn: int | None = None,
    ) -> RequestSpan:
        """Begin the span of a request, named by method and route template (semantic conventions, HTTP).

        Args:
            method: Its method.
            template: The template of its route.
            received: The client's trace.
            drawn: The trace id that was drawn for it before, unless the client's trace goes on.
        """
        parent, state = None, ""
        if received is not None and self._trusts_clients:
            parent, state = self._remote(received), received.state
        self._ids.drawn = drawn if parent is None else None
        span = self._tracer.start_span(
            f"{method} {template}",
            context=parent,
            kind=self._api.SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": template},
        )
        return RequestSpan(self, span, state)

    def child_of(self, parent: Any, name: str) -> Any:  # noqa: ANN401 - types of the optional extra
        """A span below `parent`."""
        kind = self._api.SpanKind.CLIENT if name == "upstream" else self._api.SpanKind.INTERNAL
        return self._tracer.start_span(name, context=self._api.set_span_in_context(parent), kind=kind)

    def close(self) -> None:
        """Export what is left and stop. Blocks for up to the exporter's time-out: run it in a thread."""
        self._provider.shutdown()

    def _remote(self, received: TraceContext) -> Any:  # noqa: ANN401 - a type of the optional extra
        span_context = self._api.SpanContext(
            int(received.trace_id, 16),
            int(received.span_id, 16),
            is_remote=True,
            trace_flags=self._api.TraceFlags(int(received.is_sampled)),
        )
        return self._api.set_span_in_context(self._api.NonRecordingSpan(span_context))


def _context_of(span: Any, state: str) -> TraceContext:  # noqa: ANN401 - a type of the optional extra
    found = span.get_span_context()
    return TraceContext(
        f"{found.trace_id:032x}", f"{found.span_id:016x}", bool(found.trace_flags.sampled), state
    )


def open_tracer(options: TracingOptions, exporter: object | None = None) -> Tracer | None:
    """A tracer, or None when tracing is off.

    Raises:
        TracingUnavailable: It is on and the extra is not installed.
    """
    return Tracer(options, exporter) if options.is_enabled else None

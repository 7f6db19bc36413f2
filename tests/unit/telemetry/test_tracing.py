"""Spans, when OpenTelemetry is installed; nothing at all when it is not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from cbk_gateway.telemetry.traceparent import TraceContext, parse_traceparent
from cbk_gateway.telemetry.tracing import Tracer, TracingOptions, open_tracer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
ALWAYS = TracingOptions(is_enabled=True, sample=1.0)


def traced(options: TracingOptions = ALWAYS) -> tuple[Tracer, Any]:
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    tracer = open_tracer(options, exporter)
    assert tracer is not None
    return tracer, exporter


def test_tracing_is_off_unless_it_is_enabled() -> None:
    assert open_tracer(TracingOptions()) is None


def test_enabled_without_the_extra_it_says_how_to_install_it() -> None:
    script = """
import sys
sys.modules["opentelemetry"] = None  # as if it were not installed
from cbk_gateway.telemetry import TracingOptions, TracingUnavailable, open_tracer
try:
    open_tracer(TracingOptions(is_enabled=True))
except TracingUnavailable as exc:
    print(exc)
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "pip install 'cbk-gateway[otel]'" in found.stdout


def test_off_the_extra_is_not_even_imported() -> None:
    script = "import sys, cbk_gateway.telemetry as t; t.open_tracer(t.TracingOptions()); print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "cbk_gateway.telemetry.tracing" in found.stdout
    assert "opentelemetry" not in found.stdout


def test_a_request_and_its_steps_are_one_trace_below_the_clients() -> None:
    tracer, exporter = traced()
    request = tracer.request("GET", "/bot/list", TraceContext(TRACE, SPAN, is_sampled=True, state="a=b"))
    with request.step("upstream") as step:
        step.note("upstream.attempts", 1)
        sent = step.context
    request.end(200)
    tracer.close()
    upstream, root = exporter.get_finished_spans()
    assert root.name == "GET /bot/list"
    assert f"{root.context.trace_id:032x}" == TRACE
    assert f"{root.parent.span_id:016x}" == SPAN
    assert dict(root.attributes) == {
        "http.request.method": "GET",
        "http.route": "/bot/list",
        "http.response.status_code": 200,
    }
    assert upstream.parent.span_id == root.context.span_id
    assert sent == TraceContext(TRACE, f"{upstream.context.span_id:016x}", is_sampled=True, state="a=b")
    assert parse_traceparent(sent.header(), sent.state) == sent


def test_a_failed_step_says_what_kind_of_failure_and_not_its_text() -> None:
    tracer, exporter = traced()
    request = tracer.request("GET", "/bot/list")
    with pytest.raises(ValueError, match="secret"), request.step("identify"):
        raise ValueError("secret")
    request.end(502)
    tracer.close()
    step, root = exporter.get_finished_spans()
    assert step.attributes["error.type"] == "ValueError"
    assert not step.status.is_ok
    assert not root.status.is_ok
    assert "secret" not in step.to_json() + root.to_json()


def test_a_client_who_is_not_trusted_does_not_choose_the_trace() -> None:
    tracer, exporter = traced(TracingOptions(is_enabled=True, sample=0.0, trusts_clients=False))
    request = tracer.request("GET", "/bot/list", TraceContext(TRACE, SPAN, is_sampled=True))
    assert request.context.trace_id != TRACE
    assert not request.context.is_sampled
    request.end(200)
    tracer.close()
    assert exporter.get_finished_spans() == ()


def test_a_trace_the_client_does_not_record_is_not_recorded() -> None:
    tracer, exporter = traced()
    request = tracer.request("GET", "/bot/list", TraceContext(TRACE, SPAN, is_sampled=False))
    with request.step("recall"):
        assert request.context.trace_id == TRACE
    request.end(200)
    tracer.close()
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(("sample", "wanted"), [(0.0, 0), (0.5, None), (1.0, 200)])
def test_what_is_drawn_beforehand_is_recorded_if_the_sampler_says_so(
    sample: float, wanted: int | None
) -> None:
    tracer, exporter = traced(TracingOptions(is_enabled=True, sample=sample))
    ids = [tracer.draw() for _ in range(200)]
    for one in ids:
        span = tracer.request("GET", "/bot/list", drawn=one)
        assert span.context.trace_id == f"{one:032x}"
        assert span.context.is_sampled is tracer.records(one)
        span.end(200)
    tracer.close()
    recorded = {span.context.trace_id for span in exporter.get_finished_spans()}
    assert recorded == {one for one in ids if tracer.records(one)}
    assert len(recorded) == wanted or (wanted is None and 20 < len(recorded) < 180)


def test_a_drawn_trace_gives_way_to_the_clients_and_is_used_once() -> None:
    tracer, _ = traced()
    drawn = tracer.draw()
    received = TraceContext(TRACE, SPAN, is_sampled=True)
    assert tracer.request("GET", "/", received, drawn=drawn).context.trace_id == TRACE
    assert tracer.request("GET", "/").context.trace_id != f"{drawn:032x}"
    assert tracer.request("GET", "/", drawn=drawn).context.trace_id == f"{drawn:032x}"
    assert tracer.request("GET", "/").context.trace_id != f"{drawn:032x}"
    tracer.close()

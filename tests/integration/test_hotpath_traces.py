"""Spans beside the hot path: as many as configured, whoever answers, and every answer the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.store import Store
from cbk_gateway.telemetry import Tracer, TracingOptions
from harness import Stage, running
from integration.test_hotpath import head_of, hot, lasting
from integration.wires import Wire, wire

TIMES = 600


def traced(sample: float) -> tuple[Tracer, Any]:
    pytest.importorskip("opentelemetry.sdk")
    exported = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = exported.InMemorySpanExporter()
    return Tracer(TracingOptions(is_enabled=True, sample=sample), exporter), exporter


def roots(exporter: Any) -> list[Any]:
    return [span for span in exporter.get_finished_spans() if span.kind.name == "SERVER"]


async def until_known(stage: Stage, one: Wire, head: bytes) -> int:
    """Ask until the bytes are known, which takes a live memory; how often that was."""
    times = 0
    while not len(hot(stage)):
        await one.ask(head)
        times += 1
    return times


@pytest.mark.parametrize("sample", [0.0, 0.3, 1.0])
async def test_as_many_requests_are_recorded_as_configured(
    tmp_path: Path, valkey_url: str, store: Store, sample: float
) -> None:
    del store
    tracer, exporter = traced(sample)
    async with running(tmp_path, valkey_url, listen={"hot_path": "on"}) as stage:
        stage.gateway.parts.tracer = tracer
        head = head_of(stage.token())
        async with wire(stage) as one, asyncio.timeout(60):
            before = await until_known(stage, one, head)
            answers = [lasting(await one.ask(head)) for _ in range(TIMES)]
        served = hot(stage).served
        await asyncio.to_thread(tracer.close)
    recorded, times = len(roots(exporter)), before + TIMES
    hits = [answer for answer in answers if b"cbk-gateway; hit" in answer]
    assert len({*hits}) == 1
    assert len(hits) > TIMES / 2
    assert recorded + served <= times
    assert (served > 0) is (sample < 1.0)
    # Six standard deviations, which are none where nothing is left to chance.
    assert abs(recorded - sample * times) <= 6 * (sample * (1 - sample) * times) ** 0.5


async def test_a_trace_of_the_clients_own_is_never_left_out(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    del store
    tracer, exporter = traced(0.0)
    async with running(tmp_path, valkey_url, listen={"hot_path": "on"}) as stage:
        stage.gateway.parts.tracer = tracer
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        head = head_of(stage.token(), "/api/v1/bot/list", f"traceparent: 00-{trace}-00f067aa0ba902b7-01")
        async with wire(stage) as one, asyncio.timeout(30):
            await until_known(stage, one, head_of(stage.token()))
            recorded = [trace] * 30
            for _ in recorded:
                assert b" 200 " in await one.ask(head)
        assert (len(hot(stage)), hot(stage).served) == (1, 0)
        await asyncio.to_thread(tracer.close)
    assert [f"{span.context.trace_id:032x}" for span in roots(exporter)] == recorded


async def test_refusals_are_recorded_like_answers(tmp_path: Path, valkey_url: str, store: Store) -> None:
    del store
    tracer, exporter = traced(0.5)
    async with running(tmp_path, valkey_url, listen={"hot_path": "on"}) as stage:
        stage.gateway.parts.tracer = tracer
        head = head_of(stage.token("globex"))
        async with wire(stage) as one, asyncio.timeout(60):
            before = await until_known(stage, one, head)
            answers = [await one.ask(head) for _ in range(TIMES)]
        served = hot(stage).served
        await asyncio.to_thread(tracer.close)
    recorded, times = len(roots(exporter)), before + TIMES
    assert sum(b" 429 " in answer.split(b"\r\n", 1)[0] for answer in answers) > TIMES / 2
    assert served > 0
    assert recorded + served <= times
    assert abs(recorded - times / 2) <= 6 * (times / 4) ** 0.5

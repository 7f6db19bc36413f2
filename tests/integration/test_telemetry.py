"""What a running gateway tells its operators without being asked twice: gauges, traces, ids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.parties import Measure, Period, Quota, Rate, TenantLimits
from cbk_gateway.sandbox.request_log import RequestRecord
from cbk_gateway.store import Store
from cbk_gateway.telemetry import Tracer, TracingOptions
from harness import Stage, running, tenant

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def shown(stage: Stage) -> dict[str, float]:
    """Every series of the gateway by its text, as a scrape shows it."""
    body, _ = stage.gateway.parts.metrics.exposition()
    lines = [line for line in body.decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def until(condition: Callable[[], bool]) -> None:
    """Poll a condition, with a deadline."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def sent(record: RequestRecord, name: str) -> list[str]:
    """The values of a header as the upstream got it."""
    return [value for key, value in record.raw_headers if key.lower() == name]


async def test_the_state_of_every_part_is_shown_from_the_start(stage: Stage) -> None:
    series = shown(stage)
    assert series["cbk_gateway_store_available"] == 1
    assert series["cbk_gateway_audit_healthy"] == 1
    assert series['cbk_gateway_limiter_mode{mode="store"}'] == 1
    assert series["cbk_gateway_tenants"] == 5
    assert series['cbk_gateway_tenant_source_healthy{source="store"}'] == 1
    assert series['cbk_gateway_tenant_key_healthy{tenant="globex"}'] == 1
    assert series['cbk_gateway_limit_rate_per_second{policy="tenant",tenant="globex"}'] == 5
    assert series["cbk_gateway_config_applied_timestamp_seconds"] > 0


async def test_a_write_is_counted_from_its_intent_to_its_outcome(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    async with client.post(
        f"{stage.url}/api/v1/bot/create", headers=stage.bearer(), json={"name": "a"}
    ) as answer:
        await answer.read()
        series = shown(stage)
    assert series["cbk_gateway_client_connections"] == 1
    await until(lambda: shown(stage)["cbk_gateway_requests_in_flight"] == 0)
    series = shown(stage)
    assert series["cbk_gateway_audit_open_intents"] == 0
    assert series['cbk_gateway_audit_outcomes_total{outcome="answered"}'] == 1
    assert series["cbk_gateway_store_call_seconds_count"] > 0
    assert series["cbk_gateway_upstream_reachable"] == 1


async def test_use_of_rates_and_quotas_is_looked_at_in_the_background(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    limits = TenantLimits(
        rates=(Rate("tenant", 0.001, 4),), quotas=(Quota("month", Period.MONTH, Measure.REQUESTS, 10),)
    )
    async with running(tmp_path, valkey_url, tenants=(tenant("acme", limits=limits),)) as stage:
        for _ in range(2):
            async with client.get(f"{stage.url}/api/v1/bot/list", headers=stage.bearer()) as answer:
                assert answer.status == 200
        rate = 'cbk_gateway_limit_use_ratio{policy="tenant",tenant="acme"}'
        quota = 'cbk_gateway_quota_use_ratio{quota="month",tenant="acme"}'
        await until(lambda: shown(stage).get(rate, 0) == pytest.approx(0.5, abs=0.01))
        assert shown(stage)[quota] == pytest.approx(0.2)


async def test_a_reload_that_changes_nothing_is_counted_as_such(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    assert await stage.gateway.reload_tenants()
    assert shown(stage)['cbk_gateway_config_reloads_total{result="unchanged"}'] == 1


async def test_a_clients_trace_goes_on_upstream_and_into_the_journal(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    headers = {**stage.bearer(), "traceparent": PARENT, "tracestate": "vendor=1"}
    async with client.post(f"{stage.url}/api/v1/bot/create", headers=headers, json={"name": "a"}) as answer:
        assert answer.status == 200
    (parent,) = sent(stage.sandbox.requests[-1], "traceparent")
    version, trace, span, flags = parent.split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != PARENT.split("-")[2]
    assert sent(stage.sandbox.requests[-1], "tracestate") == ["vendor=1"]
    assert [one["trace_id"] for one in stage.journal() if one["kind"] == "intent"] == [TRACE]


@pytest.mark.parametrize("received", [None, "nonsense", f"00-{'0' * 32}-00f067aa0ba902b7-01"])
async def test_without_a_usable_trace_one_begins_here(
    stage: Stage, client: aiohttp.ClientSession, received: str | None
) -> None:
    headers = {**stage.bearer(), **({"traceparent": received} if received is not None else {})}
    async with client.get(f"{stage.url}/api/v1/bot/list", headers=headers) as answer:
        assert answer.status == 200
    (parent,) = sent(stage.sandbox.requests[-1], "traceparent")
    assert parent.endswith("-00")
    assert parent.split("-")[1] not in {"0" * 32, TRACE}


async def test_spans_are_made_when_tracing_is_enabled(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    pytest.importorskip("opentelemetry.sdk")
    exported = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

    exporter = exported.InMemorySpanExporter()
    async with running(tmp_path, valkey_url) as stage:
        tracer = Tracer(TracingOptions(is_enabled=True, sample=1.0), exporter)
        stage.gateway.parts.tracer = tracer
        async with client.get(
            f"{stage.url}/api/v1/bot/list", headers={**stage.bearer(), "traceparent": PARENT}
        ) as answer:
            assert answer.status == 200
        (parent,) = sent(stage.sandbox.requests[-1], "traceparent")
        await until(lambda: shown(stage)["cbk_gateway_requests_in_flight"] == 0)
        await asyncio.to_thread(tracer.close)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {"GET /bot/list", "identify", "admit", "upstream"} <= {
        name.replace("/api/v1", "") for name in spans
    }
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE}
    assert parent.split("-")[2] == f"{spans['upstream'].context.span_id:016x}"


@pytest.mark.parametrize(
    ("switched", "wanted"),
    [
        ({}, 'requests_total{action="list",cache="miss",resource="bot",status="200",tenant="acme"}'),
        ({"labels_off": ["tenant", "action", "status"]}, 'requests_total{cache="miss",resource="bot"}'),
        ({"metrics": False}, None),
    ],
    ids=["all", "without labels", "off"],
)
async def test_metrics_and_labels_are_switched_by_the_settings(
    tmp_path: Path,
    valkey_url: str,
    store: Store,
    client: aiohttp.ClientSession,
    switched: dict[str, object],
    wanted: str | None,
) -> None:
    async with running(tmp_path, valkey_url, telemetry=switched) as stage:
        async with client.get(f"{stage.url}/api/v1/bot/list", headers=stage.bearer()) as answer:
            assert answer.status == 200
        if wanted is None:
            assert shown(stage) == {}
        else:
            await until(lambda: shown(stage).get(f"cbk_gateway_{wanted}") == 1)

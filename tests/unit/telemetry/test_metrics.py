"""One process's metrics, as Prometheus reads them."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from cbk_gateway.telemetry import Ledger, Metrics

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"cbk_gateway_{name}", labels)


def test_a_request_is_counted_with_its_labels() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.request("acme", "bot", "list", 200, "miss", 0.3, 0.2)
    labels = {"tenant": "acme", "resource": "bot", "action": "list", "status": "200", "cache": "miss"}
    assert sample(metrics, "requests_total", **labels) == 3


def test_latency_is_told_three_ways() -> None:
    metrics = Metrics()
    metrics.request("acme", "bot", "list", 200, "miss", 0.3, 0.2, effect="read")
    assert sample(metrics, "request_duration_seconds_sum", effect="read", cache="miss") == 0.3
    assert sample(metrics, "upstream_duration_seconds_sum", effect="read") == 0.2
    assert sample(metrics, "gateway_duration_seconds_sum", effect="read", cache="miss") == pytest.approx(0.1)


def test_a_request_answered_without_the_upstream_has_no_upstream_latency() -> None:
    metrics = Metrics()
    metrics.request("acme", "bot", "list", 200, "hit", 0.001)
    assert sample(metrics, "upstream_duration_seconds_count", effect="read") == 0
    assert sample(metrics, "gateway_duration_seconds_sum", effect="read", cache="hit") == 0.001


def test_the_gateways_share_is_never_negative() -> None:
    metrics = Metrics()
    metrics.request("acme", "bot", "list", 200, "miss", 0.1, 0.2)
    assert sample(metrics, "gateway_duration_seconds_sum", effect="read", cache="miss") == 0


def test_bound_cells_count_like_the_event() -> None:
    metrics = Metrics()
    cells = metrics.bind_request("acme", "bot", "list", 200, "hit")
    cells.observe(0.001, None, "abc")
    metrics.request("acme", "bot", "list", 200, "hit", 0.002)
    assert cells is metrics.bind_request("acme", "bot", "list", 200, "hit")
    assert sample(metrics, "request_duration_seconds_count", effect="read", cache="hit") == 2


def test_a_thousand_tenants_make_no_more_series_than_the_cap() -> None:
    metrics = Metrics(tenant_cap=10)
    for number in range(1000):
        metrics.request(f"tenant-{number}", "bot", "list", 200, "hit", 0.001)
        metrics.refusal("rate", 429, f"tenant-{number}")
    tenants = {
        found.labels["tenant"]
        for family in metrics.registry.collect()
        for found in family.samples
        if "tenant" in found.labels
    }
    assert len(tenants) == 11
    labels = {"tenant": "other", "resource": "bot", "action": "list", "status": "200", "cache": "hit"}
    assert sample(metrics, "requests_total", **labels) == 990


def test_labels_switched_off_are_summed_away() -> None:
    metrics = Metrics(labels_off=frozenset({"tenant", "action"}))
    metrics.request("acme", "bot", "list", 200, "hit", 0.001)
    metrics.request("globex", "bot", "fetch", 200, "hit", 0.001)
    assert sample(metrics, "requests_total", resource="bot", status="200", cache="hit") == 2


def test_switched_off_nothing_is_kept_and_every_event_may_still_be_told() -> None:
    metrics, told = Metrics(is_enabled=False), Metrics()
    for one in (metrics, told):
        one.request("acme", "bot", "list", 200, "hit", 0.001, request_id="01-abc")
        one.bind_request("acme", "bot", "list", 200, "hit").observe_quick(3, 0.001, "01-abc")
        one.refusal("rate", 429, "acme")
        one.request_started()
        one.stream_opened("acme")
        one.stream_first_byte(0.1)
        one.limits.use("acme", "default", 0.5)
        one.limits.paced("acme", 0.1)
        one.cache.feed_lag(0.1)
    assert any(told.families().values())
    assert not any(metrics.families().values())
    body, content_type = metrics.exposition(OPENMETRICS)
    assert body == b"# EOF\n"
    assert content_type.startswith("application/openmetrics-text")
    assert Ledger().update(metrics.snapshot()) == "0"


def test_a_caller_nobody_knows_is_shown_as_none() -> None:
    metrics = Metrics()
    metrics.refusal("no_token", 401, None)
    assert sample(metrics, "refusals_total", reason="no_token", status="401", tenant="none") == 1


def test_openmetrics_carries_request_ids_as_exemplars() -> None:
    metrics = Metrics()
    metrics.request("acme", "bot", "list", 200, "hit", 0.002, request_id="01-abc")
    body, content_type = metrics.exposition(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    exemplars = [
        found.exemplar
        for family in parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]  # it has no types
        for found in family.samples
        if found.exemplar is not None
    ]
    assert [(exemplar.labels, exemplar.value) for exemplar in exemplars] == [
        ({"request_id": "01-abc"}, 0.002)
    ]


@pytest.mark.parametrize("accept", ["", "text/plain;version=0.0.4", "*/*"])
def test_the_plain_format_is_given_when_nothing_else_is_asked(accept: str) -> None:
    metrics = Metrics()
    metrics.request("acme", "bot", "list", 200, "hit", 0.002, request_id="01-abc")
    body, content_type = metrics.exposition(accept)
    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"01-abc" not in body
    assert {family.name for family in parse_plain(body.decode())} >= {"cbk_gateway_requests"}


def test_streams_are_counted_open_and_ended() -> None:
    metrics = Metrics()
    metrics.stream_opened("acme")
    metrics.stream_opened("acme")
    metrics.stream_ended("acme", "complete", 2.0)
    assert sample(metrics, "streams_open", tenant="acme") == 1
    assert sample(metrics, "stream_endings_total", ending="complete") == 1
    assert sample(metrics, "stream_duration_seconds_sum") == 2


def test_requests_under_way_go_up_and_down() -> None:
    metrics = Metrics()
    metrics.request_started()
    metrics.request_started()
    metrics.request_ended()
    assert sample(metrics, "requests_in_flight") == 1


def test_bodies_of_no_bytes_make_no_series() -> None:
    metrics = Metrics()
    metrics.bodies("acme", 0, 12)
    assert sample(metrics, "request_body_bytes_total", tenant="acme") is None
    assert sample(metrics, "response_body_bytes_total", tenant="acme") == 12


def test_only_the_mode_in_force_is_shown_as_on() -> None:
    metrics = Metrics()
    metrics.limits.mode_changed("store")
    metrics.limits.mode_changed("local")
    assert sample(metrics, "limiter_mode", mode="store") == 0
    assert sample(metrics, "limiter_mode", mode="local") == 1


@pytest.mark.parametrize(("state", "number"), [("closed", 0), ("half_open", 1), ("open", 2)])
def test_the_breakers_state_is_a_number(state: str, number: int) -> None:
    metrics = Metrics()
    metrics.upstream.breaker_changed("upstream", state)
    assert sample(metrics, "upstream_breaker_state", scope="upstream") == number
    assert sample(metrics, "upstream_breaker_changes_total", scope="upstream", state=state) == 1


def test_readings_are_taken_at_each_scrape() -> None:
    metrics = Metrics()
    sizes = iter([10, 20])
    metrics.before_scrape(lambda: metrics.cache.memory(1, next(sizes)))
    assert b"cache_size_bytes 10" in metrics.exposition()[0]
    assert b"cache_size_bytes 20" in metrics.exposition()[0]


PLAUSIBLE: dict[str, object] = {
    "str": "word",
    "str | None": "word",
    "int": 1,
    "float": 0.5,
    "float | None": 0.5,
    "bool": True,
    "Mapping[tuple[str, str], float]": {("current", "acme"): 1.0},
}


def events_of(part: object) -> list[Callable[..., None]]:
    return [
        method
        for name, method in inspect.getmembers(part, inspect.ismethod)
        if not name.startswith("_") and inspect.signature(method).return_annotation == "None"
    ]


def plausible_arguments(event: Callable[..., None]) -> dict[str, object]:
    return {
        parameter.name: PLAUSIBLE[str(parameter.annotation)]
        for parameter in inspect.signature(event).parameters.values()
        if parameter.default is inspect.Parameter.empty
    }


def test_every_event_moves_something() -> None:
    metrics = Metrics()
    areas = [
        getattr(metrics, name)
        for name in ("limits", "cache", "audit", "upstream", "store", "identity", "tenancy")
    ]
    for part in [metrics, *areas, metrics.runtime]:
        for event in events_of(part):
            if event.__name__ in {"before_scrape", "keep_only"}:
                continue
            before = metrics.families()
            event(**plausible_arguments(event))
            assert metrics.families() != before, event.__qualname__


def test_a_tenant_that_left_is_not_shown_any_more() -> None:
    metrics = Metrics()
    for tenant in ("acme", "gone"):
        metrics.limits.configured(tenant, "default", 5)
        metrics.limits.quota_use(tenant, "month", 0.5)
        metrics.tenancy.health_changed(tenant, is_healthy=True)
    metrics.limits.keep_only({"acme"})
    metrics.tenancy.keep_only({"acme"})
    shown = metrics.exposition()[0]
    assert b'tenant="acme"' in shown
    assert b'tenant="gone"' not in shown

"""The sum over workers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.telemetry import Ledger, Metrics
from cbk_gateway.telemetry.ledger import merge

REQUEST = {"tenant": "acme", "resource": "bot", "action": "list", "status": "200", "cache": "hit"}


def worker(name: str, requests: int = 0, tenant: str = "acme") -> Metrics:
    metrics = Metrics(worker=name)
    for _ in range(requests):
        metrics.request(tenant, "bot", "list", 200, "hit", 0.002, request_id=f"of-{name}")
    return metrics


def total(ledger: Ledger, name: str = "requests_total", **labels: str) -> float | None:
    return ledger.registry.get_sample_value(f"cbk_gateway_{name}", labels or REQUEST)


def test_one_worker_is_exposed_as_it_would_expose_itself() -> None:
    metrics = worker("0", 3)
    ledger = Ledger()
    ledger.update(metrics.snapshot())
    accept = "application/openmetrics-text;version=1.0.0"
    assert ledger.exposition() == metrics.exposition()
    assert ledger.exposition(accept) == metrics.exposition(accept)


def test_counters_and_histograms_of_workers_are_summed() -> None:
    ledger = Ledger()
    ledger.update(worker("0", 3).snapshot())
    ledger.update(worker("1", 4).snapshot())
    assert total(ledger) == 7
    assert total(ledger, "request_duration_seconds_bucket", effect="read", cache="hit", le="0.0025") == 7
    assert total(ledger, "request_duration_seconds_bucket", effect="read", cache="hit", le="0.001") == 0


def test_a_newer_snapshot_takes_the_place_of_the_older() -> None:
    ledger = Ledger()
    metrics = worker("0", 3)
    ledger.update(metrics.snapshot())
    metrics.request("acme", "bot", "list", 200, "hit", 0.002)
    ledger.update(metrics.snapshot())
    assert total(ledger) == 4


def test_counters_do_not_go_back_when_a_worker_dies() -> None:
    ledger = Ledger()
    ledger.update(worker("0", 3).snapshot())
    ledger.update(worker("1", 4).snapshot())
    ledger.retire("0")
    assert total(ledger) == 7
    ledger.update(worker("0", 2).snapshot())
    assert total(ledger) == 9


def test_a_successor_retires_the_worker_before_it_by_its_first_snapshot() -> None:
    ledger = Ledger()
    ledger.update(worker("0", 3).snapshot())
    ledger.update(worker("0", 2).snapshot())
    assert total(ledger) == 5
    ledger.update(worker("0", 1).snapshot())
    assert total(ledger) == 6


def test_retiring_a_worker_twice_counts_it_once() -> None:
    ledger = Ledger()
    ledger.update(worker("0", 3).snapshot())
    ledger.retire("0")
    ledger.retire("0")
    assert total(ledger) == 3


def test_the_gauges_of_a_dead_worker_are_dropped() -> None:
    ledger = Ledger()
    metrics = worker("0")
    metrics.stream_opened("acme")
    ledger.update(metrics.snapshot())
    assert total(ledger, "streams_open", tenant="acme") == 1
    ledger.retire("0")
    assert total(ledger, "streams_open", tenant="acme") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cache_feed_lag_seconds", 7), ("store_available", 0), ("audit_queue_records", 12)],
    ids=["the worst lag", "available only if all are", "queues add up"],
)
def test_gauges_are_put_together_as_their_row_says(name: str, expected: float) -> None:
    ledger = Ledger()
    for place, (lag, available, queue) in enumerate([(7, True, 4), (2, False, 8)]):
        metrics = worker(str(place))
        metrics.cache.feed_lag(lag)
        metrics.store.available(is_available=available)
        metrics.audit.health(is_healthy=True, waiting=queue, last_sync_age_s=None)
        ledger.update(metrics.snapshot())
    assert ledger.registry.get_sample_value(f"cbk_gateway_{name}") == expected


def test_the_sum_shows_no_more_tenants_than_the_cap_and_keeps_those_it_showed() -> None:
    ledger = Ledger(tenant_cap=3)
    first, second = Metrics(worker="0"), Metrics(worker="1")
    for number in range(4):
        first.model_tokens(f"first-{number}", 1)
        second.model_tokens(f"second-{number}", 1)
    ledger.update(first.snapshot())
    shown = {labels for (_, labels) in ledger.families()["cbk_gateway_model_tokens_total"]}
    ledger.update(second.snapshot())
    series = ledger.families()["cbk_gateway_model_tokens_total"]
    assert shown <= {labels for (_, labels) in series}
    assert len(series) <= 6
    assert sum(value for value in series.values() if isinstance(value, int | float)) == 8


def test_a_metric_of_another_version_is_left_out() -> None:
    ledger = Ledger()
    encoded = worker("0", 1).snapshot().replace(b"cbk_gateway_requests_total", b"cbk_gateway_unheard_total")
    ledger.update(encoded)
    assert b"unheard" not in ledger.exposition()[0]


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"[]",
        b"{}",
        b'{"version":2}',
        b'{"version":1,"worker":"0","incarnation":"x","families":{"cbk_gateway_x":[[[],[],[1,2,3]]]}}',
    ],
)
def test_what_is_no_snapshot_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - orjson's own message for some
        Ledger().update(encoded)


def test_a_ledger_taken_twice_gives_the_same() -> None:
    ledger = Ledger()
    ledger.update(worker("0", 3).snapshot())
    ledger.retire("0")
    ledger.update(worker("1", 3).snapshot())
    assert ledger.exposition() == ledger.exposition()


def test_merge_adds_up_snapshots_at_once() -> None:
    body, _ = merge([worker("0", 3).snapshot(), worker("1", 4).snapshot()])
    assert b'requests_total{action="list",cache="hit",resource="bot",status="200",tenant="acme"} 7.0' in body


@given(
    st.lists(
        st.tuples(st.sampled_from("012"), st.sampled_from(["serve", "die", "scrape"])),
        min_size=1,
        max_size=40,
    )
)
def test_no_order_of_serving_dying_and_scraping_makes_a_counter_fall(
    events: list[tuple[str, str]],
) -> None:
    # Invariant: the sum never falls, and after a scrape it is everything that was scraped alive or dead.
    ledger = Ledger()
    alive: dict[str, Metrics] = {}
    shown = 0.0
    for name, event in events:
        metrics = alive.setdefault(name, Metrics(worker=name))
        if event == "serve":
            metrics.model_tokens("acme", 5)
        elif event == "die":
            ledger.retire(name)
            del alive[name]
        else:
            ledger.update(metrics.snapshot())
        series = ledger.families().get("cbk_gateway_model_tokens_total", {})
        now = sum(value for value in series.values() if isinstance(value, int | float))
        assert now >= shown
        shown = now

"""The guide to scale says what the simulation gives, and the simulation obeys the rules it is about."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import scale
from benchmarks.scale import Costs, Fleet, Traffic, figures
from cbk_gateway.parties import Rate
from deploy_tools import DEPLOY

TRAFFIC = Traffic(requests_s=20_000, tenants=300)
FLEET = Fleet(gateways=8, workers=4)
LEASES = (5.0, 2.0, 8.0)


def test_the_guide_has_the_tables_that_the_simulation_prints() -> None:
    guide = (DEPLOY / "SCALE.md").read_text()
    assert scale.table() in guide
    assert scale.renewed(guide) == guide


def test_workers_follow_from_the_results_of_the_benchmarks() -> None:
    costs = {"cached": 60.0, "forwarded": 600.0, "write audited": 6000.0}
    results = "".join(f"| {work} | {cost} | 1 | 2 | 3 |\n" for work, cost in costs.items())
    rows = scale.workers_table(results).splitlines()
    # (0.93 x 60 + 0.05 x 600 + 0.02 x 6000) us are 0.2058 processors of 1,000 requests/s.
    assert rows[-2] == "| 100,000 | 35 | 118 |"


def test_below_the_least_demand_nearly_every_request_asks_the_store() -> None:
    rate = Rate("tenant", 100, 200)
    assert scale.calls_per_request(0.5, rate, 8, *LEASES) > 0.9
    assert scale.calls_per_request(20.0, rate, 8, *LEASES) < 0.5


def test_a_bucket_too_small_to_lease_of_is_asked_each_time() -> None:
    assert scale.calls_per_request(20.0, Rate("tenant", 40, 80), 64, *LEASES) == 1.0


def test_fewer_workers_or_larger_bursts_ask_the_store_less() -> None:
    usual = figures(TRAFFIC, FLEET).calls_per_request
    assert figures(TRAFFIC, dataclasses.replace(FLEET, cells=4)).calls_per_request < usual / 1.2
    assert figures(dataclasses.replace(TRAFFIC, burst_s=20), FLEET).calls_per_request < usual / 1.2


def test_cells_make_the_feed_lighter_and_more_shards_do_not() -> None:
    whole = figures(TRAFFIC, FLEET)
    divided = figures(TRAFFIC, dataclasses.replace(FLEET, cells=4))
    assert divided.feed_share < whole.feed_share / 8
    assert divided.acks_per_write == 7
    assert whole.acks_per_write == 31
    assert whole.acks_s == 31 * TRAFFIC.requests_s * TRAFFIC.writes


def test_a_bounded_write_waits_for_nobody() -> None:
    assert figures(TRAFFIC, dataclasses.replace(FLEET, strict=False)).acks_per_write == 0


def test_a_dearer_store_needs_more_shards() -> None:
    cheap, dear = (figures(TRAFFIC, FLEET, Costs(one, 5, 0.5)).shards for one in (10.0, 200.0))
    assert dear > cheap >= 1


def test_all_requests_are_somebodys() -> None:
    for cells in (1, 4, 100):
        assert sum(scale.shares(TRAFFIC, cells)) == pytest.approx(TRAFFIC.requests_s / cells)


async def test_the_costs_are_taken_from_a_real_store() -> None:
    found = await scale.measured(calls=320, subscribers=4)
    assert found.script >= 0
    assert found.publish >= 0
    assert found != scale.COSTS

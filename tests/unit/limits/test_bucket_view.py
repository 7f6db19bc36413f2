"""What a worker may conclude from what it knows: leases, memory, shares."""

from __future__ import annotations

import pytest

from cbk_gateway.limits.bucket_view import BucketView
from cbk_gateway.limits.plan import BucketRef
from cbk_gateway.parties import Rate


def view(per_second: float = 100, burst: float = 200) -> BucketView:
    return BucketView(BucketRef("cbkgw:{t}:rate:r", Rate("r", per_second, burst), "t"))


def test_a_lease_pays_until_its_end_and_no_longer() -> None:
    one = view()
    one.begin_lease(5, 10.0, 7)
    assert one.covers(5, 9.9)
    assert not one.covers(5.5, 9.9)
    assert not one.covers(1, 10.0)


def test_a_live_lease_is_not_reported_as_ended() -> None:
    one = view()
    one.begin_lease(5, 10.0, 7)
    assert (one.draw(1, 0).closed, one.draw(1, 0).closed_epoch) == (0, -1)
    one.end_lease()
    assert (one.draw(1, 0).closed, one.draw(1, 0).closed_epoch, one.draw(1, 0).given_back) == (5, 7, 5)
    assert one.take_report() == 5
    assert (one.draw(1, 0).closed_epoch, one.draw(1, 0).given_back) == (-1, 0)


def test_of_two_slices_fetched_at_a_time_one_goes_back() -> None:
    one = view()
    one.begin_lease(5, 10.0, 7)
    one.begin_lease(6, 10.1, 7)
    assert (one.lease, one.given_back) == (6, 5)


@pytest.mark.parametrize(
    ("per_second", "burst", "asked_per_window", "workers", "size"),
    [
        (5, 10, 1000, 1, 0),
        (200, 400, 2, 1, 0),
        (200, 400, 50, 1, 100),
        (200, 400, 6, 1, 80),
        (1e6, 2e6, 2500, 1, 49960),
        (200, 40, 1000, 1, 20),
        (200, 40, 1000, 4, 0),
        (1000, 2000, 1000, 4, 250),
    ],
)
def test_a_slice_follows_demand_and_never_hogs_the_bucket(
    per_second: float, burst: float, asked_per_window: int, workers: int, size: float
) -> None:
    one = view(per_second, burst)
    one.note(0, 100.0)
    for _ in range(asked_per_window):
        one.note(1, 100.1)
    assert one.slice_tokens(5.0, 2, 8, workers) == size


@pytest.mark.parametrize(
    ("asked", "left", "size"), [(50, 3, 24), (1000, 3, 25), (1000, 96, 25), (1000, 200, 50), (4, 0, 24)]
)
def test_a_slice_of_a_bucket_that_runs_dry_is_small(asked: int, left: float, size: float) -> None:
    one = view(200, 400)
    one.learn(left, 1, 100.0)
    for _ in range(asked):
        one.note(1, 100.1)
    assert one.slice_tokens(5.0, 2, 8, 1) == size


def test_each_cost_has_a_memory_of_its_own() -> None:
    one = view()
    one.block(1, 10.0)
    one.block(5, 12.0)
    assert [one.blocks(cost, 11.0) for cost in (1, 5, 9)] == [False, True, False]
    for cost in range(100):
        one.block(cost, 20.0)
    assert len(one.blocked) <= 32


def test_a_drained_bucket_does_not_fill_up_while_it_is_left_alone() -> None:
    one = view(100, 20)
    assert one.spacing_s(50, 8) * 100 <= 20 * 0.75


def test_shares_of_all_workers_add_up_to_the_limit() -> None:
    admitted = 0
    for _ in range(4):
        one = view(100, 200)
        admitted += sum(one.take_share(1, 4, 50.0) == 0 for _ in range(300))
        admitted += sum(one.take_share(1, 4, 51.0) == 0 for _ in range(300))
    assert admitted == 200 + 100


def test_a_share_starts_from_what_was_known() -> None:
    one = view(100, 200)
    one.learn(4, 1, 50.0)
    assert [one.take_share(1, 4, 50.0) for _ in range(2)] == [0, pytest.approx(0.04)]
    assert one.ceiling(4) == 0


def test_a_small_limit_among_many_workers_still_admits() -> None:
    assert view(1, 2).take_share(1, 16, 50.0) == 0


def test_the_estimate_never_promises_more_than_the_burst() -> None:
    one = view(100, 200)
    one.learn(150, 1, 50.0)
    one.begin_lease(40, 60.0, 0)
    assert one.estimate(50.0) == 190
    assert one.estimate(55.0) == 200

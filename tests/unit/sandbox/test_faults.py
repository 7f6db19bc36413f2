from __future__ import annotations

import pytest

from cbk_gateway.sandbox.answers import ApiError
from cbk_gateway.sandbox.faults import Fault, FaultBook, read_fault


@pytest.mark.parametrize(
    ("glob", "method", "hits"),
    [
        ("/v1/bot/*", "GET", True),
        ("/api/v1/bot/*", "GET", True),
        ("/v1/bot/list", "GET", True),
        ("*", "GET", True),
        ("/v1/dataset/*", "GET", False),
        ("/v1/bot", "GET", False),
    ],
)
def test_a_glob_may_use_either_prefix_of_the_api(glob: str, method: str, hits: bool) -> None:
    book = FaultBook()
    book.add(Fault(path=glob, fault="latency"))
    assert bool(book.strike(method, "/v1/bot/list")) is hits
    assert bool(book.strike(method, "/api/v1/bot/list")) is hits


def test_a_fault_strikes_as_often_as_it_was_told() -> None:
    book = FaultBook()
    book.add(Fault(path="*", fault="status", value=500, times=2))
    struck = [bool(book.strike("GET", "/v1/bot/list")) for _ in range(3)]
    assert struck == [True, True, False]
    assert book.listing()[0].hits == 2


def test_a_fault_for_one_method_leaves_the_others_alone() -> None:
    book = FaultBook()
    book.add(Fault(path="*", fault="status", method="POST", value=500))
    assert not book.strike("GET", "/v1/bot/list")
    assert book.strike("POST", "/v1/bot/create")


def test_the_first_of_two_faults_of_a_name_wins_and_different_ones_add_up() -> None:
    book = FaultBook()
    for fault, value in (("status", 500), ("status", 502), ("latency", 1)):
        book.add(Fault(path="*", fault=fault, value=value))
    struck = book.strike("GET", "/v1/bot/list")
    assert struck["status"].value == 500
    assert set(struck) == {"status", "latency"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"path": "*"},
        {"path": "", "fault": "latency"},
        {"path": "*", "fault": "gremlins"},
        {"path": "*", "fault": "latency", "value": "long"},
        {"path": "*", "fault": "latency", "value": True},
        {"path": "*", "fault": "latency", "value": -1},
        {"path": "*", "fault": "status"},
        {"path": "*", "fault": "status", "value": 99},
        {"path": "*", "fault": "status", "value": {"after_effect": True}},
        {"path": "*", "fault": "latency", "times": 0},
        {"path": "*", "fault": "latency", "method": 5},
        {"path": "*", "fault": "latency", "tiems": 1},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(ApiError) as refused:
        read_fault(body)
    assert refused.value.status == 400

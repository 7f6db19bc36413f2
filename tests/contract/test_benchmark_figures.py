"""What the benchmarks say of what they measured: targets met, and figures worse than the committed ones.

The measurements themselves are no tests; see `benchmarks/__main__.py`.
"""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterator

import pytest

from benchmarks import open_loop, report
from benchmarks.figure import Figure

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
LACK = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("a", (0.5, 0.6, 9.0), 0.7), True),
        (Figure("a", (0.5, 0.8, 0.9), 0.7), False),
        (Figure("a", (0.99, 0.9, 0.97), 0.95, at_least=True), True),
        (Figure("a", (0.5,), None), None),
        (Figure("a", (0.5, math.nan), 0.7), None),
        (Figure("a", (), 0.7), None),
    ],
    ids=["below", "above", "at least", "nothing wanted", "a round failed", "no round"],
)
def test_the_middle_of_the_rounds_meets_the_target_or_not(figure: Figure, met: bool | None) -> None:
    assert figure.is_met is met
    assert ("not measured" in figure.row()) is (met is None and figure.bound is not None)


@pytest.mark.parametrize(
    ("figure", "before", "is_worse"),
    [
        (Figure("a", (1.11,)), 1.0, True),
        (Figure("a", (1.09,)), 1.0, False),
        (Figure("a", (0.5,)), 1.0, False),
        (Figure("a", (0.89,), 0.95, at_least=True), 1.0, True),
        (Figure("a", (0.92,), 0.95, at_least=True), 1.0, False),
        (Figure("a", (0.002,), 0.05), 0.001, False),
        (Figure("a", (math.nan,)), 1.0, False),
    ],
    ids=[
        "a tenth more",
        "less than a tenth",
        "better",
        "a tenth less",
        "hardly less",
        "next to nothing",
        "none",
    ],
)
def test_a_tenth_worse_is_reported(figure: Figure, before: float, is_worse: bool) -> None:
    assert figure.is_worse_than(before) is is_worse


def test_a_rung_that_was_answered_otherwise_gives_no_ratio() -> None:
    good = [{"cpu_us": 5.0, "per_second": 100.0, "count": 100.0, "others": 0.0}]
    bad = [{**good[0], "others": 60.0}]
    (figure,) = report.ratios({"cached": good, "nginx cached": bad})
    assert figure.is_met is None
    (figure,) = report.ratios({"cached": good, "nginx cached": [{**good[0], "cpu_us": 10.0}]})
    assert figure.median == 0.5


@pytest.fixture
def url() -> Iterator[str]:
    """A server of two connections; on each, every fourth request is not found, and answers come in pieces."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            count = 0
            while connection.recv(65_536):
                count += 1
                answer = LACK if count % 4 == 0 else ANSWER
                for start in range(0, len(answer), 16):
                    connection.sendall(answer[start : start + 16])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [threading.Thread(target=serve) for _ in range(2)]
        for one in threads:
            one.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/list"
        for one in threads:
            one.join()


def test_the_open_loop_sends_every_request_and_counts_the_answers(url: str) -> None:
    told = open_loop.run(url, ("Accept: */*",), rate=2000, seconds=0.02, connections=2)
    assert told.count == 40
    # Ten when both connections serve as many; one that is slower serves fewer.
    assert 9 <= told.others <= 10
    assert 0 < told.p50_ms <= told.p99_ms <= told.most_ms

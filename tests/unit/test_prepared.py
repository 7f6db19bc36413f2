"""Prepared answers: the same head as the one they were made from, with new values in the gaps."""

from __future__ import annotations

import pytest

from cbk_gateway.prepared import PreparedHit, answer_head, prepare, rate_lines

RATES = {"RateLimit": '"tenant";r=7;t=1', "X-RateLimit-Remaining": "7"}
FIELDS = (
    ("Content-Type", "application/json"),
    ("ETag", '"100%-{x}"'),
    ("Age", "3"),
    ("X-Request-Id", "abc"),
    ("Server", "cbk-gateway"),
    *RATES.items(),
    ("Cache-Status", "cbk-gateway; hit; ttl=57"),
    ("Server-Timing", "total;dur=0.250, gateway;dur=0.250, cache;desc=hit"),
    ("Content-Length", "2"),
    ("Date", "Sun, 22 Nov 2026 19:00:00 GMT"),
)
LINE = "HTTP/1.1 200 OK"
DATE = "Sun, 22 Nov 2026 19:00:00 GMT"


def whole(
    prepared: PreparedHit, age_s: int, name: str, rates: bytes, ttl_s: int, spent_s: float, date: str
) -> bytes:
    first, second, third, last = prepared.render(age_s, ttl_s, date)
    return b"".join((first, name.encode(), second, rates, third, prepared.timing(spent_s), last))


@pytest.mark.parametrize("missing", [(), ("Server-Timing",), tuple(RATES), (*RATES, "Server-Timing")])
def test_what_was_said_is_said_again(missing: tuple[str, ...]) -> None:
    fields = [one for one in FIELDS if one[0] not in missing]
    rates = {} if "RateLimit" in missing else RATES
    prepared = prepare(LINE, fields, b"{}", rates)
    assert prepared is not None
    said = whole(prepared, 3, "abc", rate_lines(rates), 57, 0.0002505, DATE)
    assert said == answer_head(LINE, fields) + b"{}"


def test_the_gaps_take_new_values() -> None:
    prepared = prepare(LINE, FIELDS, b"{}", RATES)
    assert prepared is not None
    head = whole(prepared, 4, "new", b"RateLimit: other\r\n", 56, 0.0010005, "later").decode()
    for said in ("Age: 4\r\n", "X-Request-Id: new\r\n", "RateLimit: other\r\n", "; ttl=56\r\n", "dur=1.000"):
        assert said in head
    assert head.endswith("Date: later\r\n\r\n{}")
    assert '"100%-{x}"' in head


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Cache-Status", "cbk-gateway; hit; ttl=57; detail=shared"),
        ("Cache-Status", "cbk-gateway; fwd=miss"),
        ("Cache-Status", "cbk-gateway; hit; ttl=-1"),
        ("Server-Timing", "total;dur=1.0, upstream;dur=0.5, gateway;dur=0.5, cache;desc=hit"),
    ],
)
def test_other_answers_are_not_repeated(name: str, value: str) -> None:
    fields = [(one, value if one == name else said) for one, said in FIELDS]
    assert prepare(LINE, fields, b"{}", RATES) is None


@pytest.mark.parametrize("missing", ["Age", "X-Request-Id", "Cache-Status", "Date"])
def test_an_answer_without_a_gap_is_not_repeated(missing: str) -> None:
    assert prepare(LINE, [one for one in FIELDS if one[0] != missing], b"{}", RATES) is None

"""Prepared refusals: the words of the full path, with new ones in the gaps."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime

import pytest

from cbk_gateway.errors import GatewayTimeout, NotAuthenticated, Refusal, TooManyRequests
from cbk_gateway.prepared_refusal import DateLine, PreparedRefusal

REFUSALS = [
    pytest.param(NotAuthenticated("No.", reason="signature"), id="401"),
    pytest.param(
        TooManyRequests("Slower.", retry_after_s=3, reason="rate", details={"policy": "a"}), id="429"
    ),
    pytest.param(GatewayTimeout("Late."), id="504"),
]


@pytest.mark.parametrize("shows_timing", [True, False])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_every_gap_is_filled_and_the_length_is_right(refusal: Refusal, shows_timing: bool) -> None:
    prepared = PreparedRefusal(
        refusal, b"RateLimit: x;r=1\r\n", [("Vary", "Origin")], shows_timing=shows_timing
    )
    for name in ("1a2b3c", "a" * 29, "request-id"):
        answer = prepared.answer(name, 0.000_019_5, DateLine().at(1_700_000_000.9))
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:])
        assert lines[0].startswith(f"HTTP/1.1 {refusal.status} ")
        assert len(fields) == len(lines) - 1
        assert body == refusal.body(name)
        assert json.loads(body)["requestId"] == name
        assert int(fields["Content-Length"]) == len(body)
        assert fields["X-Request-Id"] == name
        assert fields["RateLimit"] == "x;r=1"
        assert fields["Vary"] == "Origin"
        assert ("Server-Timing" in fields) is shows_timing
        assert fields.get("Server-Timing", "total;dur=0.019, gateway;dur=0.019").startswith("total;dur=0.019")
        assert parsedate_to_datetime(fields["Date"]).timestamp() == 1_700_000_000


def test_the_date_turns_over_with_the_second() -> None:
    line = DateLine()
    first = line.at(1_700_000_000.0)
    assert line.at(1_700_000_000.999) is first
    assert b"22:13:21 GMT\r\n\r\n" in line.at(1_700_000_001.0)

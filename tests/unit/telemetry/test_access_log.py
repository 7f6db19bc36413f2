"""The line per request."""

from __future__ import annotations

import io

import orjson
import pytest
from structlog.testing import capture_logs

from cbk_gateway.telemetry.access_log import AccessEntry, AccessLog, AccessLogOptions
from cbk_gateway.telemetry.logs import configure_logging, flush_logs
from cbk_gateway.telemetry.redaction import HIDDEN


@pytest.mark.parametrize(
    ("status", "total_s", "sample", "draw", "wanted"),
    [
        (200, 0.1, 1.0, 0.99, True),
        (200, 0.1, 0.1, 0.05, True),
        (200, 0.1, 0.1, 0.5, False),
        (200, 0.1, 0.0, 0.0, False),
        (429, 0.1, 0.0, 0.0, False),
        (499, 0.1, 0.0, 0.0, True),
        (500, 0.1, 0.0, 0.0, True),
        (503, 0.1, 0.0, 0.0, True),
        (200, 2.0, 0.0, 0.0, True),
        (200, 1.9, 0.0, 0.0, False),
    ],
)
def test_failures_and_slow_requests_are_logged_whatever_the_sample(
    status: int, total_s: float, sample: float, draw: float, wanted: bool
) -> None:
    log = AccessLog(AccessLogOptions(sample=sample, slow_s=2.0), draw=lambda: draw)
    assert log.wants(status, total_s) is wanted


def test_a_log_that_is_off_wants_nothing() -> None:
    assert not AccessLog(AccessLogOptions(is_enabled=False)).wants(500, 100)


def test_a_line_says_what_is_known_and_nothing_else() -> None:
    entry = AccessEntry("id-1", "GET", "/bot/list", 200, 0.0123456, tenant="acme", cache="hit", sent_bytes=5)
    with capture_logs() as lines:
        AccessLog().write(entry)
    assert lines == [
        {
            "event": "request",
            "log_level": "info",
            "request_id": "id-1",
            "tenant": "acme",
            "method": "GET",
            "path": "/bot/list",
            "status": 200,
            "cache": "hit",
            "total_ms": 12.346,
            "received_bytes": 0,
            "sent_bytes": 5,
        }
    ]


@pytest.mark.parametrize(("status", "level"), [(200, "info"), (429, "info"), (502, "warning")])
def test_failures_of_a_server_are_warnings(status: int, level: str) -> None:
    with capture_logs() as lines:
        AccessLog().write(AccessEntry("id-1", "GET", "/bot/list", status, 0.1, upstream_s=0.05))
    assert lines[0]["log_level"] == level
    assert lines[0]["upstream_ms"] == 50


def test_what_a_client_chose_never_shows_a_credential() -> None:
    stream, key = io.StringIO(), "sk-0123456789abcdef"
    configure_logging("info", "json", stream)
    entry = AccessEntry(key, "GET", "/bot/list", 200, 0.1, client=f"x {key}", upstream_s=0.0506)
    AccessLog().write(entry)
    assert flush_logs(20)
    line = orjson.loads(stream.getvalue())
    assert (line["request_id"], line["client"]) == (HIDDEN, f"x {HIDDEN}")
    assert (line["upstream_ms"], line["logger"]) == (50.6, "cbk_gateway.access")

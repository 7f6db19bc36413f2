"""What may be kept, and for how long: one row per rule."""

from __future__ import annotations

import pytest

from cbk_gateway.cache.options import CacheOptions
from cbk_gateway.cache.storability import cache_control, judge

JSON = ("Content-Type", "application/json; charset=utf-8")
PAGE = b'{"items":[]}'
BOT = b'{"id":"b1","name":"x"}'
MISSING = b'{"message":"no","code":"NOT_FOUND"}'


def reason(
    status: int, headers: tuple[tuple[str, str], ...], body: bytes, action: str = "list", **options: object
) -> str:
    verdict = judge(
        status,
        headers,
        body,
        action=action,
        ttl_s=60,
        expected_type="application/json",
        options=CacheOptions(**options),  # type: ignore[arg-type]  # a table of options
    )
    assert verdict.is_storable == (verdict.reason == "")
    return verdict.reason


@pytest.mark.parametrize(
    ("status", "headers", "body", "action", "expected"),
    [
        (200, (JSON,), PAGE, "list", ""),
        (200, (JSON,), BOT, "fetch", ""),
        (404, (JSON,), MISSING, "fetch", ""),
        (404, (JSON,), MISSING, "list", "status-4xx"),
        (404, (JSON,), b'{"message":"x","code":"OTHER"}', "fetch", "shape"),
        (200, (JSON,), b'{"message":"late","code":"TIMEOUT"}', "list", "error-body"),
        (200, (JSON,), b'{"message":"late","code":"TIMEOUT"}', "fetch", "error-body"),
        (200, (JSON,), b'{"error":{"message":"late","code":"X"}}', "fetch", "error-body"),
        (200, (JSON,), b'{"id":"m1","message":"hello","code":"print()"}', "fetch", ""),
        (200, (JSON,), BOT, "list", "shape"),
        (200, (JSON,), b'{"items":{}}', "list", "shape"),
        (200, (JSON,), b"[]", "list", "shape"),
        (200, (JSON,), b'{"items":[', "list", "malformed"),
        (200, (JSON,), b"", "list", "malformed"),
        (204, (JSON,), b"", "fetch", "status-2xx"),
        (302, (JSON, ("Location", "https://x")), b"", "fetch", "status-3xx"),
        (500, (JSON,), b"{}", "list", "status-5xx"),
        (200, (), PAGE, "list", "media-type"),
        (200, (("Content-Type", "application/jsonl"),), PAGE, "list", "media-type"),
        (200, (JSON, ("set-cookie", "a=b")), PAGE, "list", "set-cookie"),
        (200, (JSON, ("Content-Encoding", "gzip")), PAGE, "list", "encoded"),
        (200, (JSON, ("Content-Encoding", "identity")), PAGE, "list", ""),
        (200, (JSON, ("Vary", "*")), PAGE, "list", "vary"),
        (200, (JSON, ("Vary", "Accept, Origin")), PAGE, "list", ""),
        (200, (JSON, ("Vary", "Accept"), ("Vary", "Cookie")), PAGE, "list", "vary"),
        (200, (JSON, ("Cache-Control", "private")), PAGE, "list", "upstream-forbids"),
        (200, (JSON, ("Cache-Control", "No-Store")), PAGE, "list", "upstream-forbids"),
        (200, (JSON, ("Cache-Control", "no-cache")), PAGE, "list", "upstream-forbids"),
        (200, (JSON, ("Cache-Control", 'private="x", max-age=5')), PAGE, "list", "upstream-forbids"),
        (200, (JSON, ("Cache-Control", "max-age=0")), PAGE, "list", "upstream-forbids"),
        (200, (JSON, ("Cache-Control", "max-age=soon")), PAGE, "list", "upstream-forbids"),
        (200, (JSON, ("Cache-Control", "max-age=9"), ("Age", "9")), PAGE, "list", "upstream-forbids"),
        (200, (JSON,), b" " * ((1 << 20) + 1), "list", "too-large"),
    ],
)
def test_whether_an_answer_is_kept(
    status: int, headers: tuple[tuple[str, str], ...], body: bytes, action: str, expected: str
) -> None:
    assert reason(status, headers, body, action) == expected


@pytest.mark.parametrize(
    ("headers", "obey", "ttl_s"),
    [
        ((JSON,), True, 60),
        ((JSON, ("Cache-Control", "public, max-age=7")), True, 7),
        ((JSON, ("Cache-Control", "max-age=7, s-maxage=3")), True, 3),
        ((JSON, ("Cache-Control", "max-age=600")), True, 60),
        ((JSON, ("Cache-Control", "max-age=10"), ("Age", "4")), True, 6),
        ((JSON, ("Cache-Control", "max-age=0, must-revalidate")), False, 60),
    ],
)
def test_the_upstream_may_shorten_a_lifetime(
    headers: tuple[tuple[str, str], ...], obey: bool, ttl_s: float
) -> None:
    options = CacheOptions(obey_upstream_max_age=obey)
    verdict = judge(
        200, headers, PAGE, action="list", ttl_s=60, expected_type="application/json", options=options
    )
    assert verdict.ttl_s == ttl_s


def test_a_missing_object_lives_shortly_and_only_if_configured() -> None:
    verdict = judge(
        404,
        (JSON,),
        MISSING,
        action="fetch",
        ttl_s=60,
        expected_type="application/json",
        options=CacheOptions(),
    )
    assert verdict.ttl_s == 1
    assert reason(404, (JSON,), MISSING, "fetch", negative_ttl_s=0.0) == "status-4xx"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"type":"item","data":{}}\n', ""),
        (b"", ""),
        (b'{"type":"item","data":{}}\n{"type":"nop"}\n', ""),
        (b'{"type":"item","data":{}}', "truncated"),
        (b'{"type":"error","data":{"message":"x"}}\n', "error-body"),
        (b"{\n", "malformed"),
    ],
)
def test_json_lines_are_looked_into_line_by_line(body: bytes, expected: str) -> None:
    kind = "application/jsonl"
    verdict = judge(
        200,
        (("Content-Type", kind),),
        body,
        action="list",
        ttl_s=60,
        expected_type=kind,
        options=CacheOptions(),
    )
    assert verdict.reason == expected


def test_the_first_of_two_equal_directives_wins() -> None:
    assert cache_control('max-age=1, MAX-AGE="2", public') == {"max-age": "1", "public": None}
    assert cache_control(None) == {}

from __future__ import annotations

import hashlib

from cbk_gateway.sandbox.request_log import RequestLog, RequestRecord


def record(path: str = "/v1/bot/list", *headers: tuple[bytes, bytes]) -> RequestRecord:
    return RequestRecord("GET", path, "a=b", headers, 5.0)


def test_the_oldest_record_goes_when_the_log_is_full() -> None:
    log = RequestLog(limit=2)
    for path in ("/1", "/2", "/3"):
        log.append(record(path))
    assert [kept.path for kept in log.records()] == ["/2", "/3"]


def test_headers_are_kept_as_sent_and_merged_by_name() -> None:
    kept = record("/", (b"X-A", b"1"), (b"x-a", b"2"), (b"Host", b"h"))
    assert kept.raw_headers == [["X-A", "1"], ["x-a", "2"], ["Host", "h"]]
    assert kept.headers == {"x-a": "1, 2", "host": "h"}


def test_a_body_is_digested_and_small_json_kept() -> None:
    kept = record()
    assert (kept.body_size, kept.body_sha256) == (0, hashlib.sha256(b"").hexdigest())
    kept.keep_body(b'{"a": 1}')
    assert kept.body == {"a": 1}
    assert (kept.body_size, kept.body_sha256) == (8, hashlib.sha256(b'{"a": 1}').hexdigest())


def test_a_large_or_broken_body_is_only_digested() -> None:
    large, broken = record(), record()
    large.keep_body(b'"' + b"x" * 70_000 + b'"')
    broken.keep_body(b"{")
    assert large.body is None
    assert broken.body is None
    assert large.body_size == 70_002

"""Request heads and answer framing as values."""

from __future__ import annotations

import pytest

from cbk_gateway.operation import understand
from cbk_gateway.upstream.framing import BadFraming, BodyEnd, body_end, chunk, request_head


def test_path_and_query_leave_byte_for_byte() -> None:
    operation = understand("GET", "/api/v1/bot/(my%20bot)/fetch?meta%5Bk%5D=%2Fa+b&x=%41")
    head = request_head(operation, "/v1", [("Host", "h")], None, has_body=False)
    assert head == b"GET /v1/bot/(my%20bot)/fetch?meta%5Bk%5D=%2Fa+b&x=%41 HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "path", "length", "has_body", "line"),
    [
        ("POST", "/v1/bot/create", 5, True, b"Content-Length: 5\r\n"),
        ("POST", "/v1/bot/create", None, True, b"Transfer-Encoding: chunked\r\n"),
        ("POST", "/v1/bot/create", None, False, b"Content-Length: 0\r\n"),
        ("GET", "/v1/bot/list", None, False, b""),
    ],
)
def test_each_request_has_one_framing(
    method: str, path: str, length: int | None, has_body: bool, line: bytes
) -> None:
    head = request_head(understand(method, path), "/v1", [("Host", "h")], length, has_body=has_body)
    assert head.endswith(b"Host: h\r\n" + line + b"\r\n")


@pytest.mark.parametrize("pair", [("A", "b\r\nC: d"), ("A\r\nB", "c"), ("A", "b\n"), ("A", "\r")])
def test_a_line_break_in_a_field_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="line break"):
        request_head(understand("GET", "/v1/bot/list"), "/v1", [pair], None, has_body=False)


def test_a_chunk_says_its_length() -> None:
    assert chunk(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"


Fields = list[tuple[bytes, bytes]]


@pytest.mark.parametrize(
    ("status", "method", "fields", "end", "length"),
    [
        (200, "GET", [(b"Content-Length", b"5")], BodyEnd.LENGTH, 5),
        (200, "GET", [(b"content-length", b" 0 ")], BodyEnd.AT_ONCE, 0),
        (200, "GET", [(b"TRANSFER-ENCODING", b"Chunked")], BodyEnd.CHUNKED, None),
        (200, "GET", [], BodyEnd.CLOSE, None),
        (204, "GET", [], BodyEnd.AT_ONCE, None),
        (304, "GET", [(b"Content-Length", b"5")], BodyEnd.AT_ONCE, 5),
        (200, "HEAD", [(b"Content-Length", b"5")], BodyEnd.AT_ONCE, 5),
    ],
)
def test_what_ends_a_body(status: int, method: str, fields: Fields, end: BodyEnd, length: int | None) -> None:
    assert body_end(status, method, fields) == (end, length)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"Content-Length", b"5"), (b"Content-Length", b"5")],
        [(b"Content-Length", b"+5")],
        [(b"Content-Length", b"5, 5")],
        [(b"Content-Length", b"")],
        [(b"Content-Length", b"9" * 17)],
        [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")],
        [(b"Transfer-Encoding", b"gzip, chunked")],
        [(b"Transfer-Encoding", b"identity")],
        [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")],
    ],
)
def test_doubtful_framing_is_refused(fields: Fields) -> None:
    with pytest.raises(BadFraming):
        body_end(200, "GET", fields)

"""Token usage and hidden failures, read out of every shape of answer, however it is cut into chunks."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.limits.framing import MAX_TEXT_BYTES
from cbk_gateway.limits.usage import UsageReader
from cbk_gateway.operation import Dialect

JSON, JSONL, SSE = "application/json; charset=utf-8", "application/jsonl", "text/event-stream"


def lines(*events: tuple[str, object]) -> bytes:
    return b"".join(orjson.dumps({"type": kind, "data": payload}) + b"\n" for kind, payload in events)


def frames(*events: tuple[str, object]) -> bytes:
    return b"".join(
        f"event: {kind}\ndata: ".encode() + orjson.dumps(payload) + b"\n\n" for kind, payload in events
    )


def read(content_type: str, body: bytes, dialect: Dialect = Dialect.REST, size: int = 1 << 16) -> UsageReader:
    reader = UsageReader(content_type, dialect)
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    return reader


RUN = (
    ("token", {"token": "Hel"}),
    ("token", {"token": "12345"}),
    ("usage", {"model": "m", "inputTokensUsed": 10, "outputTokensUsed": 5}),
    ("receiveResult", {"usage": {"token": 20}}),
    ("usage", {"model": "m", "inputTokensUsed": 7, "outputTokensUsed": 3}),
    ("sendResult", {"usage": {"token": 31}}),
    ("result", {"text": "Hello", "usage": {"token": 33}}),
)


@pytest.mark.parametrize("size", [1, 2, 7, 1 << 16])
@pytest.mark.parametrize(
    ("content_type", "body", "dialect", "tokens"),
    [
        (JSON, b'{"text":"x","usage":{"token":42}}', Dialect.REST, 42),
        (JSON, b'{"text":"x","usage":{"token":41.2}}', Dialect.REST, 42),
        (JSON, b'{"id":"s","token":"credential"}', Dialect.REST, None),
        (JSON, b'{"usage":{"token":true}}', Dialect.REST, None),
        (JSON, b'{"usage":{"token":"9"}}', Dialect.REST, None),
        (JSON, b'{"usage":{"token":-9}}', Dialect.REST, None),
        (JSON, b'{"usage":{"token":1e300}}', Dialect.REST, None),
        (JSON, b'{"usage":[]}', Dialect.REST, None),
        (JSON, b'["usage"]', Dialect.REST, None),
        (JSON, b'{"usage":{"token":4', Dialect.REST, None),
        (JSON, b'\xff\xfe{"usage":{"token":4}}', Dialect.REST, None),
        (JSON, b"", Dialect.REST, None),
        (
            JSON,
            b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}',
            Dialect.OPENAI,
            7,
        ),
        (JSON, b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}', Dialect.OPENAI, 7),
        (JSONL, lines(*RUN), Dialect.REST, 33),
        (JSONL, lines(*RUN).rstrip(), Dialect.REST, 33),
        (JSONL, lines(*RUN[:-1]), Dialect.REST, 31),
        (JSONL, lines(*RUN[:4]), Dialect.REST, 20),
        (JSONL, lines(*RUN[:3]), Dialect.REST, 15),
        (JSONL, lines(*RUN[:2]), Dialect.REST, None),
        (JSONL, b"{broken\n\xff\xff\n" + lines(RUN[-1]), Dialect.REST, 33),
        (SSE, frames(*RUN), Dialect.REST, 33),
        (SSE, frames(*RUN).replace(b"\n", b"\r\n"), Dialect.REST, 33),
        (SSE, frames(*RUN).replace(b"\n", b"\r"), Dialect.REST, 33),
        (SSE, b": ping\n\n" + frames(*RUN).rstrip(b"\n"), Dialect.REST, 33),
        (SSE, b'event: result\ndata: {"usage":\ndata: {"token":5}}\n\n', Dialect.REST, 5),
        (SSE, b'data: {"choices":[]}\n\ndata: [DONE]\n\n', Dialect.OPENAI, None),
        (SSE, b'data: {"choices":[],"usage":{"total_tokens":8}}\n\ndata: [DONE]\n\n', Dialect.OPENAI, 8),
        ("text/csv", b'{"usage":{"token":42}}', Dialect.REST, None),
        ("", b'{"usage":{"token":42}}', Dialect.REST, None),
    ],
)
def test_tokens_are_what_the_answer_says(
    content_type: str, body: bytes, dialect: Dialect, tokens: int | None, size: int
) -> None:
    assert read(content_type, body, dialect, size).tokens == tokens


@pytest.mark.parametrize(
    ("content_type", "body", "dialect", "failure"),
    [
        (JSON, b'{"message":"late","code":"TIMEOUT"}', Dialect.REST, "TIMEOUT"),
        (JSON, b'{"message":"m","code":"C","error":{"message":"m","code":"C"}}', Dialect.REST, "C"),
        (JSON, b'{"items":[],"message":"m","code":"C"}', Dialect.REST, None),
        (JSON, b'{"id":"b1","message":"m","code":"C"}', Dialect.REST, None),
        (JSON, b'{"message":"m"}', Dialect.REST, None),
        (JSON, b'{"message":"m","code":"' + b"x" * 99 + b'"}', Dialect.REST, "UNKNOWN"),
        (
            JSON,
            b'{"data":null,"errors":[{"message":"m","extensions":{"code":"BAD"}}]}',
            Dialect.GRAPHQL,
            "BAD",
        ),
        (JSON, b'{"data":null,"errors":[{"message":"m"}]}', Dialect.GRAPHQL, "UNKNOWN"),
        (JSON, b'{"data":{},"errors":[]}', Dialect.GRAPHQL, None),
        (JSON, b'{"error":{"message":"m","type":"rate_limit"}}', Dialect.OPENAI, "rate_limit"),
        (SSE, b'data: {"error":{"message":"m","code":"X"}}\n\ndata: [DONE]\n\n', Dialect.OPENAI, "X"),
        (SSE, frames(("token", {"token": "x"}), ("error", {"message": "m", "code": "X"})), Dialect.REST, "X"),
        (JSONL, lines(("item", {"id": "1"}), ("error", {"message": "m", "code": "X"})), Dialect.REST, "X"),
        (JSONL, lines(("item", {"message": "m", "code": "X", "usage": 1})), Dialect.REST, None),
        (JSONL, lines(*RUN), Dialect.REST, None),
    ],
)
def test_a_failure_inside_a_success_is_found(
    content_type: str, body: bytes, dialect: Dialect, failure: str | None
) -> None:
    assert read(content_type, body, dialect).failure == failure


@pytest.mark.parametrize("content_type", [JSON, JSONL, SSE])
def test_a_huge_text_is_skipped_in_bounded_memory(content_type: str) -> None:
    reader = UsageReader(content_type, Dialect.REST)
    for _ in range(5):
        reader.feed(b"x" * (MAX_TEXT_BYTES // 2))
    assert reader.tokens is None
    reader.feed(b"\n\n" + (frames(*RUN) if content_type == SSE else lines(*RUN)))
    assert reader.tokens == (None if content_type == JSON else 33)


@given(
    st.lists(st.binary(max_size=40), max_size=20),
    st.sampled_from([JSON, JSONL, SSE, "x"]),
    st.sampled_from(Dialect),
)
def test_no_bytes_ever_break_a_reader(chunks: list[bytes], content_type: str, dialect: Dialect) -> None:
    # Invariant: whatever comes, tokens are None or a count, and a failure is None or a short word.
    reader = UsageReader(content_type, dialect)
    for chunk in chunks:
        reader.feed(chunk)
        assert reader.tokens is None or reader.tokens >= 0
        assert reader.failure is None or 0 < len(reader.failure) <= 64


@given(st.integers(1, 50))
def test_how_a_body_is_cut_changes_nothing(size: int) -> None:
    assert read(SSE, frames(*RUN), size=size).tokens == 33
    assert read(JSONL, lines(*RUN), size=size).tokens == 33

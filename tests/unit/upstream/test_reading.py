"""The reader of answers against any bytes in any pieces: an answer, or a refusal, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.upstream.body import Body
from cbk_gateway.upstream.reading import AnswerReader, Bounds, Fields, Unacceptable

BOUNDS = Bounds(head_bytes=2000, fields=20, buffer_bytes=1 << 20)
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A: b\r\n\r\nhello world",
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n"
    ),
    b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
]


class Listener:
    """Takes heads and bodies as a connection would."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.heads: list[tuple[int, Fields]] = []
        self.body = Body(self.loop, 1 << 30, lambda _: None)
        self.reader = AnswerReader(BOUNDS, self.take)
        self.reader.expect("GET")

    def take(self, status: int, fields: Fields) -> Body:
        self.heads.append((status, fields))
        return self.body

    def result(self) -> tuple[list[tuple[int, Fields]], bytes, bool, bool]:
        self.loop.close()
        return self.heads, self.body.take(), self.reader.is_done, self.reader.may_stay


def pieces(octets: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(octets), *(cut % len(octets) for cut in cuts)})
    return [octets[start:end] for start, end in itertools.pairwise(edges)]


# Invariant: how the network cuts an answer changes nothing.
@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 1000), max_size=30))
def test_cuts_change_nothing(octets: bytes, cuts: list[int]) -> None:
    whole, cut = Listener(), Listener()
    whole.reader.feed(octets)
    for piece in pieces(octets, cuts):
        cut.reader.feed(piece)
    expected = whole.result()
    assert cut.result() == expected
    assert len(expected[0]) == 1
    assert expected[2:] == (True, True)


# Invariant: whatever comes, the reader takes it or refuses it; never two heads, never another exception.
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [b"HTTP/1.1 200 OK\r\n", b"\r\n", b"0\r\n\r\n", b"Content-Length: 3\r\n", b"5\r\n"]
            ),
            st.sampled_from(ANSWERS),
        ),
        max_size=12,
    )
)
def test_any_bytes_are_an_answer_or_refused(parts: list[bytes]) -> None:
    listener = Listener()
    with contextlib.suppress(Unacceptable):
        for part in parts:
            listener.reader.feed(part)
    heads, *_ = listener.result()
    assert len(heads) <= 1


@pytest.mark.parametrize(
    "extra", [b"x", b"\r\nHTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"]
)
def test_bytes_behind_an_answer_leave_it_whole_and_end_the_connection(extra: bytes) -> None:
    listener = Listener()
    listener.reader.feed(ANSWERS[0] + extra)
    heads, body, is_done, may_stay = listener.result()
    assert (len(heads), body, is_done) == (1, b"hello world", True)
    assert not may_stay


def test_bounds_hold_however_slowly_a_head_drips() -> None:
    listener = Listener()
    listener.reader.feed(b"HTTP/1.1 200 OK\r\nX: ")

    def drip() -> None:
        for _ in range(BOUNDS.head_bytes + 1):
            listener.reader.feed(b"a")

    with pytest.raises(Unacceptable):
        drip()
    listener.result()

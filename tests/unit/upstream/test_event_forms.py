"""Cutting event streams and knowing their end; the split points are chosen by hypothesis."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.operation import understand
from cbk_gateway.upstream import StreamForm, Terminal, terminal_for
from cbk_gateway.upstream.event_forms import Cutter, TerminalWatch, error_event, heartbeat

JSONL = '{"type":"token","data":{"token":"héllo €𝄞"}}\n{"type":"result","data":{}}\n'.encode()
SSE = 'event: token\ndata: {"a":"€"}\n\ndata: b\r\n\r\n: c\r\rdata: 𝄞\n\n'.encode()


def split(octets: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(octets) + 1) for cut in cuts), len(octets)]
    return [octets[a:b] for a, b in itertools.pairwise(edges) if a != b]


# Invariant: what goes in comes out, and each piece ends at a border.
@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_lines_are_never_split(cuts: list[int]) -> None:
    cutter = Cutter(StreamForm.JSONL, 1 << 20)
    ready = [cutter.feed(piece) for piece in split(JSONL, cuts)]
    assert b"".join(ready) == JSONL
    assert all(piece.endswith(b"\n") for piece in ready if piece)


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_events_are_never_split(cuts: list[int]) -> None:
    cutter = Cutter(StreamForm.SSE, 1 << 20)
    ready = [cutter.feed(piece) for piece in split(SSE, cuts)]
    assert b"".join(ready) + cutter.rest() == SSE
    assert all(piece.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")) for piece in ready if piece)


# Invariant: memory stays bounded and no character is split, however long a line is.
@given(st.text(min_size=30, max_size=200), st.lists(st.integers(0, 10_000), max_size=20))
def test_giant_lines_are_cut_between_characters(text: str, cuts: list[int]) -> None:
    octets = text.replace("\n", " ").encode()
    cutter = Cutter(StreamForm.JSONL, 8)
    out = b""
    for piece in split(octets, cuts):
        ready = cutter.feed(piece)
        ready.decode()
        out += ready
        assert cutter.held_bytes <= 8
    assert out + cutter.rest() == octets


def test_nothing_may_be_put_into_a_giant_line() -> None:
    cutter = Cutter(StreamForm.JSONL, 4)
    assert cutter.feed(b"abcdefgh") == b"abcdefgh"
    assert not cutter.is_between
    assert cutter.feed(b"i\n") == b"i\n"
    assert cutter.is_between


@pytest.mark.parametrize(
    ("form", "terminal", "octets", "seen"),
    [
        (StreamForm.JSONL, Terminal.RESULT, b'{"type":"result","data":{}}\n', True),
        (StreamForm.JSONL, Terminal.RESULT, b'{ "data":{}, "type": "result" }\n', True),
        (StreamForm.JSONL, Terminal.RESULT, b'{"type":"error","data":{}}\n', True),
        (StreamForm.JSONL, Terminal.RESULT, b'{"type":"token","data":{"token":"\\"result\\""}}\n', False),
        (StreamForm.JSONL, Terminal.RESULT, b'{"type":"sendResult","data":{"type":"result"}}\n', False),
        (StreamForm.JSONL, Terminal.NONE, b"", True),
        (StreamForm.SSE, Terminal.RESULT, b"event: result\ndata: {}\n\n", True),
        (StreamForm.SSE, Terminal.RESULT, b"event: token\ndata: result\n\n", False),
        (StreamForm.SSE, Terminal.DONE, b"data: [DONE]\n\n", True),
        (StreamForm.SSE, Terminal.DONE, b'data: {"x":"[DONE]"}\n\n', False),
    ],
)
def test_what_closes_a_stream(form: StreamForm, terminal: Terminal, octets: bytes, seen: bool) -> None:
    watch = TerminalWatch(form, terminal)
    watch.look(octets)
    assert watch.is_seen is seen


@pytest.mark.parametrize(
    ("path", "terminal"),
    [
        ("/v1/conversation/c1/complete", Terminal.RESULT),
        ("/v1/conversation/complete", Terminal.RESULT),
        ("/v1/conversation/c1/send", Terminal.RESULT),
        ("/v1/openai/chat/completions", Terminal.DONE),
        ("/v1/channel/c/subscribe", Terminal.NONE),
        ("/v1/bot/b/update", Terminal.NONE),
    ],
)
def test_which_streams_have_an_end_of_their_own(path: str, terminal: Terminal) -> None:
    assert terminal_for(understand("POST", path)) is terminal


def test_what_the_gateway_adds_is_whole_events() -> None:
    assert heartbeat(StreamForm.JSONL) == b'{"type":"ping","data":{}}\n'
    assert heartbeat(StreamForm.SSE) == b": ping\n\n"
    assert (
        error_event(StreamForm.JSONL, Terminal.RESULT, "m", "C")
        == b'{"type":"error","data":{"message":"m","code":"C"}}\n'
    )
    assert error_event(StreamForm.SSE, Terminal.NONE, "m", "C") == (
        b'event: error\ndata: {"message":"m","code":"C"}\n\n'
    )
    assert error_event(StreamForm.SSE, Terminal.DONE, "m", "C").startswith(b'data: {"error":{"message":"m"')

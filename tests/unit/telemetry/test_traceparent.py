"""W3C Trace Context: what is read, what is sent."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.telemetry.traceparent import (
    TraceContext,
    forwarded,
    more_traceparents,
    new_trace,
    parse_traceparent,
    ready_traceparents,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"01-{TRACE}-{SPAN}-01-what-the-future-brings", True),
        (f"cc-{TRACE}-{SPAN}-00", False),
    ],
)
def test_a_valid_header_is_read(header: str, is_sampled: bool) -> None:
    assert parse_traceparent(header) == TraceContext(TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE}-{SPAN}-1٣",
    ],
)
def test_an_invalid_header_is_as_good_as_none(header: str | None) -> None:
    assert parse_traceparent(header) is None


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("rojo=00f067aa0ba902b7,congo=t61", "rojo=00f067aa0ba902b7,congo=t61"),
        ("a=" + "x" * 511, ""),
        ("a=b\r\nX-Evil: 1", ""),
        ("a=ä", ""),
    ],
)
def test_a_tracestate_is_passed_on_when_it_is_harmless(state: str, kept: str) -> None:
    context = parse_traceparent(f"00-{TRACE}-{SPAN}-01", state)
    assert context is not None
    assert context.state == kept


def test_the_upstream_gets_the_same_trace_with_a_span_of_ours() -> None:
    received = TraceContext(TRACE, SPAN, is_sampled=True, state="a=b")
    sent = forwarded(received, lambda size: "ab" * size)
    assert sent == TraceContext(TRACE, "ab" * 8, is_sampled=True, state="a=b")
    assert sent.header() == f"00-{TRACE}-{'ab' * 8}-01"


def test_without_a_trace_the_upstream_gets_a_new_unsampled_one() -> None:
    sent = forwarded(None)
    assert not sent.is_sampled
    assert parse_traceparent(sent.header()) == sent


def test_ids_of_all_zeros_are_never_made() -> None:
    draws = iter(["0" * 32, "1" * 32, "0" * 16, "2" * 16])
    made = new_trace(is_sampled=True, draw=lambda _size: next(draws))
    assert (made.trace_id, made.span_id) == ("1" * 32, "2" * 16)


@given(st.text(), st.text())
def test_whatever_arrives_what_is_sent_is_valid(header: str, state: str) -> None:
    sent = forwarded(parse_traceparent(header, state))
    assert parse_traceparent(sent.header(), sent.state) == sent


def test_traces_made_in_advance_are_valid_unsampled_and_all_different() -> None:
    made = [(ready_traceparents or more_traceparents()).pop().decode() for _ in range(200)]
    contexts = [parse_traceparent(one) for one in made]
    assert all(one is not None and not one.is_sampled for one in contexts)
    assert len({one.trace_id for one in contexts if one is not None}) == len(made)
    assert len({one.span_id for one in contexts if one is not None}) == len(made)


def test_a_forked_process_makes_traces_of_its_own() -> None:
    script = """
import os
from cbk_gateway.telemetry.traceparent import more_traceparents, ready_traceparents
more_traceparents()
own = ready_traceparents[-1].decode()
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, (ready_traceparents or more_traceparents()).pop())
    os._exit(0)
os.wait()
print(own, os.read(reading, 100).decode())
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    own, of_the_child = ran.stdout.split()
    assert parse_traceparent(of_the_child) is not None
    assert own != of_the_child

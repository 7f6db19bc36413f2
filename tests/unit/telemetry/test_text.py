"""The text of a scrape, byte for byte what prometheus_client writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from cbk_gateway.telemetry import Metrics
from cbk_gateway.telemetry.text import number, written

PLAIN = ""
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4"
)
"""The `Accept` header of that version."""

words = st.text(max_size=20)
durations = st.floats(min_value=0, max_value=1e9)


def library_text(metrics: Metrics, accept: str) -> bytes:
    encode, _ = choose_encoder(accept)
    return encode(metrics.registry)


@given(st.floats() | st.integers(min_value=0, max_value=10**18))
def test_numbers_are_written_as_the_library_writes_them(value: float) -> None:
    assert number(value) == floatToGoString(value)  # type: ignore[no-untyped-call]  # it has no types


@given(
    st.lists(
        st.tuples(words, words, words, st.integers(100, 599), words, durations, st.none() | durations),
        max_size=8,
    ),
    words,
)
def test_whatever_the_labels_hold_the_text_is_the_librarys(
    requests: list[tuple[str, str, str, int, str, float, float | None]], request_id: str
) -> None:
    metrics = Metrics()
    for tenant, resource, action, status, cache, total_s, upstream_s in requests:
        metrics.request(
            tenant, resource, action, status, cache, total_s, upstream_s, request_id=request_id or None
        )
        metrics.limits.use(tenant, resource, total_s)
    for accept in (PLAIN, OPENMETRICS):
        assert metrics.exposition(accept)[0] == library_text(metrics, accept)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"),
        (
            PROMETHEUS_3,
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        ),
    ],
)
def test_a_scrape_gets_the_format_it_asks_for(accept: str, content_type: str) -> None:
    metrics = Metrics()
    metrics.request("acme", "bot", "list", 200, "hit", 0.002, request_id="abc")
    body, told = metrics.exposition(accept)
    assert told == content_type
    assert body == library_text(metrics, accept)
    assert body.endswith(b"# EOF\n") == told.startswith("application/openmetrics-text")


def test_a_format_of_the_future_is_left_to_the_library() -> None:
    metrics = Metrics()
    accept = "application/openmetrics-text;version=2.0.0"
    body, told = metrics.exposition(accept)
    assert "version=2.0.0" in told
    assert body == library_text(metrics, accept)


def test_nothing_is_written_of_nothing() -> None:
    assert written({}, is_openmetrics=False) == b""
    assert written({}, is_openmetrics=True) == b"# EOF\n"

"""What is refused under overload: in which order, from when, and until when."""

from __future__ import annotations

import pytest

from cbk_gateway.operation import understand
from cbk_gateway.shedding import (
    CALM_LOOKS,
    LATE_LOOKS,
    Kind,
    Overloaded,
    Shedding,
    SheddingOptions,
    kind_of,
    refused_kinds,
)

OPTIONS = SheddingOptions(streams_s=0.1, writes_s=0.2, reads_s=0.4)
NOTHING: frozenset[Kind] = frozenset()
STREAMS = frozenset({Kind.STREAM})
WRITES = STREAMS | {Kind.WRITE}
ALL = WRITES | {Kind.READ}


@pytest.mark.parametrize(
    ("lags", "before", "refused"),
    [
        pytest.param([], NOTHING, NOTHING, id="nothing is known"),
        pytest.param([9.0], NOTHING, NOTHING, id="one pause, however long"),
        pytest.param([9.0, 9.0], NOTHING, NOTHING, id="two"),
        pytest.param([0.1, 0.1, 0.1], NOTHING, STREAMS, id="streams first"),
        pytest.param([0.1, 0.09, 0.1], NOTHING, NOTHING, id="late, but not every time"),
        pytest.param([0.2, 0.3, 0.9], NOTHING, WRITES, id="writes next"),
        pytest.param([0.4, 0.4, 0.4], NOTHING, ALL, id="reads last"),
        pytest.param([9.0, 0.0, 0.0], ALL, ALL, id="calm for a moment is not calm"),
        pytest.param(
            [0.3] + [0.0] * (CALM_LOOKS - 1), ALL, WRITES, id="what the last lateness warrants stays"
        ),
        pytest.param([0.3] + [0.0] * CALM_LOOKS, ALL, NOTHING, id="calm for long enough"),
        pytest.param([0.05] * CALM_LOOKS, STREAMS, NOTHING, id="below the threshold is calm"),
    ],
)
def test_what_is_refused_follows_from_how_late_the_loop_was(
    lags: list[float], before: frozenset[Kind], refused: frozenset[Kind]
) -> None:
    assert refused_kinds(lags, before, OPTIONS) == refused


def test_a_kind_without_a_threshold_is_never_refused() -> None:
    assert refused_kinds([9.0] * 5, NOTHING, SheddingOptions(0.1, None, None)) == STREAMS
    assert refused_kinds([9.0] * 5, ALL, SheddingOptions(None, None, None)) == NOTHING


@pytest.mark.parametrize("lags", [(0.2, 0.1, 0.4), (0.1, 0.5, 0.4), (1.0, None, 0.5)])
def test_what_can_be_spared_less_is_not_refused_earlier(lags: tuple[float | None, ...]) -> None:
    with pytest.raises(ValueError, match="before"):
        SheddingOptions(*lags)


@pytest.mark.parametrize(
    ("method", "path", "is_streamed", "kind"),
    [
        ("GET", "/api/v1/bot/list", False, Kind.READ),
        ("GET", "/api/v1/bot/list", True, Kind.READ),
        ("POST", "/api/v1/memory/search", False, Kind.READ),
        ("POST", "/api/v1/bot/create", False, Kind.WRITE),
        ("POST", "/api/v1/conversation/complete", False, Kind.WRITE),
        ("POST", "/api/v1/conversation/complete", True, Kind.STREAM),
        ("POST", "/api/v1/channel/c/subscribe", False, Kind.STREAM),
    ],
)
def test_a_request_is_of_the_kind_of_its_cost(
    method: str, path: str, *, is_streamed: bool, kind: Kind
) -> None:
    assert kind_of(understand(method, path), is_streamed=is_streamed) is kind


def test_a_refusal_says_when_to_come_again_and_is_counted() -> None:
    counted: list[str] = []
    shedding = Shedding(OPTIONS, counted.append)
    for _ in range(LATE_LOOKS):
        shedding.admit(Kind.STREAM)
        shedding.observe(1.3)
    assert shedding.refused == ALL
    with pytest.raises(Overloaded) as caught:
        shedding.admit(Kind.WRITE)
    assert (caught.value.status, caught.value.code) == (503, "SERVICE_UNAVAILABLE")
    assert (caught.value.reason, caught.value.headers) == ("overloaded", {"Retry-After": "3"})
    assert counted == ["write"]
    for _ in range(CALM_LOOKS):
        shedding.observe(0.0)
    shedding.admit(Kind.STREAM)
    assert repr(shedding) == "<Shedding nothing>"

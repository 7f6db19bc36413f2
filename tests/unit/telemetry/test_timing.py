"""The `Server-Timing` header."""

from __future__ import annotations

import pytest

from cbk_gateway.telemetry.timing import gateway_share, server_timing


@pytest.mark.parametrize(
    ("total_s", "upstream_s", "cache", "header"),
    [
        (0.25, 0.2, "miss", "total;dur=250.000, upstream;dur=200.000, gateway;dur=50.000, cache;desc=miss"),
        (0.0015, None, "hit", "total;dur=1.500, gateway;dur=1.500, cache;desc=hit"),
        (0.25, 0.2, "none", "total;dur=250.000, upstream;dur=200.000, gateway;dur=50.000"),
    ],
)
def test_the_header_splits_the_time(
    total_s: float, upstream_s: float | None, cache: str, header: str
) -> None:
    assert server_timing(total_s, upstream_s, cache) == header


def test_the_gateways_share_is_never_negative() -> None:
    assert gateway_share(0.1, 0.2) == 0

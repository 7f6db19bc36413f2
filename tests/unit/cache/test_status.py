"""The Cache-Status header says what happened, in the words of RFC 9211."""

from __future__ import annotations

from cbk_gateway.cache import status


def test_hits() -> None:
    assert status.hit(5) == "cbk-gateway; hit; ttl=5"
    assert status.hit(-3, is_stale=True) == "cbk-gateway; hit; ttl=-3; detail=stale"


def test_forwards() -> None:
    assert status.forwarded("bypass") == "cbk-gateway; fwd=bypass"
    assert (
        status.forwarded("miss", status=200, ttl_s=9, is_stored=True, is_collapsed=True, detail="x")
        == "cbk-gateway; fwd=miss; fwd-status=200; ttl=9; stored; collapsed; detail=x"
    )

"""Options that would make the promises untrue are refused."""

from __future__ import annotations

from typing import Any

import pytest

from cbk_gateway.cache import CacheOptions
from cbk_gateway.operation import Lifetime


@pytest.mark.parametrize(
    "wrong",
    [
        {"encryption_key": b"short"},
        {"heartbeat_s": 1.0},
        {"death_after_s": 1.0},
        {"account_share": 0.0},
        {"account_share": 1.5},
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cache|worker|share"):
        CacheOptions(**wrong)


@pytest.mark.parametrize(
    ("resource", "lifetime", "ttl_s"),
    [
        ("bot", Lifetime.CONFIG, 60),
        ("task", Lifetime.VOLATILE, 2),
        ("platform/doc", Lifetime.GLOBAL, 300),
        ("skillset", Lifetime.CONFIG, 7),
        ("secret", Lifetime.NEVER, 0),
    ],
)
def test_lifetimes(resource: str, lifetime: Lifetime, ttl_s: float) -> None:
    assert CacheOptions(type_ttl_s={"skillset": 7, "secret": 9}).ttl_s(resource, lifetime) == ttl_s


def test_the_key_is_not_shown() -> None:
    assert "kkkk" not in repr(CacheOptions(encryption_key=b"k" * 32))

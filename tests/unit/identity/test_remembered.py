from __future__ import annotations

import pytest

from cbk_gateway.identity.remembered import Remembered, RememberedTokens, digest_of
from cbk_gateway.parties import Principal


def entry(tenant: str = "acme", until: float = 100.0) -> Remembered:
    principal = Principal(tenant, "ada", "t", "corp", (), 0, int(until), "f")
    return Remembered(until, principal, "key")


def test_a_token_is_remembered_until_it_expires() -> None:
    tokens = RememberedTokens(10)
    tokens.put(digest_of("a"), entry(until=100))
    assert tokens.get(digest_of("a"), 99.9) is not None
    assert tokens.get(digest_of("a"), 100) is None
    assert len(tokens) == 0


def test_the_least_recently_used_leaves_first() -> None:
    tokens = RememberedTokens(2)
    for name in ("a", "b"):
        tokens.put(digest_of(name), entry())
    tokens.get(digest_of("a"), 0)
    tokens.put(digest_of("c"), entry())
    assert [tokens.get(digest_of(name), 0) is not None for name in ("a", "b", "c")] == [True, False, True]


@pytest.mark.parametrize("capacity", [0, 1, 7])
def test_the_capacity_is_never_exceeded(capacity: int) -> None:
    tokens = RememberedTokens(capacity)
    for number in range(50):
        tokens.put(digest_of(str(number)), entry())
        assert len(tokens) <= capacity


def test_forgetting_takes_those_it_names_and_no_other() -> None:
    tokens = RememberedTokens(10)
    for name in ("acme", "globex"):
        tokens.put(digest_of(name), entry(name))
    assert tokens.forget(lambda one: one.principal.tenant == "acme") == 1
    assert tokens.get(digest_of("acme"), 0) is None
    assert tokens.get(digest_of("globex"), 0) is not None

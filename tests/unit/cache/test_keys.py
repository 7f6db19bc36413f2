"""No two different questions have one name, and no two names one question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.cache.keys import CacheKeyParts, account_keys, depends_on, digest, representation
from cbk_gateway.operation import ALL_TYPES, Operation, understand

ALICE = CacheKeyParts("acme", "key", None, "", "")


def name(path: str, parts: CacheKeyParts = ALICE) -> str:
    return digest(understand("GET", f"/v1{path}"), parts, representation(parts))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/bot/list?take=5&order=asc", "/bot/list?order=asc&take=5"),
        ("/bot/list?meta.a=x%20y", "/bot/list?meta.a=x+y"),
        ("/bot/list?a=%7E", "/bot/list?a=~"),
        ("/bot/%62%31/fetch", "/bot/b1/fetch"),
        ("/bot/list?", "/bot/list"),
        ("//bot/./list/", "/bot/list"),
    ],
)
def test_spellings_of_one_question_share_an_entry(one: str, other: str) -> None:
    assert name(one) == name(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/bot/list?take=5", "/bot/list?take=6"),
        ("/bot/list?a=1&a=2", "/bot/list?a=2&a=1"),
        ("/bot/list?a=1", "/bot/list?A=1"),
        ("/bot/list?a=1%26b=2", "/bot/list?a=1&b=2"),
        ("/bot/list?a=%FF", "/bot/list?a=%FE"),
        ("/bot/list?a=%EF%BF%BD", "/bot/list?a=%FF"),
        ("/bot/list?a=", "/bot/list"),
        ("/bot/b1/fetch", "/bot/B1/fetch"),
        ("/bot/@b/fetch", "/bot/(b)/fetch"),
    ],
)
def test_different_questions_do_not(one: str, other: str) -> None:
    assert name(one) != name(other)


@given(
    st.lists(st.text(max_size=6), min_size=5, max_size=5),
    st.lists(st.text(max_size=6), min_size=5, max_size=5),
)
def test_no_parts_can_be_crafted_to_collide(one: list[str], other: list[str]) -> None:
    operation: Operation = understand("GET", "/v1/bot/list")
    names = [
        digest(operation, CacheKeyParts(texts[0], texts[1], texts[2], "", texts[3]), texts[4])
        for texts in (one, other)
    ]
    assert (names[0] == names[1]) == (one == other)


def test_no_run_as_differs_from_an_empty_one() -> None:
    child = CacheKeyParts("acme", "key", "", "", "")
    assert name("/bot/list") != name("/bot/list", child)


@given(st.text(max_size=20), st.text(max_size=20))
def test_accounts_have_names_of_their_own_and_one_hash_tag(one: str, other: str) -> None:
    first, second = account_keys(one), account_keys(other)
    assert (first.epochs == second.epochs) == (one == other)
    assert first.epochs.count("{") == first.epochs.count("}") == 1


@pytest.mark.parametrize(
    ("accept", "kind"), [("", "application/json"), ("*/*", "application/json"), ("a/b", "a/b")]
)
def test_no_accept_means_json(accept: str, kind: str) -> None:
    assert representation(CacheKeyParts("a", "key", None, accept, "")) == kind


@pytest.mark.parametrize(
    ("reads", "changed", "expected"),
    [
        (("bot",), {"bot"}, True),
        (("bot",), {"dataset"}, False),
        (("bot",), {ALL_TYPES}, True),
        (("~any",), {"dataset"}, True),
        ((), {"bot"}, False),
    ],
)
def test_what_depends_on_what(reads: tuple[str, ...], changed: set[str], expected: bool) -> None:
    assert depends_on(reads, frozenset(changed)) is expected

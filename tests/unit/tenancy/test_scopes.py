"""What a scope covers."""

from __future__ import annotations

import random
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbk_gateway.limits.plan import counts
from cbk_gateway.operation import Effect, Operation, Route, routes, understand
from cbk_gateway.settings.scope_syntax import ScopeSyntaxError
from cbk_gateway.tenancy.scopes import MAX_RULES, ScopeSet, covers, id_owners, needed_scope, scope_set

G, P = "GET", "POST"


def allowed(scopes: tuple[str, ...] | str, method: str, path: str) -> bool:
    texts = (scopes,) if isinstance(scopes, str) else scopes
    return scope_set(texts).allows(understand(method, "/api/v1" + path)).allowed


@pytest.mark.parametrize(
    ("scope", "method", "path", "expected"),
    [
        ("*", P, "/secret/create", True),
        ("*", G, "/newthing/b1/frobnicate", True),
        ("bot:fetch", G, "/bot/b1/fetch", True),
        ("bot:fetch", P, "/bot/b1/update", False),
        ("bot:fetch", G, "/dataset/d1/fetch", False),
        ("bot:*", P, "/bot/b1/delete", True),
        ("bot:*", P, "/bot/b1/session/create", False),
        ("bot/session:create", P, "/bot/b1/session/create", True),
        ("conversation:*", P, "/conversation/c1/message/create", False),
        ("conversation/message:*", P, "/conversation/c1/message/create", True),
        ("conversation/message:*", P, "/conversation/c1/update", False),
        ("conversation/**:*", P, "/conversation/c1/message/create", True),
        ("conversation/**:*", P, "/conversation/c1/message/batch/create", True),
        ("conversation/**:*", P, "/conversation/c1/update", True),
        ("conversation/**:read", P, "/conversation/c1/update", False),
        ("dataset/*:read", G, "/dataset/d1/record/list", True),
        ("dataset/*:read", G, "/dataset/d1/file/list", True),
        ("dataset/*:read", G, "/dataset/d1/fetch", False),
        ("integration/*:list", G, "/integration/extract/x/item/list", False),
        ("integration/*/item:list", G, "/integration/extract/x/item/list", True),
        ("*:read", P, "/dataset/d1/search", True),
        ("*:read", P, "/platform/report/generate", True),
        ("*:read", G, "/file/f1/download", True),
        ("*:read", P, "/bot/create", False),
        ("*:read", P, "/channel/c1/subscribe", False),
        ("*:stream", P, "/channel/c1/subscribe", True),
        ("*:write", P, "/bot/create", True),
        ("*:write", G, "/bot/list", False),
        ("*:list", G, "/bot/list", True),
        ("*:list", G, "/bot/b1/fetch", False),
        ("**:read", G, "/bot/list", True),
        ("bot[b1]:fetch", G, "/bot/b1/fetch", True),
        ("bot[b1]:fetch", G, "/bot/b2/fetch", False),
        ("bot[b1]:fetch", G, "/bot/@b1/fetch", False),
        ("bot[b1]:*", G, "/bot/list", False),
        ("bot[bot_*]:fetch", G, "/bot/bot_77/fetch", True),
        ("bot[bot_*]:fetch", G, "/bot/xbot_77/fetch", False),
        ("bot[*]:*", G, "/bot/list", False),
        ("bot[*]:*", G, "/bot/b1/fetch", True),
        ("bot[b.1]:fetch", G, "/bot/bx1/fetch", False),
        ("bot[b1]/**:*", P, "/bot/b1/session/create", True),
        ("bot[b1]/session:create", P, "/bot/b2/session/create", False),
        ("dataset/record[r1]:fetch", G, "/dataset/d1/record/r1/fetch", True),
        ("dataset/record[r1]:fetch", G, "/dataset/r1/record/d1/fetch", False),
        ("integration/extract[x]/item[i]:fetch", G, "/integration/extract/x/item/i/fetch", True),
        ("integration/extract[i]/item:fetch", G, "/integration/extract/x/item/i/fetch", False),
        ("space/storage[a/*]:download", G, "/space/s1/storage/download/a/b", True),
        ("space/storage[a/*]:download", G, "/space/s1/storage/download/c/b", False),
        ("space[s1]/storage:list", G, "/space/s1/storage/list", True),
        ("bot[(a:b)]:fetch", G, "/bot/(a:b)/fetch", True),
    ],
)
def test_a_scope_allows_what_it_says(scope: str, method: str, path: str, expected: bool) -> None:
    assert allowed(scope, method, path) is expected


@pytest.mark.parametrize(
    ("scopes", "method", "path", "expected"),
    [
        (("*", "!secret:*"), G, "/secret/list", False),
        (("!secret:*", "*"), G, "/secret/list", False),
        (("*", "!secret:*"), G, "/contact/c1/secret/list", True),
        (("*", "!bot[b1]:*"), G, "/bot/b1/fetch", False),
        (("*", "!bot[b1]:*"), G, "/bot/b2/fetch", True),
        # An alias or a name may lead to the denied object.
        (("*", "!bot[b1]:*"), G, "/bot/@support/fetch", False),
        (("*", "!bot[b1]:*"), G, "/bot/(Support)/fetch", False),
        (("*", "!bot[b1]:*"), G, "/bot/list", True),
        (("*", "!*:write"), P, "/bot/create", False),
        (("*", "!*:write"), P, "/dataset/d1/search", True),
        (("*", "!*"), G, "/bot/list", False),
        # Paths the table does not know: a deny rule is content with a possible match.
        (("*", "!conversation/message:*"), P, "/conversation/c1/message/m1/frobnicate", False),
        (("*", "!conversation/message:*"), P, "/conversation/c1/frobnicate", True),
        (("*", "!bot[b1]:*"), P, "/bot/b1/frobnicate", False),
        (("*", "!bot:*"), P, "/bot/b1/deep/er/frobnicate", False),
    ],
)
def test_a_deny_rule_wins(scopes: tuple[str, ...], method: str, path: str, expected: bool) -> None:
    assert allowed(scopes, method, path) is expected


@pytest.mark.parametrize(
    ("scope", "path", "expected"),
    [
        ("bot:frobnicate", "/bot/b1/frobnicate", True),
        ("bot:*", "/bot/b1/frobnicate", True),
        ("bot:*", "/bot/b1/part/p1/frobnicate", False),
        ("bot/**:*", "/bot/b1/part/p1/frobnicate", True),
        ("bot[b1]:*", "/bot/b1/frobnicate", True),
        ("bot[b1]:*", "/bot/b2/frobnicate", False),
        ("bot/part:*", "/bot/b1/part/p1/frobnicate", False),
        ("newthing:*", "/newthing/n1/frobnicate", True),
        ("*:read", "/newthing/n1/list", False),
        # An unknown action called like an effect is not that effect.
        ("bot:read", "/bot/b1/read", False),
        ("bot:write", "/bot/b1/read", True),
    ],
)
def test_an_unknown_path_is_a_write_below_its_first_segment(scope: str, path: str, expected: bool) -> None:
    assert allowed(scope, P, path) is expected


@pytest.mark.parametrize(
    ("scopes", "effect", "expected"),
    [
        (("*",), Effect.WRITE, True),
        (("*",), Effect.READ, True),
        (("*", "!secret:*"), Effect.READ, False),
        (("*", "!secret:*", "graphql:execute"), Effect.READ, True),
        (("*:read",), Effect.READ, True),
        (("*:read",), Effect.WRITE, False),
        (("*:write",), Effect.WRITE, False),
        (("*:write", "*:read"), Effect.WRITE, True),
        (("graphql:execute",), Effect.WRITE, True),
        (("graphql:read",), Effect.WRITE, False),
        (("*:execute",), Effect.WRITE, False),
        (("bot/**:*",), Effect.READ, False),
        (("*", "!graphql:*"), Effect.READ, False),
    ],
)
def test_graphql_needs_a_rule_for_every_type(scopes: tuple[str, ...], effect: Effect, expected: bool) -> None:
    whole = understand(P, "/api/v1/graphql")
    narrowed = replace(whole, route=replace(whole.route, effect=effect))
    assert scope_set(scopes).allows(narrowed).allowed is expected


def test_every_read_of_the_table_is_allowed_by_read_and_nothing_else_is() -> None:
    for route in routes():
        verdict = scope_set(("*:read",)).allows(operation_on(route))
        assert verdict.allowed is (route.effect is Effect.READ), route.template


def test_the_verdict_names_the_deciding_rule() -> None:
    rules = scope_set(("bot:fetch", "bot:*", "!bot:delete"))
    assert rules.allows(understand(G, "/v1/bot/b/fetch")).rule == "bot:fetch"
    assert rules.allows(understand(P, "/v1/bot/b/delete")).rule == "!bot:delete"
    assert rules.allows(understand(G, "/v1/dataset/list")).rule is None


def test_foreign_scopes_of_a_token_grant_nothing_and_break_nothing() -> None:
    rules = ScopeSet(("openid", "profile", "bot:fetch", "https://x/y", ""))
    assert rules.allows(understand(G, "/v1/bot/b/fetch")).allowed
    assert not rules.allows(understand(G, "/v1/bot/list")).allowed
    assert rules.ignored == ("openid", "profile", "https://x/y", "")


def test_an_unreadable_deny_rule_denies_everything() -> None:
    assert not allowed(("*", "!bot"), G, "/dataset/list")


def test_no_rules_allow_nothing() -> None:
    assert not scope_set(()).allows(understand(G, "/v1/bot/list")).allowed


def test_too_many_rules_allow_nothing() -> None:
    assert not ScopeSet(["*"] * (MAX_RULES + 1)).allows(understand(G, "/v1/bot/list")).allowed


def test_one_tuple_of_texts_is_compiled_once() -> None:
    assert scope_set(("bot:fetch", "bot:list")) is scope_set(("bot:fetch", "bot:list"))


def test_remembered_verdicts_do_not_grow_with_unknown_paths() -> None:
    rules = ScopeSet(("bot:fetch",))
    for number in range(50):
        rules.allows(understand(P, f"/v1/bot/b/frob{number}"))
        rules.allows(understand(G, f"/v1/bot/b{number}/fetch"))
    assert len(rules._verdicts) == 1


def test_an_id_decides_anew_each_time() -> None:
    rules = ScopeSet(("bot[b1]:fetch",))
    first, second = understand(G, "/v1/bot/b1/fetch"), understand(G, "/v1/bot/b2/fetch")
    for _ in range(2):
        assert rules.allows(first).allowed
        assert not rules.allows(second).allowed


def test_a_pattern_of_many_stars_is_decided_at_once() -> None:
    """A regular expression in its place takes longer than the time limit of the test."""
    operation = understand(G, "/v1/bot/" + "a" * 500 + "/fetch")
    assert not scope_set(("bot[" + "*a" * 30 + "*b]:fetch",)).allows(operation).allowed
    assert scope_set(("bot[" + "*a" * 30 + "*]:fetch",)).allows(operation).allowed


@given(pattern=st.text("ab*", min_size=1, max_size=6), identifier=st.text("ab", min_size=1, max_size=8))
def test_id_patterns_mean_what_shell_patterns_mean(pattern: str, identifier: str) -> None:
    operation = replace(understand(G, "/v1/bot/x/fetch"), ids=(identifier,))
    assert scope_set((f"bot[{pattern}]:fetch",)).allows(operation).allowed is fnmatchcase(identifier, pattern)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        (G, "/bot/b1/fetch", "bot:fetch"),
        (P, "/conversation/c/message/create", "conversation/message:create"),
        (P, "/bot/b1/frobnicate", "bot:frobnicate"),
        (P, "/bot/b1/part/p/frobnicate", "bot/**:frobnicate"),
        (P, "/bot/b1/read", "bot:write"),
    ],
)
def test_the_needed_scope_allows_the_operation(method: str, path: str, scope: str) -> None:
    operation = understand(method, "/v1" + path)
    assert needed_scope(operation) == scope
    assert scope_set((scope,)).allows(operation).allowed


def test_the_needed_scope_of_every_route_allows_it() -> None:
    for route in routes():
        operation = operation_on(route)
        assert scope_set((needed_scope(operation),)).allows(operation).allowed, route.template


@pytest.mark.parametrize(
    ("pattern", "method", "path", "expected"),
    [
        ("*", G, "/bot/list", True),
        ("conversation/**:write", P, "/conversation/c/message/create", True),
        ("conversation/**:write", G, "/conversation/list", False),
        ("bot:*", P, "/bot/b1/part/p1/frobnicate", True),
        ("bot/part:*", P, "/bot/b1/part/p1/frobnicate", True),
        ("graphql:*", P, "/graphql", True),
        ("*:write", P, "/graphql", True),
    ],
)
def test_a_limit_counts_what_its_pattern_covers(pattern: str, method: str, path: str, expected: bool) -> None:
    assert covers(pattern, understand(method, "/v1" + path)) is expected


@pytest.mark.parametrize("pattern", ["*", "*:read", "bot:*", "bot/**:write", "dataset/*:read", "graphql:*"])
def test_the_limiter_counts_what_explanations_say_it_counts(pattern: str) -> None:
    """Two packages read patterns, which may not import one another: they must not drift apart."""
    unknown = [understand(P, "/v1/bot/b/part/p/frobnicate"), understand(P, "/v1/newthing/n/write")]
    for operation in [*map(operation_on, routes()), *unknown]:
        assert covers(pattern, operation) is counts(pattern, operation), operation.scope


def test_a_malformed_limit_pattern_is_an_error() -> None:
    with pytest.raises(ScopeSyntaxError):
        covers("bot", understand(G, "/v1/bot/list"))


def test_ids_belong_to_the_segment_before_them() -> None:
    assert id_owners("/conversation/{a}/message/{b}/fetch") == (0, 1)
    assert id_owners("/integration/extract/{a}/item/{b}/fetch") == (1, 2)
    assert id_owners("/space/{a}/storage/download/{path...}") == (0, 1)


def operation_on(route: Route) -> Operation:
    return Operation(
        route=route,
        method=route.methods[0],
        path="/x",
        query="",
        ids=tuple(f"id{number}" for number, _ in enumerate(route.params)),
        scope_resource=route.resource,
        scope_action=route.action,
    )


_TYPES = st.sampled_from(
    ["*", "bot", "bot[b1]", "bot[*]", "conversation/message", "conversation/**", "dataset/*", "graphql"]
)
_ACTIONS = st.sampled_from(["*", "read", "write", "stream", "fetch", "list", "create", "execute"])
_RULES = st.builds(
    lambda deny, resource, action: f"{'!' if deny else ''}{resource}:{action}",
    st.booleans(),
    _TYPES,
    _ACTIONS,
) | st.sampled_from(["*", "!*", "openid", "!broken"])
_OPERATIONS = st.sampled_from(
    [operation_on(route) for route in routes()]
    + [
        understand(G, "/v1/bot/b1/fetch"),
        understand(G, "/v1/bot/@x/fetch"),
        understand(P, "/v1/bot/b1/frobnicate"),
        understand(P, "/v1/conversation/c/message/m/frobnicate"),
        understand(P, "/v1/newthing/n/write"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(
    rules=st.lists(_RULES, max_size=6),
    fewer=st.sets(st.integers(0, 5)),
    more_denies=st.lists(_RULES.map(lambda text: "!" + text.lstrip("!")), max_size=2),
    operation=_OPERATIONS,
)
def test_narrowing_never_widens(
    rules: list[str], fewer: set[int], more_denies: list[str], operation: Operation
) -> None:
    """Whatever is allowed after taking allow rules away and adding deny rules was allowed before.

    Invariant: allowed(narrowed set) implies allowed(set), for every operation.
    """
    narrowed = [
        rule for at, rule in enumerate(rules) if rule.startswith("!") or at not in fewer
    ] + more_denies
    if ScopeSet(narrowed).allows(operation).allowed:
        assert ScopeSet(rules).allows(operation).allowed


@settings(max_examples=200, deadline=None)
@given(rules=st.lists(_RULES, min_size=1, max_size=6), operation=_OPERATIONS, order=st.randoms())
def test_the_order_of_rules_does_not_matter(
    rules: list[str], operation: Operation, order: random.Random
) -> None:
    shuffled = list(rules)
    order.shuffle(shuffled)
    assert ScopeSet(rules).allows(operation).allowed is ScopeSet(shuffled).allows(operation).allowed

"""Whether a principal may do what it asks, and why."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbk_gateway.errors import NotAuthenticated, NotAuthorized, Refusal
from cbk_gateway.operation import Operation, understand
from cbk_gateway.parties import Principal, RunAs, RunAsForm, Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.tenancy.policy import authorise, explain

FETCH = understand("GET", "/api/v1/bot/b1/fetch")
CREATE = understand("POST", "/api/v1/bot/create")
ACME = Tenant(id="acme", account="acme-main", key=Secret("sk-1"))
TOKEN = Principal("acme", "app", "t1", "idp", ("*",), issued_at=1000, expires_at=2000, fingerprint="f")


def refused(principal: Principal, tenant: Tenant, headers: tuple[tuple[str, str], ...] = ()) -> Refusal:
    with pytest.raises(Refusal) as caught:
        authorise(principal, tenant, FETCH, headers)
    return caught.value


@pytest.mark.parametrize(
    ("of_token", "of_tenant", "passes"),
    [
        (("*",), ("*",), True),
        (("bot:fetch",), ("*",), True),
        (("*",), ("bot:fetch",), True),
        (("*:write",), ("*:read",), False),
        ((), ("*",), False),
        (("*",), (), False),
        (("*", "!bot:*"), ("*",), False),
        (("*",), ("*", "!bot:fetch"), False),
    ],
)
def test_a_request_needs_both_the_token_and_the_tenant(
    of_token: tuple[str, ...], of_tenant: tuple[str, ...], passes: bool
) -> None:
    principal, tenant = replace(TOKEN, scopes=of_token), replace(ACME, scopes=of_tenant)
    assert explain(principal, tenant, FETCH).allowed is passes
    if passes:
        authorise(principal, tenant, FETCH)
    else:
        assert refused(principal, tenant).status == 403


WIDE_TO_NARROW = {
    "*": ["*:read", "bot:*", "bot:fetch", "!*", "dataset:write"],
    "*:read": ["bot:read", "bot:fetch", "bot[b1]:list", "conversation/**:read"],
    "*:write": ["bot:create", "bot[b1]:write", "dataset:*:x"],
    "bot:*": ["bot:fetch", "bot:read", "bot[b1]:*", "bot[b*]:write", "!bot:*"],
    "bot[b*]:*": ["bot[b1]:*", "bot[b1]:fetch", "bot[b2]:*"],
    "conversation/**:*": ["conversation:*", "conversation/message:*", "conversation/**:read"],
}
OPERATIONS = [
    understand(method, path)
    for method, path in (
        ("GET", "/v1/bot/list"),
        ("GET", "/v1/bot/b1/fetch"),
        ("GET", "/v1/bot/b2/fetch"),
        ("POST", "/v1/bot/create"),
        ("POST", "/v1/bot/b1/update"),
        ("POST", "/v1/bot/b1/delete"),
        ("GET", "/v1/dataset/d1/fetch"),
        ("POST", "/v1/dataset/create"),
        ("POST", "/v1/conversation/c1/complete"),
        ("GET", "/v1/conversation/c1/message/list"),
        ("POST", "/v1/secret/s1/proxy"),
        ("POST", "/v1/graphql"),
        ("POST", "/v1/newthing/n/write"),
    )
]


@settings(max_examples=300, deadline=None)
@given(
    of_token=st.lists(st.sampled_from(sorted(WIDE_TO_NARROW)), max_size=4),
    of_tenant=st.lists(st.sampled_from(sorted({*WIDE_TO_NARROW, "!bot:delete", "!secret:*"})), max_size=4),
    choice=st.randoms(use_true_random=False),
    operation=st.sampled_from(OPERATIONS),
)
def test_narrowing_a_token_never_widens_what_it_may(
    of_token: list[str], of_tenant: list[str], choice: random.Random, operation: Operation
) -> None:
    """Each rule of a token is kept, dropped, or put in the place of a narrower one.

    Invariant: what the narrowed token may do, the wide one may do, and its tenant may do.
    """
    narrowed = [choice.choice([rule, *WIDE_TO_NARROW[rule]]) for rule in of_token if choice.random() < 0.8]
    tenant = replace(ACME, scopes=tuple(of_tenant))
    if explain(replace(TOKEN, scopes=tuple(narrowed)), tenant, operation).allowed:
        assert explain(replace(TOKEN, scopes=tuple(of_token)), tenant, operation).allowed
        assert explain(None, tenant, operation).allowed
        authorise(replace(TOKEN, scopes=tuple(narrowed)), tenant, operation)


def test_a_refusal_names_the_missing_scope_and_whose_it_is() -> None:
    refusal = refused(replace(TOKEN, scopes=("*:list",)), ACME)
    assert (refusal.status, refusal.code, refusal.reason) == (403, "NOT_AUTHORIZED", "scope")
    assert refusal.message == "The token lacks the scope bot:fetch."
    assert refusal.details == {"requiredScope": "bot:fetch"}
    assert "tenant lacks" in refused(TOKEN, replace(ACME, scopes=("*:list",))).message


def test_a_deny_rule_is_named() -> None:
    refusal = refused(TOKEN, replace(ACME, scopes=("*", "!bot:*")))
    assert refusal.reason == "denied"
    assert "!bot:*" in refusal.message


def test_a_disabled_tenant_is_refused_before_anything_else() -> None:
    refusal = refused(replace(TOKEN, scopes=()), replace(ACME, disabled=True))
    assert isinstance(refusal, NotAuthorized)
    assert refusal.reason == "tenant_disabled"


def test_another_tenants_token_is_refused() -> None:
    assert refused(replace(TOKEN, tenant="globex"), ACME).reason == "other_tenant"


@pytest.mark.parametrize(("issued_at", "passes"), [(0, False), (1499, False), (1500, True), (1501, True)])
def test_tokens_from_before_the_moment_are_not_authenticated(issued_at: int, passes: bool) -> None:
    principal, tenant = replace(TOKEN, issued_at=issued_at), replace(ACME, token_not_before=1500)
    if passes:
        authorise(principal, tenant, FETCH)
    else:
        refusal = refused(principal, tenant)
        assert isinstance(refusal, NotAuthenticated)
        assert refusal.reason == "revoked"


@pytest.mark.parametrize(
    "name",
    ["X-RunAs-User-ID", "x-runas-userid", "X_RunAs_User_ID", "X-RUNAS-CHILD-USER-EMAIL", "x-runas-anything"],
)
def test_a_run_as_header_is_refused_in_every_spelling(name: str) -> None:
    refusal = refused(TOKEN, ACME, ((name, "u1"),))
    assert (refusal.status, refusal.reason) == (403, "run_as")


def test_a_run_as_header_passes_where_the_tenant_may() -> None:
    authorise(TOKEN, replace(ACME, may_run_as=True), FETCH, (("X-RunAs-User-ID", "u1"),))


def test_a_forced_child_is_never_overridden() -> None:
    forced = replace(ACME, may_run_as=True, run_as=RunAs(RunAsForm.USER_ID, "u1"))
    assert refused(TOKEN, forced, (("X-RunAs-User-ID", "u1"),)).reason == "run_as"


def test_other_headers_are_no_concern() -> None:
    authorise(TOKEN, ACME, FETCH, (("X-Timezone", "UTC"),))


def test_an_explanation_says_who_may_and_why() -> None:
    tenant = replace(ACME, scopes=("bot:*", "!bot:delete"))
    told = explain(None, tenant, FETCH)
    assert (told.allowed, told.tenant_rule, told.token_rule, told.status) == (True, "bot:*", None, None)
    assert told.because == "The tenant's scope bot:* allows this."
    told = explain(replace(TOKEN, scopes=("*:read",)), tenant, FETCH)
    assert told.because == "The tenant's scope bot:* and the token's scope *:read allow this."
    told = explain(replace(TOKEN, scopes=("*:read",)), tenant, CREATE)
    assert (told.allowed, told.status, told.reason, told.needed_scope) == (False, 403, "scope", "bot:create")
    assert told.because == "The token lacks the scope bot:create."


def test_an_explanation_agrees_with_the_decision_about_a_disabled_tenant() -> None:
    told = explain(None, replace(ACME, disabled=True), FETCH)
    assert (told.allowed, told.reason) == (False, "tenant_disabled")

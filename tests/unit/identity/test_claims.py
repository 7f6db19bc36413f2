from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cbk_gateway.identity import IssuerOptions, Reason
from cbk_gateway.identity.claims import accepted_until, faults, find_claim, principal_of
from unit.identity.forge import NOW, Forge


def reasons(claims: dict[str, Any], policy: IssuerOptions, now: float = NOW) -> list[str]:
    return [fault.reason.value for fault in faults(claims, policy, now)]


def test_the_principal_is_what_the_claims_say(corp: IssuerOptions, forge: Forge) -> None:
    principal = principal_of(forge.claims(), corp, "f")
    assert (principal.tenant, principal.subject, principal.token_id) == ("acme", "ada", "t-1")
    assert (principal.issued_at, principal.expires_at) == (int(NOW) - 10, int(NOW) + 600)
    assert principal.scopes == ("bot:fetch", "*:read")


@pytest.mark.parametrize(
    ("changed", "now", "found"),
    [
        ({"exp": NOW - 30 + 0.5}, NOW, []),
        ({"exp": NOW - 30}, NOW, ["expired"]),
        ({"nbf": NOW + 30}, NOW, []),
        ({"nbf": NOW + 30.5}, NOW, ["not_yet_valid"]),
        ({"iat": NOW + 30}, NOW, []),
        ({"iat": NOW + 30.5}, NOW, ["not_yet_valid"]),
        ({"iat": NOW, "exp": NOW + 3600}, NOW, []),
        ({"iat": NOW, "exp": NOW + 3601}, NOW, ["lifetime"]),
        ({"iat": 0}, NOW, ["lifetime"]),
        ({"nbf": 0}, NOW, []),
    ],
)
def test_times_are_judged_with_leeway(
    changed: dict[str, Any], now: float, found: list[str], corp: IssuerOptions, forge: Forge
) -> None:
    assert reasons(forge.claims(**changed), corp, now) == found


def test_a_token_is_accepted_exactly_until_it_is_refused(corp: IssuerOptions, forge: Forge) -> None:
    claims = forge.claims()
    until = accepted_until(claims, corp)
    assert reasons(claims, corp, until - 0.001) == []
    assert reasons(claims, corp, until) == ["expired"]


@pytest.mark.parametrize(
    ("audience", "named", "found"),
    [
        (("door",), "door", []),
        (("door", "window"), ["roof", "window"], []),
        (("door",), "window", ["audience"]),
        (("door",), None, ["audience"]),
        (None, None, []),
        (None, "door", ["audience"]),
        (("*",), None, []),
        (("*",), "anything", []),
    ],
)
def test_the_audience_must_meet_the_issuers(
    audience: tuple[str, ...] | None, named: Any, found: list[str], corp: IssuerOptions, forge: Forge
) -> None:
    assert reasons(forge.claims(aud=named), replace(corp, audience=audience)) == found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("org.id", "nested"),
        ("https://example.com/tenant", "namespaced"),
        ("a.b", "the name before the path"),
        ("org", {"id": "nested"}),
        ("org.id.more", None),
        ("nowhere", None),
        ("", None),
    ],
)
def test_a_claim_is_found_by_name_or_dotted_path(path: str, value: object) -> None:
    claims = {
        "org": {"id": "nested"},
        "https://example.com/tenant": "namespaced",
        "a.b": "the name before the path",
        "a": {"b": "the path"},
    }
    assert find_claim(claims, path) == value


@pytest.mark.parametrize(
    ("policy", "claims", "tenant"),
    [
        ({"tenant_claim": "org.id"}, {"tenant": None, "org": {"id": "acme"}}, "acme"),
        ({"tenant_map": {"00aa": "acme"}}, {"tenant": "00aa"}, "acme"),
        ({"tenant_map": {"00aa": "acme"}}, {"tenant": "globex"}, None),
        ({"tenant_map": {"00aa": "acme"}}, {"tenant": "acme"}, None),
        ({"tenant_map": {"00aa": "acme"}}, {"tenant": ["00aa"]}, None),
        ({"tenant": "acme"}, {"tenant": "globex"}, "acme"),
        ({"tenant": "acme"}, {"tenant": None}, "acme"),
    ],
)
def test_the_tenant_is_where_the_issuer_puts_it_and_what_we_call_it(
    policy: dict[str, Any], claims: dict[str, Any], tenant: str | None, corp: IssuerOptions, forge: Forge
) -> None:
    issuer = replace(corp, **policy)
    found = reasons(forge.claims(**claims), issuer)
    if tenant is None:
        assert found == ["tenant"]
    else:
        assert found == []
        assert principal_of(forge.claims(**claims), issuer, "f").tenant == tenant


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ("a:read", ("a:read",)),
        ("a:read  b:write ", ("a:read", "b:write")),
        (["a:read", "b:write"], ("a:read", "b:write")),
        ("", ()),
        ([], ()),
        (None, ("default:read",)),
    ],
)
def test_scopes_are_a_text_or_a_list(
    value: Any, scopes: tuple[str, ...], corp: IssuerOptions, forge: Forge
) -> None:
    issuer = replace(corp, default_scopes=("default:read",))
    claims = forge.claims(scope=value)
    assert reasons(claims, issuer) == []
    assert principal_of(claims, issuer, "f").scopes == scopes


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({"email": "a@b", "org": {"role": "dev"}}, []),
        ({"email": "a@b"}, ["claims"]),
        ({"email": "a@b", "org": {"role": None}}, ["claims"]),
        ({}, ["claims", "claims"]),
    ],
)
def test_required_claims_must_be_there(
    claims: dict[str, Any], found: list[str], corp: IssuerOptions, forge: Forge
) -> None:
    issuer = replace(corp, required_claims=("email", "org.role"))
    assert reasons(forge.claims(**claims), issuer) == found


def test_the_subject_may_stand_elsewhere(corp: IssuerOptions, forge: Forge) -> None:
    issuer = replace(corp, subject_claim="client.id")
    claims = forge.claims(sub=None, client={"id": "robot"})
    assert reasons(claims, issuer) == []
    assert principal_of(claims, issuer, "f").subject == "robot"


def test_all_faults_are_told_not_only_the_first(corp: IssuerOptions, forge: Forge) -> None:
    claims = forge.claims(exp=NOW - 60, iat=NOW - 70, aud="window", tenant=None)
    assert reasons(claims, corp) == [Reason.EXPIRED, Reason.AUDIENCE, Reason.TENANT]


def test_claims_that_were_not_checked_make_no_principal(corp: IssuerOptions, forge: Forge) -> None:
    with pytest.raises(TypeError):
        principal_of(forge.claims(tenant=7), corp, "f")

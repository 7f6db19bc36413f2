"""`tenants.yaml`: what is read, everything that is refused at once, and what is risky."""

from __future__ import annotations

from pathlib import Path

import pytest

from cbk_gateway.parties import Measure, Period, Quota, Rate, RunAs, RunAsForm, StoreFailure, Tenant
from cbk_gateway.secret import Secret, account_fingerprint
from cbk_gateway.settings import Problem, SettingsError
from cbk_gateway.settings.scope_syntax import ScopeSyntaxError, parse_scope
from cbk_gateway.settings.tenant_models import TenantShape
from cbk_gateway.settings.tenants import load_tenants, vault_references, warnings
from cbk_gateway.settings.yaml_file import MAX_DEPTH, MAX_FILE_BYTES, parse_yaml

SK = "sk-0123456789abcdef"
ENVIRON = {"K": SK, "K2": "sk-other", "BAD": "two words"}
FULL = """
tenants:
  - id: acme
    account: acme-main
    key: env:K
    next_key: env:K2
    run_as: {user_id: user_1}
    scopes: ["*:read", "conversation/**:*", "!secret:*"]
    limits:
      rate: {per_second: 200, burst: 400, on_store_failure: deny}
      classes: [{name: chat, match: "conversation/**:write", per_second: 0.2, shadow: true}]
      subject: {per_second: 5}
      quotas: [{period: month, measure: tokens, limit: 1000, hard: false}]
      max_concurrent: 10
      max_streams: 3
      max_wait_ms: 1500
      costs: {model: 4, search: 0.5}
    labels: {plan: gold}
    timezone: Europe/Vienna
    may_bypass_cache: true
    audit_bodies: true
    audit_on_failure: allow
    isolation: report
    allowed_origins: [https://app.example.com]
    disabled: true
    token_not_before: 2026-01-31T12:00:00Z
"""
LIMITS = "{per_second: 1, burst: 9}"


def load(tmp_path: Path, text: str, *, allow_inline: bool = False) -> tuple[Tenant, ...]:
    path = tmp_path / "tenants.yaml"
    path.write_text(text)
    return load_tenants(path, allow_inline=allow_inline, environ=ENVIRON)


def problems(tmp_path: Path, text: str) -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    assert SK not in str(caught.value)
    return caught.value.problems


def one(more: str) -> str:
    return f"tenants:\n  - id: acme\n    key: env:K\n    scopes: ['bot:*']\n    {more}\n"


def test_every_field_reaches_the_tenant(tmp_path: Path) -> None:
    (tenant,) = load(tmp_path, FULL)
    assert tenant.key.reveal() == SK
    assert tenant.next_key == Secret("sk-other")
    assert (tenant.id, tenant.account) == ("acme", "acme-main")
    assert tenant.run_as == RunAs(RunAsForm.USER_ID, "user_1")
    assert tenant.scopes == ("*:read", "conversation/**:*", "!secret:*")
    limits = tenant.limits
    assert limits.rates == (
        Rate("tenant", 200, 400, "*", StoreFailure.DENY),
        Rate("chat", 0.2, 1, "conversation/**:write", shadow=True),
    )
    assert limits.subject_rate == Rate("subject", 5, 10)
    assert limits.quotas == (Quota("tokens-per-month", Period.MONTH, Measure.TOKENS, 1000, hard=False),)
    assert (limits.max_concurrent, limits.max_streams, limits.max_wait_s) == (10, 3, 1.5)
    assert limits.costs == {"model": 4, "search": 0.5}
    assert tenant.labels == {"plan": "gold"}
    assert (tenant.timezone, tenant.isolation, tenant.audit_on_failure) == (
        "Europe/Vienna",
        "report",
        "allow",
    )
    assert tenant.may_bypass_cache
    assert tenant.audit_bodies
    assert tenant.disabled
    assert tenant.allowed_origins == ("https://app.example.com",)
    assert tenant.token_not_before == 1769860800


def test_a_short_tenant_has_safe_defaults(tmp_path: Path) -> None:
    (tenant,) = load(tmp_path, one(""))
    assert tenant.account == account_fingerprint(Secret(SK), None)
    rights = (tenant.may_run_as, tenant.may_bypass_cache, tenant.audit_bodies, tenant.disabled)
    assert rights == (False, False, False, False)
    assert (tenant.isolation, tenant.audit_on_failure, tenant.next_key) == ("none", "refuse", None)


def test_a_derived_account_is_the_childs_where_one_is_forced(tmp_path: Path) -> None:
    (tenant,) = load(tmp_path, one("run_as: {child_email: a@b.example}"))
    assert tenant.account == account_fingerprint(Secret(SK), "a@b.example")
    assert tenant.run_as == RunAs(RunAsForm.CHILD_EMAIL, "a@b.example")


def test_an_empty_file_has_no_tenants(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing yet\n") == ()


def test_all_problems_are_told_at_once_with_file_key_and_line(tmp_path: Path) -> None:
    text = f"""
tenants:
  - id: Acme
    key: {SK}
    scops: ["*"]
  - id: globex
    key: env:NOPE
    scopes: ["bot"]
    limits: {{rate: {{per_secnd: 1}}}}
"""
    found = {(one.key, one.line) for one in problems(tmp_path, text)}
    assert found == {
        ("tenants[0] (Acme).id", 3),
        ("tenants[0] (Acme).key", 4),
        ("tenants[0] (Acme).scopes", 3),
        ("tenants[0] (Acme).scops", 5),
        ("tenants[1] (globex).key", 7),
        ("tenants[1] (globex).scopes[0]", 8),
        ("tenants[1] (globex).limits.rate.per_second", 9),
        ("tenants[1] (globex).limits.rate.per_secnd", 9),
    }
    (typo,) = (one for one in problems(tmp_path, text) if one.key.endswith("scops"))
    assert typo.remedy == "Did you mean `scopes`?"
    assert typo.file == str(tmp_path / "tenants.yaml")


@pytest.mark.parametrize(
    ("more", "key", "says"),
    [
        ("limits: {rate: {per_second: 1, brst: 2}}", ".limits.rate.brst", "Did you mean `burst`?"),
        (
            "limits: {quotas: [{period: week, measure: tokens, limit: 1}]}",
            ".limits.quotas[0].period",
            "'day'",
        ),
        ("limits: {costs: {modl: 1}}", ".limits.costs.modl", "'model'"),
        ("limits: {rate: {per_second: 0}}", ".limits.rate.per_second", "greater than 0"),
        ("limits: {rate: {per_second: .inf}}", ".limits.rate.per_second", "finite"),
        ("limits: {rate: {per_second: 1, burst: 3}, costs: {model: 5}}", ".limits", "may cost 5 tokens"),
        (
            f"limits: {{classes: [{{name: tenant, match: '*', per_second: 1}}], rate: {LIMITS}}}",
            "classes[0].name",
            "",
        ),
        ("limits: {classes: [{name: a, match: '!*', per_second: 1}]}", ".classes[0].match", "deny rule"),
        (
            "limits: {classes: [{name: a, match: 'bot[b]:*', per_second: 1}]}",
            "[0].match",
            "leave the brackets",
        ),
        ("limits: {classes: [{name: a, match: 'x', per_second: 1}]}", ".classes[0].match", "type:action"),
        ("run_as: {}", ".run_as", "exactly one"),
        ("run_as: {user_id: a, child_email: b}", ".run_as", "exactly one"),
        ('run_as: {user_id: "a\\r\\nX: y"}', ".run_as.user_id", "visible ASCII"),
        ("run_as: {user_id: a}\n    may_run_as: true", " (acme)", "keep one of them"),
        ("timezone: Mars/Olympus", ".timezone", "IANA"),
        ("timezone: ../../etc/passwd", ".timezone", "IANA"),
        ("isolation: some", ".isolation", "'report'"),
        ("allowed_origins: [app.example.com]", ".allowed_origins[0]", "https://"),
        ("token_not_before: 2026-01-31T12:00:00", ".token_not_before", "needs a zone"),
        ("token_not_before: tomorrow", ".token_not_before", "epoch seconds"),
        ("disabled: maybe", ".disabled", "Write true or false"),
        ("account: 'a b'", ".account", "letters"),
        ("next_key: env:BAD", ".next_key", "cannot be an upstream key"),
        ("labels: 7", ".labels", "dictionary"),
        ("run_as: 7", ".run_as", ""),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(tmp_path: Path, more: str, key: str, says: str) -> None:
    (problem,) = problems(tmp_path, one(more))
    assert key in problem.key
    assert says in f"{problem.message} {problem.remedy}"
    assert problem.line is not None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tenants: [{id: a, id: b}]", "a second time"),
        ("tenants: &a []\nmore: *a", "Anchors and aliases"),
        ("tenants: !!python/object/apply:os.system ['true']", "Tags are not read"),
        ("tenants: !custom x", "Tags are not read"),
        ("tenants: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested too deeply"),
        ("tenants: " + "[" * 100_000, "nested too deeply"),
        ("tenants: [", "not valid YAML"),
        ("tenants: {a", "not valid YAML"),
        ("? [a]\n: b", "plain name"),
        ("tenants: 7", "list of tenants"),
        ("- id: a", "list of tenants"),
        ("tenants: [7]", "group of keys"),
        ("tenant: []", "Did you mean `tenants`?"),
        ("tenants: \x00", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str, says: str) -> None:
    found = problems(tmp_path, text)
    assert says in f"{found[0].message} {found[0].remedy}"


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(b"tenants: \xff\xfe")
    with pytest.raises(SettingsError, match="not valid YAML"):
        load_tenants(path, environ={})


def test_a_file_too_large_is_not_parsed() -> None:
    with pytest.raises(SettingsError, match="over"):
        parse_yaml("t.yaml", b"#" * (MAX_FILE_BYTES + 1))


def test_a_missing_file_is_a_problem_like_any_other(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_tenants(tmp_path / "none.yaml", environ={})


def test_two_tenants_of_one_id_are_refused(tmp_path: Path) -> None:
    text = "tenants:\n" + "  - {id: a, key: env:K, scopes: []}\n" * 2
    (problem,) = problems(tmp_path, text)
    assert problem.key == "tenants[1] (a).id"


def test_one_credential_cannot_be_two_accounts(tmp_path: Path) -> None:
    text = """
tenants:
  - {id: a, account: x, key: env:K, scopes: []}
  - {id: b, account: y, key: env:K, scopes: []}
  - {id: c, account: z, key: env:K, scopes: [], run_as: {user_id: u}}
"""
    (problem,) = problems(tmp_path, text)
    assert problem.key == "tenants[1] (b).account"


def test_inline_secrets_are_for_demonstrations(tmp_path: Path) -> None:
    text = one("").replace("env:K", f"inline:{SK}")
    assert load(tmp_path, text, allow_inline=True)[0].key.reveal() == SK
    (problem,) = problems(tmp_path, text)
    assert "demonstrations" in problem.message


def test_vault_references_are_found_before_they_are_followed() -> None:
    text = (
        b"tenants: [{key: 'vault:kv/a'}, {key: 'vault:kv/b#f', next_key: 'vault:kv/c'}, {key: 'vault:'}, 7]"
    )
    assert vault_references(parse_yaml("t", text)) == {"vault:kv/a#key", "vault:kv/b#f", "vault:kv/c#key"}


@pytest.mark.parametrize(
    ("more", "key", "says"),
    [
        ("scopes: ['*']", "scopes", "allows everything"),
        ("scopes: ['*:write']", "scopes", "every type"),
        ("scopes: ['bto:fetch']", "scopes", "Did you mean `bot`?"),
        ("scopes: ['!secret:*', 'graphql:execute']", "scopes", "GraphQL"),
        ("scopes: []", "limits", "no rate"),
        ("scopes: []\n    next_key: env:K2", "account", "derived"),
        ("scopes: []\n    next_key: env:K", "next_key", "same as"),
        ("scopes: []\n    may_run_as: true", "may_run_as", "any child"),
        ("scopes: []\n    audit_on_failure: allow", "audit_on_failure", "journalled"),
    ],
)
def test_a_risky_choice_is_warned_of(tmp_path: Path, more: str, key: str, says: str) -> None:
    text = f"tenants:\n  - id: acme\n    key: env:K\n    {more}\n"
    told = [(one.key, f"{one.message} {one.remedy}") for one in warnings(load(tmp_path, text))]
    assert any(place == f"acme.{key}" and says in words for place, words in told)


def test_a_careful_tenant_is_warned_of_nothing(tmp_path: Path) -> None:
    text = one("limits: {rate: {per_second: 5}}").replace("bot:*", "platform/**:read")
    assert warnings(load(tmp_path, text)) == []


def test_a_shared_key_is_warned_of_where_tenants_reach_one_another(tmp_path: Path) -> None:
    text = f"""
tenants:
  - {{id: a, key: env:K, scopes: [], limits: {{rate: {LIMITS}}}}}
  - {{id: b, key: env:K, scopes: [], limits: {{rate: {LIMITS}}}, isolation: objects}}
  - {{id: c, key: env:K, scopes: [], limits: {{rate: {LIMITS}}}, run_as: {{user_id: u}}}}
"""
    told = warnings(load(tmp_path, text), "t.yaml")
    assert [(one.file, one.key) for one in told] == [("t.yaml", "a.key")]


def test_every_field_is_described() -> None:
    def undescribed(shape: dict[str, object]) -> list[str]:
        properties = shape.get("properties", {})
        assert isinstance(properties, dict)
        return [name for name, one in properties.items() if not one.get("description")]

    schema = TenantShape.model_json_schema()
    assert undescribed(schema) == []
    assert [name for name, one in schema["$defs"].items() if undescribed(one)] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bot",
        "bot:",
        ":fetch",
        "bot:fetch:x",
        "bot fetch",
        "bot:fe tch",
        "bot[:fetch",
        "bot[]:fetch",
        "bot[a b]:x",
        "*/x:read",
        "*[a]:read",
        "/bot:read",
        "bot/:read",
        "bot//x:read",
        "bot/**/x:read",
        "!",
        "!!*",
        "bot[a][b]:x",
        "bot/**[a]:x",
        "x" * 600 + ":read",
        "bot:fetch,list",
        "b\u00f6t:fetch",
    ],
)
def test_a_malformed_scope_is_refused(text: str) -> None:
    with pytest.raises(ScopeSyntaxError):
        parse_scope(text)


def test_the_commented_example_is_valid_and_shows_no_risk(tmp_path: Path) -> None:
    example = (Path(__file__).parents[3] / "config" / "tenants.yaml").read_text()
    (tmp_path / "partner").write_text("sk-partner")
    path = tmp_path / "tenants.yaml"
    path.write_text(example.replace("/run/secrets/cbk/partner", "partner"))
    shared = {"vault:secret/cbk/shared#key": Secret("sk-shared")}
    tenants = load_tenants(path, environ={"ACME_KEY": SK}, vault=shared)
    assert [one.id for one in tenants] == ["acme", "globex", "initech", "initrode"]
    assert {one.key for one in warnings(tenants)} <= {"acme.scopes", "globex.scopes"}

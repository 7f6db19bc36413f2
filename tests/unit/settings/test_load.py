"""Reading and checking settings: every problem at once, warnings for what is risky, the examples valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cbk_gateway.settings.load import check, load

CONFIG = Path(__file__).parents[3] / "config"
ENVIRON = {
    "CBK_GATEWAY_ADMIN_TOKEN_ON_CALL": "an-operators-token-0123456789abcdef",
    "CBK_GATEWAY_SIGNING_KEY": "a-signing-key-for-tests-0123456789abcdef",
    "ACME_KEY": "sk-acme-0123456789abcdef0123456789abcdef",
}


def written(folder: Path, **sections: Any) -> Path:
    (folder / "tenants.yaml").write_text("tenants: []\n")
    file = folder / "gateway.yaml"
    mint = {"mint": {"keys": [{"kid": "k", "alg": "HS256", "key": "env:CBK_GATEWAY_SIGNING_KEY"}]}}
    file.write_text(yaml.safe_dump({"identity": mint, **sections}))
    return file


def test_the_shipped_examples_are_valid_but_for_a_file_of_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CBK_GATEWAY_TENANCY__VAULT__ADDRESS", "https://vault.example.com:8200")
    monkeypatch.setenv("CBK_GATEWAY_TENANCY__VAULT__KUBERNETES_ROLE", "cbk-gateway")
    report = check(CONFIG / "gateway.yaml", environ=ENVIRON)
    assert [problem.key for problem in report.problems] == ["tenants[1] (globex).key"]


def test_vault_is_not_asked_by_a_check(tmp_path: Path) -> None:
    file = written(tmp_path, tenancy={"vault": {"address": "https://127.0.0.1:1", "kubernetes_role": "r"}})
    (tmp_path / "tenants.yaml").write_text(
        "tenants:\n  - {id: acme, account: a, key: 'vault:secret/cbk/acme#key', scopes: ['*']}\n"
    )
    assert not check(file, environ=ENVIRON).problems


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"admin": {"host": "0.0.0.0"}}, "admin.host"),
        ({"listen": {"host": "0.0.0.0"}}, "listen.tls"),
        ({"upstream": {"url": "http://api.example"}}, "upstream.url"),
        ({"audit": {"enabled": False}}, "audit.enabled"),
        ({"audit": {"free_text": True}}, "audit.free_text"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_is_legal_but_risky_is_a_warning(tmp_path: Path, sections: dict[str, Any], key: str) -> None:
    report = check(written(tmp_path, **sections), environ=ENVIRON)
    assert not report.problems
    assert key in [warning.key for warning in report.warnings]


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, listen={"prot": 1}, store={"timeout_ms": 1}, audit={"sinks": {"kafka": {}}})
    report = check(file, environ=ENVIRON)
    assert {problem.key for problem in report.problems} == {
        "listen.prot",
        "store.timeout_ms",
        "audit.sinks.kafka",
    }


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    loaded = load(written(tmp_path), environ=ENVIRON)
    assert loaded.path(Path("audit")) == tmp_path / "audit"
    assert loaded.path(Path("/var/audit")) == Path("/var/audit")

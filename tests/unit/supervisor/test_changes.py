"""What differs between two settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cbk_gateway.settings.load import load
from cbk_gateway.supervisor.changes import differences, document_of, files_digest, hidden
from cbk_gateway.supervisor.launch import revived
from harness import settings_document


def document(tmp_path: Path, **sections: Any) -> dict[str, Any]:
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump(settings_document("http://127.0.0.1:1", "embedded", **sections)))
    return document_of(load(file).settings)


def test_equal_settings_do_not_differ(tmp_path: Path) -> None:
    assert differences(document(tmp_path), document(tmp_path)) == []


def test_each_changed_key_is_named_with_both_values(tmp_path: Path) -> None:
    found = differences(document(tmp_path), document(tmp_path, listen={"port": 0, "keepalive_s": 30}))
    assert [str(one) for one in found] == ["listen.keepalive_s: 75.0 -> 30.0"]


@pytest.mark.parametrize(
    ("sections", "needs_restart"),
    [
        ({"admin": {"port": 1}}, True),
        ({"admin": {"tokens": []}}, False),
        ({"store": {"url": "redis://127.0.0.1:1"}}, True),
        ({"store": {"timeout_ms": 99}}, False),
        ({"listen": {"port": 1}}, False),
    ],
)
def test_what_is_the_supervisors_own_needs_a_restart(
    tmp_path: Path, sections: dict[str, Any], needs_restart: bool
) -> None:
    found = differences(document(tmp_path), document(tmp_path, **sections))
    assert {one.needs_restart for one in found} == {needs_restart}


def test_what_could_be_a_secret_is_hidden() -> None:
    shown = hidden({"url": "redis://user:hunter2@host:1/0", "keys": ["inline:hunter2", "env:NAME"], "n": 1})
    assert shown == {"url": "redis://***@host:1/0", "keys": ["inline:***", "env:NAME"], "n": 1}


def test_settings_survive_the_way_to_a_worker_whatever_its_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = document(tmp_path, listen={"port": 0, "trusted_proxies": ["10.0.0.0/8"]})
    monkeypatch.setitem(os.environ, "CBK_GATEWAY_LISTEN__PORT", "9999")
    assert document_of(revived(there)) == there


def test_a_renewed_certificate_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("one")
    file = tmp_path / "gateway.yaml"
    file.write_text(
        yaml.safe_dump(
            settings_document("http://127.0.0.1:1", "embedded") | {"upstream": {"ca_file": "ca.pem"}}
        )
    )
    loaded = load(file)
    before = files_digest(loaded)
    assert files_digest(loaded) == before
    (tmp_path / "ca.pem").write_text("two")
    assert files_digest(loaded) != before

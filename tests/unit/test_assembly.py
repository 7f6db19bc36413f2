"""From settings to options: what is written arrives where it acts, and nothing else changes."""

from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from cbk_gateway import assembly
from cbk_gateway.assembly_audit import kept_key, sinks
from cbk_gateway.cache import CacheOptions
from cbk_gateway.limits import LimiterOptions
from cbk_gateway.settings import SettingsError
from cbk_gateway.settings.load import Loaded, load
from cbk_gateway.store import Store
from cbk_gateway.tenancy.options import TenancyOptions
from cbk_gateway.upstream import RelayOptions, UpstreamOptions

SECRET = "a-secret-for-tests-only-0123456789abcdef"
KEYS = [{"kid": "k", "alg": "HS256", "key": "env:SECRET"}]
ISSUER: dict[str, Any] = {
    "name": "idp",
    "issuer": "https://idp.example",
    "algorithms": ["HS256"],
    "keys": KEYS,
}


def loaded(folder: Path, document: dict[str, Any]) -> Loaded:
    file = folder / "gateway.yaml"
    file.write_text(yaml.safe_dump(document))
    return load(file, environ={"SECRET": SECRET})


def at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return value


def test_without_settings_the_packages_keep_their_defaults(tmp_path: Path) -> None:
    bare = loaded(tmp_path, {})
    assert assembly.cache_options(bare) == CacheOptions()
    assert assembly.tenancy_options(bare) == TenancyOptions()
    assert assembly.limiter_options(bare).checkpoint_directory == LimiterOptions().checkpoint_directory
    usual = UpstreamOptions(url="", path_prefix="")
    made = assembly.upstream_options(bare)
    for name in ("retry", "breaker", "concurrency", "pool_size", "idle_s", "connect_timeout_s", "pins"):
        assert at(made, name) == at(usual, name), name
    for name in ("tls_timeout_s", "dns_ttl_s", "address_rest_s"):
        assert at(made, name) == at(usual, name), name
    assert assembly.relay_options(bare) == RelayOptions()


@pytest.mark.parametrize(
    ("build", "section", "written", "option", "expected"),
    [
        ("upstream", "upstream", {"pins": ["A" * 43 + "="]}, "pins", ("A" * 43 + "=",)),
        ("upstream", "upstream", {"addresses": ["10.0.0.1:443"]}, "addresses", ("10.0.0.1:443",)),
        ("upstream", "upstream", {"tls_timeout_s": 2}, "tls_timeout_s", 2),
        ("upstream", "upstream", {"dns_ttl_s": 7}, "dns_ttl_s", 7),
        ("upstream", "upstream", {"address_rest_s": 3}, "address_rest_s", 3),
        ("relay", "upstream", {"stream_heartbeat_s": 5}, "heartbeat_s", 5),
        ("relay", "upstream", {"stream_deadline_s": 60}, "deadline_s", 60),
        ("upstream", "upstream", {"retry": {"max_attempts": 1}}, "retry.max_attempts", 1),
        ("upstream", "upstream", {"breaker": {"enabled": False}}, "breaker.enabled", False),
        ("upstream", "upstream", {"concurrency": {"most": 500}}, "concurrency.most", 500),
        ("cache", "cache", {"lease_s": 3}, "lease_s", 3),
        ("cache", "cache", {"compress": False}, "compress", False),
        ("cache", "cache", {"account_share": 1}, "account_share", 1),
        ("cache", "cache", {"jsonl_walks": True}, "cache_jsonl_walks", True),
        ("tenancy", "tenancy", {"promote_after": 7}, "rotation.promote_after", 7),
        ("tenancy", "tenancy", {"next_pause_s": 9}, "rotation.next_pause_s", 9),
        ("journal", "audit", {"reserve_inodes": 5}, "reserve_inodes", 5),
        ("journal", "audit", {"secret_paths": ["a.b"]}, "secret_paths", frozenset({"a.b"})),
        ("journal", "audit", {"shown_fields": ["plan"]}, "shown_fields", frozenset({"plan"})),
        ("journal", "audit", {"free_text": True}, "free_text", True),
        ("journal", "audit", {"key_version": "2"}, "key_version", "2"),
        ("journal", "audit", {"checkpoint_interval_s": 5}, "checkpoint_interval_s", 5),
    ],
)
def test_what_is_written_arrives(
    tmp_path: Path, build: str, section: str, written: dict[str, Any], option: str, expected: object
) -> None:
    made = getattr(assembly, f"{build}_options")(loaded(tmp_path, {section: written}))
    assert at(made, option) == expected


def test_everything_about_an_issuer_arrives(tmp_path: Path) -> None:
    issuer = {
        **ISSUER,
        "tenant": "acme",
        "subject_claim": "uid",
        "default_scopes": ["bot:read"],
        "types": ["jwt"],
        "jwks": {"refresh_s": 60, "max_keys": 3},
    }
    section = {"issuers": [issuer], "revocation_poll_s": 0.25, "max_revocation_age_s": 60}
    options = assembly.identity_options(loaded(tmp_path, {"identity": section}), None)
    assert (options.revocation_poll_s, options.max_revocation_age_s) == (0.25, 60)
    (made,) = options.issuers
    assert (made.tenant, made.subject_claim, made.default_scopes, made.types) == (
        "acme",
        "uid",
        ("bot:read",),
        ("jwt",),
    )
    assert (made.jwks.refresh_s, made.jwks.max_keys) == (60, 3)


async def test_each_sink_that_is_configured_is_made(tmp_path: Path, store: Store) -> None:
    written = {
        "redis_stream": {},
        "http": {"url": "https://siem.example/in", "token": "env:SECRET"},
        "otlp": {"url": "http://127.0.0.1:4318/v1/logs"},
        "syslog": {"host": "logs.example"},
    }
    settings = loaded(tmp_path, {"audit": {"sinks": written}})
    made = sinks(settings, assembly.journal_options(settings), store)
    assert [sink.name for sink in made] == ["redis", "http", "otlp", "syslog"]
    assert SECRET not in repr(made)


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"audit": {"sinks": {"http": {"url": "http://siem.example/in"}}}}, "audit.sinks.http.url"),
        ({"audit": {"sinks": {"syslog": {"host": "logs.example", "tls": False}}}}, "audit.sinks.syslog.tls"),
        (
            {"audit": {"sinks": {"http": {"url": "https://a.example", "token": "env:NO"}}}},
            "audit.sinks.http.token",
        ),
        ({"upstream": {"concurrency": {"start": 2, "least": 4}}}, "upstream.concurrency"),
        ({"upstream": {"timeouts": {"reads": {"idle_s": 1}}}}, "upstream.timeouts.reads"),
        ({"upstream": {"pins": ["short"]}}, "upstream.pins[0]"),
        ({"cache": {"lease_s": 1}}, "cache.lease_s"),
        ({"telemetry": {"labels_off": ["worker"]}}, "telemetry.labels_off[0]"),
        ({"listen": {"trusted_proxies": ["nowhere"]}}, "listen.trusted_proxies"),
        ({"tenancy": {"master_key": "env:NO"}}, "tenancy.master_key"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_check_names_the_key_that_is_wrong(tmp_path: Path, document: dict[str, Any], key: str) -> None:
    (tmp_path / "tenants.yaml").write_text("tenants: []\n")
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump({"identity": {"mint": {"keys": KEYS}}, **document}))
    report = assembly.validate(file, environ={"SECRET": SECRET})
    assert key in [problem.key for problem in report.problems]


def test_a_check_warns_of_whom_the_gateway_believes(tmp_path: Path) -> None:
    (tmp_path / "tenants.yaml").write_text("tenants: []\n")
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump({"identity": {"issuers": [{**ISSUER, "audience": ["*"]}]}}))
    report = assembly.validate(file, environ={"SECRET": "short"})
    said = " ".join(warning.message for warning in report.warnings)
    for part in ("guessed offline", "other services", "any lifetime"):
        assert part in said
    assert "short-secret" not in said


def test_tracing_without_its_extra_is_a_problem_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="OpenTelemetry is not installed"):
        assembly.tracing_options(loaded(tmp_path, {"telemetry": {"tracing": {"enabled": True}}}))


def test_all_who_start_at_once_get_the_same_key_and_none_a_part_of_it(tmp_path: Path) -> None:
    for number in range(100):
        place, start = tmp_path / f"{number}.key", threading.Barrier(4)

        def key(place: Path = place, start: threading.Barrier = start) -> str:
            start.wait()
            return kept_key(place).reveal()

        with ThreadPoolExecutor(4) as pool:
            keys = {one.result() for one in [pool.submit(key) for _ in range(4)]}
        assert len(keys) == 1
        assert len(base64.b64decode(keys.pop())) == 32
        assert place.stat().st_mode & 0o777 == 0o600
    assert {one.suffix for one in tmp_path.iterdir()} == {".key"}
    assert len(list(tmp_path.iterdir())) == 100

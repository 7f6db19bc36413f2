"""Each file of deploy/ is shown to the program or schema of those who read it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cbk_gateway.assembly import validate
from deploy_tools import CHART, DEPLOY, ROOT, lacking, ran

BIN = Path(sys.executable).parent
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
GATEWAY: dict[str, Any] = COMPOSE["services"]["gateway"]
MOST_EXPOSED = 2.0
"""Of ten, by systemd's own reckoning; a service that says nothing has 9.6."""


def example() -> dict[str, str]:
    """The variables of the example of secrets, as they stand there."""
    lines = (DEPLOY / "secrets.env.example").read_text().splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}


@pytest.fixture
def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings as the compose file's gateway finds them: its mount and its environment."""
    (mount,) = [one for one in GATEWAY["volumes"] if ":/etc/cbk-gateway:" in one]
    folder = tmp_path / "settings"
    shutil.copytree(DEPLOY / mount.partition(":")[0], folder)
    for name, value in GATEWAY["environment"].items():
        monkeypatch.setenv(name, value)
    return folder / "gateway.yaml"


def test_compose_is_valid_by_its_schema() -> None:
    done = ran(
        str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml"
    )
    assert done.returncode == 0, done.stdout


def test_the_schema_of_compose_refuses_what_is_wrong(tmp_path: Path) -> None:
    wrong = {**COMPOSE, "services": {"gateway": {**GATEWAY, "read_onyl": True}}}
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(wrong))
    command = ("--builtin-schema", "vendor.compose-spec", str(tmp_path / "compose.yaml"))
    assert ran(str(BIN / "check-jsonschema"), *command).returncode == 1


def test_the_secrets_compose_asks_for_have_an_example_that_names_all_of_them(
    composed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert GATEWAY["env_file"] == ["secrets.env"]
    assert "secrets.env.example" in (DEPLOY / "compose.yaml").read_text()
    assert "/deploy/secrets.env" in (ROOT / ".gitignore").read_text().splitlines()
    # An example that could be used as it is would be used as it is.
    assert set(example().values()) == {""}
    for name, value in example().items():
        monkeypatch.setenv(name, value)
    unset = " ".join(map(str, validate(composed).problems))
    assert all(name in unset for name in example())
    for name in example():
        monkeypatch.setenv(name, f"sk-{name}-" + "0123456789abcdef" * 3)
    assert validate(composed).problems == ()


def test_no_stage_of_the_image_sees_secrets() -> None:
    assert (ROOT / ".dockerignore").read_text().splitlines()[0] == "*"
    assert "!deploy" not in (ROOT / ".dockerignore").read_text()


def test_hadolint_accepts_the_dockerfile() -> None:
    done = ran(str(BIN / "hadolint"), "--failure-threshold", "style", "deploy/Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_is_at_work(tmp_path: Path) -> None:
    text = (DEPLOY / "Dockerfile").read_text().replace("python:3.13-slim-bookworm", "python")
    (tmp_path / "Dockerfile").write_text(text)
    assert "DL3006" in ran(str(BIN / "hadolint"), str(tmp_path / "Dockerfile")).stdout


@pytest.mark.parametrize("folder", ["prometheus", "compose"])
def test_promtool_accepts_the_scrape_configurations(folder: str, tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        lacking("promtool (Debian: prometheus)")
    # As the compose file mounts them.
    shutil.copytree(DEPLOY / "prometheus", tmp_path / "rules")
    place = tmp_path if folder == "compose" else tmp_path / "rules"
    shutil.copy(DEPLOY / folder / "prometheus.yml", place / "prometheus.yml")
    done = ran("promtool", "check", "config", "prometheus.yml", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "FAILED" not in done.stdout + done.stderr


def test_the_service_is_little_exposed_by_systemds_own_reckoning() -> None:
    if shutil.which("systemd-analyze") is None:
        lacking("systemd-analyze (Debian: systemd)")
    limit = str(int(MOST_EXPOSED * 10))
    unit = str(DEPLOY / "systemd" / "cbk-gateway.service")
    done = ran("systemd-analyze", "security", "--offline=yes", f"--threshold={limit}", "--no-pager", unit)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_caddy_accepts_the_caddyfile(tmp_path: Path) -> None:
    if shutil.which("caddy") is None:
        lacking("caddy")
    file = str(DEPLOY / "front" / "Caddyfile")
    home = f"HOME={tmp_path}"
    done = ran("env", home, "caddy", "validate", "--adapter", "caddyfile", "--config", file)
    assert done.returncode == 0, done.stderr
    assert "Valid configuration" in done.stdout + done.stderr
    adapted = json.loads(
        ran("env", home, "caddy", "adapt", "--adapter", "caddyfile", "--config", file).stdout
    )
    dialled = [one["dial"] for one in found(adapted, "upstreams")]
    assert dialled == ["127.0.0.1:8080"]


def found(value: Any, name: str) -> list[Any]:
    """The first list under a name, at any depth."""
    if isinstance(value, dict):
        if name in value:
            return list(value[name])
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            if inner := found(one, name):
                return inner
    return []


ENVOY_MESSAGES = (
    "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "envoy.extensions.filters.http.router.v3.router_pb2",
    "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2",
)


def test_envoy_knows_every_key_of_its_configuration() -> None:
    """Envoy reads its file into these messages and refuses whatever they do not have."""
    if importlib.util.find_spec("envoy") is None:
        lacking("xds-protos")
    forms = importlib.import_module("google.protobuf.json_format")
    bootstrap = importlib.import_module("envoy.config.bootstrap.v3.bootstrap_pb2").Bootstrap
    for name in ENVOY_MESSAGES:
        importlib.import_module(name)
    text = (DEPLOY / "front" / "envoy.yaml").read_text()
    read = forms.ParseDict(yaml.safe_load(text), bootstrap())
    assert len(read.static_resources.listeners) == len(read.static_resources.clusters) == 1
    for right, wrong in (("stream_idle_timeout: 0s", "stream_idle_timeout: never"), ("codec_type", "codec")):
        with pytest.raises(forms.ParseError):
            forms.ParseDict(yaml.safe_load(text.replace(right, wrong)), bootstrap())


@pytest.mark.parametrize("schema", [CHART / "values.schema.json", ROOT / "config" / "gateway.schema.json"])
def test_our_own_schemas_are_valid_schemas(schema: Path) -> None:
    done = ran(str(BIN / "check-jsonschema"), "--check-metaschema", str(schema))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["gateway.yaml", "demo.yaml"])
def test_the_examples_of_settings_are_valid_by_our_schema(name: str) -> None:
    schema = str(ROOT / "config" / "gateway.schema.json")
    done = ran(str(BIN / "check-jsonschema"), "--schemafile", schema, str(ROOT / "config" / name))
    assert done.returncode == 0, done.stdout


def test_every_file_of_deploy_is_described() -> None:
    """A folder that the guide does not name is one that nobody finds."""
    guide = (DEPLOY / "README.md").read_text()
    names = {one.name for one in DEPLOY.iterdir() if one.name not in {"README.md", "secrets.env", "checks"}}
    assert {name for name in names if f"`{name}" not in guide and f"({name}" not in guide} == set()
    assert os.access(DEPLOY / "SCALE.md", os.R_OK)

"""The files in deploy/ hold together, with one another and with the program they run."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cbk_gateway.assembly import validate

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """A unit file: sections, keys, and every value of a key, since units may repeat one."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in (DEPLOY / "systemd" / name).read_text().splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            current.setdefault(key, []).append(value)
    return sections


def manifests() -> list[dict[str, Any]]:
    """Every object that the kustomization names."""
    names = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    return [one for name in names for one in yaml.safe_load_all((KUBERNETES / name).read_text())]


def manifest(kind: str) -> dict[str, Any]:
    return next(one for one in manifests() if one["kind"] == kind)


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def test_the_units_keys_are_ones_systemd_knows(tmp_path: Path) -> None:
    for name in ("cbk-gateway.service", "cbk-gateway.socket"):
        text = (DEPLOY / "systemd" / name).read_text()
        # The program itself is installed elsewhere; verify wants one that exists.
        (tmp_path / name).write_text(text.replace("/opt/cbk-gateway/bin/cbk-gateway", "/bin/true"))
    ran = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ours = [line for line in ran.stderr.splitlines() if "cbk-gateway" in line]
    assert ours == []


def test_the_service_is_hardened_and_told_the_truth_about_its_program() -> None:
    service = unit("cbk-gateway.service")["Service"]
    assert service["Type"] == ["notify"]
    assert service["ExecStart"][0].split()[1:3] == ["serve", "--config"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    for key in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "MemoryDenyWriteExecute"):
        assert service[key] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["CapabilityBoundingSet"] == [""]
    assert "AF_UNIX" in service["RestrictAddressFamilies"][0].split()


def test_the_socket_unit_names_its_descriptor_as_the_program_looks_for_it() -> None:
    socket = unit("cbk-gateway.socket")["Socket"]
    assert socket["FileDescriptorName"] == ["data"]
    assert configparser.RawConfigParser(strict=True).read(DEPLOY / "systemd" / "cbk-gateway.socket")


def test_the_image_is_built_in_stages_and_does_not_run_as_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    words = [line.split(maxsplit=1) for line in lines]
    steps = [(word[0], word[1]) for word in words]
    bases = [rest for step, rest in steps if step == "FROM"]
    assert len(bases) == 2
    assert all(re.search(r":[\w.-]+", base) and ":latest" not in base for base in bases)
    last = [step for step, _ in steps[max(n for n, one in enumerate(steps) if one[0] == "FROM") :]]
    assert {"USER", "HEALTHCHECK", "ENTRYPOINT", "CMD", "WORKDIR"} <= set(last)
    assert dict(steps)["USER"].split(":")[0].isdigit()
    assert dict(steps)["USER"] != "0:0"
    assert {step for step, _ in steps} <= {
        *("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL"),
        *("HEALTHCHECK", "ENTRYPOINT", "CMD"),
    }
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = next(rest for step, rest in steps if step == "COPY").split()[:-1]
    assert all(f"!{source}" in ignored and (ROOT / source).exists() for source in sources)


def test_every_file_that_compose_mounts_exists() -> None:
    services = compose()["services"]
    assert {"gateway", "valkey", "prometheus", "grafana"} == set(services)
    mounts = [mount.split(":") for one in services.values() for mount in one.get("volumes", [])]
    for source, *_ in mounts:
        assert source in compose()["volumes"] or (DEPLOY / source).exists(), source
    assert (DEPLOY / "compose" / "prometheus.yml").exists()
    for one in services.values():
        assert set(one["networks"]) <= set(compose()["networks"])
        assert "image" in one or (DEPLOY / one["build"]["context"] / one["build"]["dockerfile"]).exists()
        assert not any(port.startswith("9090") for port in one.get("ports", []))


def test_the_containers_root_is_read_only_and_without_rights() -> None:
    gateway = compose()["services"]["gateway"]
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    inside = pod["containers"][0]["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert inside == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_cluster_has_every_part_and_names_agree() -> None:
    assert {one["kind"] for one in manifests()} == {
        *("Namespace", "ServiceAccount", "Deployment", "Service", "HorizontalPodAutoscaler"),
        *("PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"),
    }
    for one in manifests():
        assert {"apiVersion", "kind", "metadata", "spec"} - set(one) <= {"spec"}
        assert one["metadata"]["name"].startswith("cbk-gateway")
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    for service in (one for one in manifests() if one["kind"] == "Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert {mount["name"] for mount in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    assert manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "cbk-gateway"


def test_orchestrators_wait_longer_than_a_drain_can_take() -> None:
    drain_s = yaml.safe_load((KUBERNETES / "gateway.yaml").read_text())["listen"]["drain_s"]
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    grace = compose()["services"]["gateway"]["stop_grace_period"]
    stop = unit("cbk-gateway.service")["Service"]["TimeoutStopSec"][0]
    for seconds in (pod["terminationGracePeriodSeconds"], int(grace[:-1]), int(stop[:-1])):
        assert seconds >= 2 * drain_s + 10


def test_the_clusters_settings_name_only_secrets_that_are_mounted() -> None:
    text = (KUBERNETES / "gateway.yaml").read_text() + (KUBERNETES / "tenants.yaml").read_text()
    mounts = manifest("Deployment")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    paths = [mount["mountPath"] for mount in mounts]
    references = re.findall(r'"file:([^"]+)"', text)
    assert references
    assert all(any(one.startswith(path + "/") for path in paths) for one in references)


@pytest.mark.parametrize("name", ["Caddyfile", "envoy.yaml"])
def test_the_fronts_reach_the_data_port_alone(name: str) -> None:
    text = (DEPLOY / "front" / name).read_text()
    assert "9090" not in text
    assert "8080" in text
    assert text.count("{") == text.count("}")


def test_envoy_keeps_streams_and_closes_idle_connections_before_the_gateway_does() -> None:
    document = yaml.safe_load((DEPLOY / "front" / "envoy.yaml").read_text())
    options = document["static_resources"]["clusters"][0]["typed_extension_protocol_options"]
    idle = options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["common_http_protocol_options"]
    assert int(idle["idle_timeout"].rstrip("s")) < 75
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["stream_idle_timeout"] == "0s"


def test_the_clusters_settings_are_valid(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in ("admin-token", "signing-key", "acme-key"):
        (secrets / name).write_text("x" * 48)
    for name in ("gateway.yaml", "tenants.yaml"):
        text = (KUBERNETES / name).read_text().replace("/run/secrets/cbk-gateway", str(secrets))
        (tmp_path / name).write_text(text)
    assert validate(tmp_path / "gateway.yaml").problems == ()

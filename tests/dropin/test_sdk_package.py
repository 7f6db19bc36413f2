"""The official SDK itself: which release is driven here, and where its packages may come from."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dropin import scripts

pytestmark = pytest.mark.dropin


def test_the_lock_file_names_digests_and_no_registry() -> None:
    text = (scripts.FOLDER / "package-lock.json").read_text()
    assert "://" not in text
    packages = {name: one for name, one in json.loads(text)["packages"].items() if name}
    assert packages["node_modules/@chatbotkit/sdk"]["version"] == "1.36.0"
    for name, one in packages.items():
        assert one["integrity"].startswith("sha512-"), name
        assert "resolved" not in one, name


@pytest.mark.node
@pytest.mark.usefixtures("sdk")
def test_the_installed_release_is_the_pinned_one() -> None:
    pinned = json.loads((scripts.FOLDER / "package.json").read_text())["dependencies"]
    for name, version in pinned.items():
        installed = scripts.FOLDER / "node_modules" / name / "package.json"
        assert json.loads(installed.read_text())["version"] == version


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_without_node_nothing_passes_silently(ci: str, outcome: str) -> None:
    one = f"{__file__}::test_the_installed_release_is_the_pinned_one"
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", one],
        cwd=scripts.FOLDER,
        env={"PATH": os.devnull, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in ran.stdout.splitlines()[-1], ran.stdout
    assert "`node` is not on PATH: the official SDK is NOT tested here." in ran.stdout

"""A disk that can be spoiled: the preloaded library, compiled once per test process."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library. Without a compiler its suites fail: they must never be left out unseen."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler is not None, "the power-cut and disk suites need a C compiler"
    target = tmp_path_factory.mktemp("preload") / "disk.so"
    source = Path(__file__).with_name("disk.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(target), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return target

"""The floors of the house: who may import whom, and how long a file may be."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "cbk_gateway"
DOMAINS = {"identity", "tenancy", "limits", "cache", "audit", "upstream"}
LOW = {"__version__", "breaks", "errors", "secret", "parties", "operation"}
MIDDLE = {"settings", "store", "telemetry"}
LONGEST = 400


def imports(file: Path) -> Iterator[str]:
    """The packages of ours that a file imports, by their first name."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            inner = node.module == "cbk_gateway"
            names = [f"cbk_gateway.{alias.name}" for alias in node.names] if inner else [node.module]
        for name in names:
            if name.startswith("cbk_gateway."):
                yield name.split(".")[1]


def files_of(package: str) -> list[Path]:
    folder = PACKAGE / package
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


@pytest.mark.parametrize("package", sorted(DOMAINS))
def test_domain_packages_never_import_one_another(package: str) -> None:
    allowed = {package} | LOW | MIDDLE
    for file in files_of(package):
        assert set(imports(file)) <= allowed, file


@pytest.mark.parametrize("package", sorted(MIDDLE))
def test_the_middle_floor_stands_on_the_low_one(package: str) -> None:
    for file in files_of(package):
        assert set(imports(file)) <= {package, "settings"} | LOW, file


@pytest.mark.parametrize("package", sorted(LOW - {"__version__"}))
def test_the_low_floor_stands_on_itself(package: str) -> None:
    for file in files_of(package):
        assert set(imports(file)) <= LOW, file


def test_the_sandbox_judges_the_gateway_from_outside() -> None:
    for file in files_of("sandbox"):
        assert set(imports(file)) <= {"sandbox", "operation", "errors"}, file


def test_nothing_but_the_operation_package_takes_paths_apart() -> None:
    """Whoever looks at a path to decide something would have to be kept equal to the grammar for ever."""
    suspicious = re.compile(r"""["']/?api/v1/""")
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE).parts[0]
        if place in {"operation", "sandbox", "demo", "cli", "settings"}:
            continue
        code = "\n".join(line.split("#")[0] for line in file.read_text().splitlines())
        found = [one for one in suspicious.findall(re.sub(r'""".*?"""', "", code, flags=re.DOTALL)) if one]
        assert not found, file


def test_files_stay_short() -> None:
    long = {
        str(file.relative_to(ROOT)): count
        for folder in ("src", "tests")
        for file in (ROOT / folder).rglob("*.py")
        if "node_modules" not in file.parts and (count := len(file.read_text().splitlines())) > LONGEST
    }
    assert not long

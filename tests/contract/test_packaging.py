"""What is published works where nothing else is: built, installed into a clean environment, and run.

The image's steps are run as the Dockerfile says them, from the source distribution, in folders of the test's
own: that is the clean environment for the wheel, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy_tools import DEPLOY, ROOT
from fleet_stage import until
from harness import free_port

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]

PORTS = ("--port", "0", "--admin-port", "0", "--sandbox-port", "0")
NEEDED = ("cbk_gateway/py.typed", "cbk_gateway/limits/admit.lua", "cbk_gateway/demo/gateway.yaml")
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
"""The environment without what would let a clean one see more than it has."""
STEPS = [
    (step, rest)
    for step, _, rest in (
        line.partition(" ")
        for line in (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
        if line and not line.startswith("#")
    )
]


def ran(*command: str, cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """What a program printed; it must succeed."""
    done = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout


@dataclass(frozen=True, slots=True)
class Published:
    """What `make dist` makes, and an environment that knows nothing of this repository.

    Attributes:
        sdist: The source distribution, unpacked.
        wheel: The wheel of this tree.
        home: What the image calls /opt/cbk-gateway.
    """

    sdist: Path
    wheel: Path
    home: Path

    def environ(self) -> dict[str, str]:
        """As the image's, without anything of the environment the tests run in."""
        return {"PATH": f"{self.home / 'bin'}{os.pathsep}/usr/bin:/bin", "HOME": str(self.home.parent)}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("published")
    # The backend comes from the index into an environment of its own, as it does for everybody.
    ran(sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(ROOT))
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    home = folder / "image" / "opt"
    build_image(unpacked, home, folder / "image" / "build")
    return Published(unpacked, wheel, home)


def build_image(tree: Path, home: Path, workdir: Path) -> None:
    """Run the steps of the first stage in order, in folders of our own, with the tests' Python."""
    workdir.mkdir(parents=True)
    second = [place for place, (step, _) in enumerate(STEPS) if step == "FROM"][1]
    for step, rest in STEPS[:second]:
        match step:
            case "COPY":
                *sources, target = rest.split()
                for source in sources:
                    if (tree / source).is_dir():
                        # The folder's content, as the builder does.
                        shutil.copytree(tree / source, workdir / target)
                    else:
                        shutil.copy(tree / source, workdir / target)
            case "RUN":
                command = rest.replace("/opt/cbk-gateway", str(home)).replace("python -m", "exec-python -m")
                # The index is asked no oftener than the machine's cache wants it.
                command = command.replace(" --no-cache-dir", "").replace("exec-python", sys.executable)
                ran("sh", "-euc", command, cwd=workdir, environ=OUTSIDE)
            case _:
                assert step in {"FROM", "WORKDIR"}, step


def test_the_wheel_holds_what_runs_and_nothing_else(published: Published) -> None:
    names = set(zipfile.ZipFile(published.wheel).namelist())
    assert set(NEEDED) <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cbk_gateway"}
    files = {f"cbk_gateway/{one.relative_to(ROOT / 'src' / 'cbk_gateway')}" for one in sources()}
    assert files <= names


def sources() -> list[Path]:
    found = (ROOT / "src" / "cbk_gateway").rglob("*")
    return [one for one in found if one.is_file() and one.suffix in {".py", ".lua", ".yaml"}]


def test_the_source_distribution_builds_the_same_wheel(published: Published, tmp_path: Path) -> None:
    ran(sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(published.sdist))
    (again,) = tmp_path.glob("*.whl")
    assert again.name == published.wheel.name
    first, second = zipfile.ZipFile(published.wheel), zipfile.ZipFile(again)
    assert first.namelist() == second.namelist()
    assert [one.CRC for one in first.infolist()] == [one.CRC for one in second.infolist()]


def test_the_source_distribution_can_be_worked_on(published: Published) -> None:
    for name in ("Makefile", "deploy/helm/cbk-gateway/values.yaml", "grafana/build.py", "tests/harness.py"):
        assert (published.sdist / name).is_file(), name
    assert not list(published.sdist.rglob("node_modules"))
    assert not list(published.sdist.rglob("secrets.env"))


def test_the_demo_runs_in_a_clean_environment(published: Published, tmp_path: Path) -> None:
    out = ran("cbk-gateway", "demo", "--check", *PORTS, cwd=tmp_path, environ=published.environ())
    assert "all held" in out


def test_the_wheel_installs_and_its_demo_runs(published: Published, tmp_path: Path) -> None:
    environ = published.environ()
    ran("pip", "install", "--quiet", "--force-reinstall", "--no-deps", str(published.wheel), environ=environ)
    ran("pip", "check", environ=environ)
    assert "all held" in ran("cbk-gateway", "demo", "--check", *PORTS, cwd=tmp_path, environ=environ)
    where = ran("python", "-c", "import cbk_gateway; print(cbk_gateway.__file__)", environ=environ)
    assert Path(where.strip()).is_relative_to(published.home)
    # Nothing that only tests need is there.
    assert "pytest" not in ran("pip", "list", environ=environ)


def settings(folder: Path) -> dict[str, str]:
    """A settings file as an operator mounts it, and the environment it asks for."""
    for one in (DEPLOY / "compose" / "settings").iterdir():
        shutil.copy(one, folder / one.name)
    return {
        "CBK_GATEWAY_SIGNING_KEY": "s" * 48,
        "CBK_GATEWAY_ADMIN_TOKEN_ON_CALL": "t" * 48,
        "ACME_KEY": "sk-" + "a" * 48,
        "CBK_GATEWAY_UPSTREAM__URL": "http://127.0.0.1:9",
        "CBK_GATEWAY_LISTEN__PORT": str(free_port()),
        "CBK_GATEWAY_ADMIN__PORT": str(free_port()),
        "CBK_GATEWAY_AUDIT__DIRECTORY": str(folder / "audit"),
        "TMPDIR": str(folder),
    }


def command_of_the_image(folder: Path) -> list[str]:
    steps = dict(STEPS)
    words = json.loads(steps["ENTRYPOINT"]) + json.loads(steps["CMD"])
    return [word.replace("/etc/cbk-gateway", str(folder)) for word in words]


def command_of_the_unit(folder: Path) -> list[str]:
    (line,) = re.findall(
        r"^ExecStart=(.+)$", (DEPLOY / "systemd" / "cbk-gateway.service").read_text(), re.MULTILINE
    )
    words = line.replace("/opt/cbk-gateway/bin/", "").replace("/etc/cbk-gateway", str(folder))
    return shlex.split(words)


@pytest.mark.parametrize("form", [command_of_the_image, command_of_the_unit])
async def test_the_start_commands_start_what_the_health_check_finds_alive(
    published: Published, form: object, tmp_path: Path
) -> None:
    assert callable(form)
    variables = settings(tmp_path)
    environ = published.environ() | variables
    process = await asyncio.create_subprocess_exec(*form(tmp_path), env=environ, cwd=tmp_path)
    # A readiness that asks for the upstream would ask the internet: alive is what can be had here.
    check = dict(STEPS)["HEALTHCHECK"].partition("CMD ")[2]
    port = variables["CBK_GATEWAY_ADMIN__PORT"]
    words = json.loads(check.replace("9090", port).replace("/readyz", "/healthz"))

    async def is_healthy() -> bool:
        assert process.returncode is None
        probe = await asyncio.create_subprocess_exec(*words, env=environ, stderr=asyncio.subprocess.DEVNULL)
        return await probe.wait() == 0

    try:
        await until(is_healthy)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_bash_completes_commands_and_options(published: Published) -> None:
    script = """
    source <(cbk-gateway completion bash)
    try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _cbk_gateway; echo "${COMPREPLY[@]}"; }
    complete -p cbk-gateway
    try cbk-gateway ser
    try cbk-gateway serve --wor
    try cbk-gateway token mi
    """
    out = ran("bash", "-c", script, environ=published.environ()).splitlines()
    assert "_cbk_gateway" in out[0]
    assert [line.strip() for line in out[1:]] == ["serve", "--workers", "mint"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script(published: Published, shell: str) -> None:
    script = ran("cbk-gateway", "completion", shell, environ=published.environ())
    assert "cbk-gateway" in script
    assert all(word in script for word in ("serve", "workers", "audit"))

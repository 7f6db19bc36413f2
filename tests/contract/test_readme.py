"""Every command of the README is run as it stands, in order, by a shell, against a running demo."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from cbk_gateway.documentation import renewed
from dropin import scripts
from harness import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)([^\n]*)\n(.*?)```", README, re.DOTALL)
SHELL = [text for language, note, text in BLOCKS if language == "sh" and not note.strip()]
DEMO, TEST, *REST = SHELL
(SERVE,) = [text for language, note, text in BLOCKS if (language, note.strip()) == ("sh", "serve")]
(NODE,) = [text for language, _, text in BLOCKS if language == "js"]

pytestmark = pytest.mark.xdist_group("readme")


def environment(**more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "COLUMNS": "200", **more}


async def bash(script: str, cwd: Path, **variables: str) -> str:
    """Run a script and return what it printed; it fails with the line that failed."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euxo",
        "pipefail",
        "-c",
        script,
        cwd=cwd,
        env=environment(**variables),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()[-2000:]
    return out.decode()


@asynccontextmanager
async def demo(folder: Path, *command: str) -> AsyncIterator[dict[str, str]]:
    """A running demo's variables."""
    file = folder / "demo.env"
    process = await asyncio.create_subprocess_exec(
        *command, "--env-file", str(file), cwd=folder, env=environment(), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            while not file.exists():
                assert process.returncode is None
                await asyncio.sleep(0.05)
        pairs = [line.removeprefix("export ").partition("=") for line in file.read_text().splitlines()]
        yield {name: value.strip("'") for name, _, value in pairs}
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.wait()


async def answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def test_the_readme_has_its_parts_in_their_order() -> None:
    heads = re.findall(r"^## (.+)$", README, re.MULTILINE)
    assert heads[:4] == ["Two commands", "Point an SDK at it", "Configure tenants", "Operate it"]
    assert (DEMO.strip(), TEST.strip()) == ("make demo", "make test")


def test_the_generated_parts_are_up_to_date() -> None:
    assert renewed(README) == README


async def test_the_first_command_runs_until_ctrl_c() -> None:
    """`make demo` as a newcomer types it, on its default ports."""
    process = await asyncio.create_subprocess_exec(
        *DEMO.split(), cwd=ROOT, env=environment(), stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    seen = b""
    try:
        async with asyncio.timeout(100):
            while b"Ctrl-C" not in seen:
                line = await process.stdout.readline()
                assert line, seen.decode()
                seen += line
        assert b"http://127.0.0.1:8080" in seen
        assert await answers("http://127.0.0.1:9090/readyz")
    finally:
        os.killpg(process.pid, signal.SIGINT)
        await process.communicate()
    assert not await answers("http://127.0.0.1:9090/healthz")


async def test_the_second_command_runs_the_tests() -> None:
    assert "pytest" in await bash("make --dry-run test", ROOT)


async def test_every_other_command_works_as_it_stands(tmp_path: Path) -> None:
    ports = ("--port", "0", "--admin-port", "0", "--sandbox-port", "0")
    async with demo(tmp_path, sys.executable, "-m", "cbk_gateway", "demo", *ports) as variables:
        out = await bash("\n".join(REST), tmp_path, **variables)
    assert out.count('"items"') >= 1
    assert "is valid" in out
    assert '"operation": "bot.update"' in out
    assert "The journal is whole" in out
    assert '"class_name":"API Activity"' in out
    assert not re.findall(r'"code":"[A-Z_]+"', out)


async def test_serving_works_as_it_stands(tmp_path: Path) -> None:
    settings = next(text for text in REST if "my-gateway/gateway.yaml" in text)
    data, admin = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euc",
        f"{settings}\nexec {SERVE}",
        cwd=tmp_path,
        env=environment(CBK_GATEWAY_LISTEN__PORT=str(data), CBK_GATEWAY_ADMIN__PORT=str(admin)),
    )
    try:
        async with asyncio.timeout(30):
            while not await answers(f"http://127.0.0.1:{admin}/healthz"):
                assert process.returncode is None
                await asyncio.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


@pytest.mark.node
async def test_the_sdks_snippet_works_as_it_stands(tmp_path: Path) -> None:
    missing = scripts.missing_program()
    if missing is not None:
        assert "CI" not in os.environ, missing
        pytest.skip(missing)
    scripts.install()
    modules = Path(scripts.__file__).parent / "node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "snippet.mjs").write_text(NODE)
    ports = ("--port", "0", "--admin-port", "0", "--sandbox-port", "0")
    async with demo(tmp_path, sys.executable, "-m", "cbk_gateway", "demo", *ports) as variables:
        out = await bash("node snippet.mjs", tmp_path, **variables)
    assert "Ada" in out

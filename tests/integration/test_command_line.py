"""The command as a user runs it: a real process, its exit code, and what it says where."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
import pytest

from harness import free_port

COMMAND = (sys.executable, "-m", "cbk_gateway")
GATEWAY = """\
identity:
  mint:
    keys: [{kid: k1, alg: HS256, key: env:SIGNING}]
tenants_file: tenants.yaml
"""
TENANTS = """\
tenants:
  - id: acme
    account: acme
    key: env:ACME_KEY
    scopes: ["bot:*", "*:read"]
    limits: {rate: {per_second: 10, burst: 20}}
"""
ENVIRONMENT = {"SIGNING": "s" * 48, "ACME_KEY": "sk-" + "a" * 64}


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


async def run(*arguments: str, cwd: Path, **variables: str) -> Ran:
    environment = {**os.environ, **ENVIRONMENT, **variables, "COLUMNS": "200"}
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=cwd,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Ran(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gateway.yaml").write_text(GATEWAY)
    (tmp_path / "tenants.yaml").write_text(TENANTS)
    return tmp_path


async def test_good_settings_are_valid(folder: Path) -> None:
    ran = await run("config", "check", "--config", "gateway.yaml", cwd=folder)
    assert (ran.code, "is valid" in ran.out) == (0, True)


async def test_every_problem_is_told_at_once_with_file_key_and_remedy(folder: Path) -> None:
    (folder / "gateway.yaml").write_text(
        "listen: {prot: 8080, port: eighty}\nupstream: {url: 'https://x'}\n"
        "identity: {issuers: []}\nworkers: 0\n"
    )
    ran = await run("config", "check", "--config", "gateway.yaml", cwd=folder)
    assert ran.code == 3
    assert "listen.prot" in ran.err
    assert "`port`" in ran.err
    assert "listen.port" in ran.err
    assert "workers" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("settings", "tenants", "key"),
    [
        (GATEWAY.replace("env:SIGNING", "env:NOT_SET"), TENANTS, "identity.mint.keys[0].key"),
        (GATEWAY.replace("env:SIGNING", "hunter2hunter2"), TENANTS, "identity.mint.keys[0].key"),
        (GATEWAY, TENANTS.replace("env:ACME_KEY", "sk-in-clear"), "key"),
        (GATEWAY, TENANTS.replace("scopes", "scope"), "scope"),
        (GATEWAY, TENANTS + TENANTS.partition("\n")[2], "acme"),
        (GATEWAY, "tenants: 5", "tenants"),
        (GATEWAY, "{" * 50, "tenants.yaml"),
        ("a: [", TENANTS, "gateway.yaml"),
        (GATEWAY.replace("tenants.yaml", "nowhere.yaml"), TENANTS, "nowhere.yaml"),
    ],
)
async def test_unusable_settings_are_refused_without_showing_values(
    folder: Path, settings: str, tenants: str, key: str
) -> None:
    (folder / "gateway.yaml").write_text(settings)
    (folder / "tenants.yaml").write_text(tenants)
    ran = await run("config", "check", "--config", "gateway.yaml", cwd=folder)
    assert ran.code == 3
    assert key in ran.err
    assert "hunter2" not in ran.err + ran.out
    assert "sk-in-clear" not in ran.err + ran.out
    assert "Traceback" not in ran.err


async def test_risky_choices_are_warnings(folder: Path) -> None:
    (folder / "gateway.yaml").write_text("admin: {host: 0.0.0.0}\n" + GATEWAY)
    (folder / "tenants.yaml").write_text(TENANTS.replace('["bot:*", "*:read"]', '["*"]'))
    ran = await run("config", "check", "--config", "gateway.yaml", cwd=folder, SIGNING="short")
    assert ran.code == 0
    for risk in ("admin.host", "shorter than 32 bytes", "acme.scopes"):
        assert risk in ran.err


async def test_the_environment_overrides_the_file(folder: Path) -> None:
    ran = await run("config", "check", "-c", "gateway.yaml", cwd=folder, CBK_GATEWAY_LISTEN__PORT="no")
    assert ran.code == 3
    assert "listen.port" in ran.err


async def test_a_minted_token_can_be_inspected(folder: Path) -> None:
    config = ("--config", "gateway.yaml")
    minted = await run("token", "mint", "--tenant", "acme", "--scope", "bot:read", *config, cwd=folder)
    token = minted.out.strip()
    assert (minted.code, token.count(".")) == (0, 2)
    ran = await run("token", "inspect", token, *config, cwd=folder)
    assert ran.code == 0
    assert orjson.loads(ran.out)["claims"]["tenant"] == "acme"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("token", "mint", "--tenant", "nobody", "-c", "gateway.yaml"), 2, "nobody"),
        (("explain", "GET", "/api/v2/x"), 2, "404"),
        (("explain", "PUT", "/api/v1/bot/x/update"), 2, "405"),
        (("frobnicate",), 2, "--help"),
        (("serve", "--config", "nowhere.yaml"), 3, "nowhere.yaml"),
        (("token", "mint"), 2, "tenant"),
    ],
)
async def test_a_failed_command_says_so_in_one_sentence(
    folder: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    ran = await run(*arguments, cwd=folder)
    assert ran.code == code
    assert says in ran.err
    assert "Traceback" not in ran.err


async def test_explain_tells_what_a_write_is_and_changes(folder: Path) -> None:
    arguments = ("explain", "POST", "/api/v1/bot/b1/delete", "--tenant", "acme", "-c", "gateway.yaml")
    told = orjson.loads((await run(*arguments, cwd=folder)).out)
    assert told["operation"] == "bot.delete"
    assert {"bot", "conversation"} <= set(told["invalidates"])
    assert told["tenant"]["allowed"] is True
    assert told["tenant"]["limits"][0]["per_second"] == 10


@asynccontextmanager
async def demo(
    *arguments: str, cwd: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, str]]]:
    """A running demo and its variables."""
    file = cwd / "demo.env"
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("demo", "--port", "0", "--admin-port", "0", "--sandbox-port", "0", "--env-file", str(file)),
        *arguments,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(cwd)},
    )
    async with asyncio.timeout(30):
        while not file.exists():
            assert process.returncode is None
            await asyncio.sleep(0.02)
    lines = [line.removeprefix("export ").partition("=") for line in file.read_text().splitlines()]
    try:
        yield process, {name: value.strip("'") for name, _, value in lines}
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_demo_ends_on_ctrl_c_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with demo(cwd=tmp_path) as (process, variables):
        needed = {"CBK_GATEWAY_URL", "CBK_GATEWAY_ADMIN_URL", "CBK_SANDBOX_URL", "CBK_GATEWAY_AUDIT_DIR"}
        needed |= {"CBK_GATEWAY_TOKEN_ACME", "CBK_GATEWAY_TOKEN_GLOBEX", "CBK_GATEWAY_WORKER_PID"}
        assert needed <= set(variables)
        headers = {"Authorization": f"Bearer {variables['CBK_GATEWAY_TOKEN_ACME']}"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(variables["CBK_GATEWAY_URL"] + "/api/v1/bot/list", headers=headers) as answer,
        ):
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
        assert process.returncode == 0
        assert b"curl" in out
        assert b"@chatbotkit/sdk" in out
    assert not list(tmp_path.iterdir())
    async with aiohttp.ClientSession() as session:
        for name in ("CBK_GATEWAY_URL", "CBK_SANDBOX_URL"):
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(variables[name])


async def test_a_killed_demo_takes_its_sandbox_with_it(tmp_path: Path) -> None:
    async with demo(cwd=tmp_path) as (process, variables):
        process.kill()
        await process.wait()
        url = variables["CBK_SANDBOX_URL"]
        async with asyncio.timeout(10), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(url):
                        await asyncio.sleep(0.02)
                except aiohttp.ClientError:
                    break


async def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    async with server:
        taken = str(server.sockets[0].getsockname()[1])
        ran = await run("demo", "--port", taken, "--admin-port", "0", "--sandbox-port", "0", cwd=tmp_path)
        assert ran.code == 4
        assert taken in ran.err
        assert "Traceback" not in ran.err
        other = str(free_port())
        ran = await run("demo", "--port", other, "--admin-port", "0", "--sandbox-port", taken, cwd=tmp_path)
        assert "--sandbox-port" in ran.err


async def test_the_demos_tour_holds(tmp_path: Path) -> None:
    ports = ("--port", "0", "--admin-port", "0", "--sandbox-port", "0")
    ran = await run("demo", "--check", *ports, cwd=tmp_path)
    assert (ran.code, ran.out.count("ok  ")) == (0, 8)
    assert "all held" in ran.out

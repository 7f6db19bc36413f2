"""The demo's processes and files: the sandbox in a process of its own, the gateway in this one.

Secrets are made anew at every start. Everything lives in one temporary folder; nothing is left behind,
not even when this process is killed: the store and the sandbox each end with it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
import shlex
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cbk_gateway.app import Gateway
from cbk_gateway.parties import Rate, Tenant, TenantLimits
from cbk_gateway.server import bound_socket
from cbk_gateway.settings.load import Loaded, load, load_tenants_of

HERE = Path(__file__).parent
TOKEN_TTL_S = 24 * 3600
UNLIMITED = Rate("tenant", 1_000_000.0, 1_000_000.0)
SCOPES: Mapping[str, tuple[str, ...]] = {"acme": ("*",), "globex": ("*:read", "conversation:complete")}


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the demo listens; 0 takes free ports."""

    data: int = 8080
    admin: int = 9090
    sandbox: int = 8081


@dataclass(frozen=True, slots=True)
class Stage:
    """A running demo.

    Attributes:
        gateway: The gateway.
        sandbox_url: Where the stand-in API answers, and its control plane.
        tokens: A token per tenant.
        admin_token: A token of the operators' port.
    """

    gateway: Gateway
    sandbox_url: str
    tokens: Mapping[str, str]
    admin_token: str

    @property
    def audit_directory(self) -> Path:
        """The journal's folder."""
        return self.gateway.loaded.path(self.gateway.loaded.settings.audit.directory)

    def environment(self) -> dict[str, str]:
        """What scripts need, as shell variables."""
        variables = {
            "CBK_GATEWAY_URL": self.gateway.url,
            "CBK_GATEWAY_ADMIN_URL": self.gateway.admin_url,
            "CBK_GATEWAY_ADMIN_TOKEN": self.admin_token,
            "CBK_SANDBOX_URL": self.sandbox_url,
            "CBK_GATEWAY_AUDIT_DIR": str(self.audit_directory),
            "CBK_GATEWAY_WORKER_PID": str(os.getpid()),
        }
        return variables | {f"CBK_GATEWAY_TOKEN_{name.upper()}": token for name, token in self.tokens.items()}


@asynccontextmanager
async def set_up(ports: Ports, *, unlimited: bool = False) -> AsyncIterator[Stage]:
    """Start the demo, and take it down whatever happens.

    Raises:
        PortTaken: A port is taken; the message names the option to change.
        OSError: The sandbox did not come up.
    """
    folder = Path(tempfile.mkdtemp(prefix="cbk-gateway-demo-"))
    try:
        keys = {name: "sk-" + secrets.token_hex(32) for name in SCOPES}
        async with _sandbox(ports.sandbox, keys) as sandbox_url:
            loaded = _settings(folder, ports, keys, sandbox_url)
            tenants = load_tenants_of(loaded)
            if unlimited:
                tenants = tuple(_without_limits(tenant) for tenant in tenants)
            async with Gateway(loaded, tenants=tenants) as gateway:
                yield Stage(gateway, sandbox_url, _tokens(gateway), loaded.environ["DEMO_ADMIN_TOKEN"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_environment(stage: Stage, file: Path) -> None:
    """Write the shell variables, whole or not at all: a script that waits for the file finds all of them.

    Plain `NAME=value` lines, so that other readers of such files take them too; `set -a; . FILE` exports.
    """
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in stage.environment().items()]
    unfinished = file.with_name(file.name + ".part")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write("".join(lines))
    unfinished.replace(file)


def remove_environment(file: Path) -> None:
    """Take the variables away with the demo they describe."""
    file.unlink(missing_ok=True)


def _settings(folder: Path, ports: Ports, keys: Mapping[str, str], sandbox_url: str) -> Loaded:
    environ = {
        "DEMO_SIGNING_KEY": secrets.token_urlsafe(48),
        "DEMO_ADMIN_TOKEN": secrets.token_urlsafe(24),
        **{f"DEMO_KEY_{name.upper()}": key for name, key in keys.items()},
    }
    for name in ("gateway.yaml", "tenants.yaml"):
        shutil.copy(HERE / name, folder / name)
    loaded = load(folder / "gateway.yaml", environ=environ)
    settings = loaded.settings
    changed = settings.model_copy(
        update={
            "listen": settings.listen.model_copy(update={"port": ports.data}),
            "admin": settings.admin.model_copy(update={"port": ports.admin}),
            "upstream": settings.upstream.model_copy(update={"url": sandbox_url}),
        }
    )
    return dataclasses.replace(loaded, settings=changed)


def _tokens(gateway: Gateway) -> dict[str, str]:
    if gateway.minter is None:
        message = "the demo's settings have lost their `identity.mint`"
        raise RuntimeError(message)
    return {name: gateway.minter.mint(name, "demo", scopes, TOKEN_TTL_S) for name, scopes in SCOPES.items()}


def _without_limits(tenant: Tenant) -> Tenant:
    return dataclasses.replace(tenant, limits=TenantLimits(rates=(UNLIMITED,)))


@asynccontextmanager
async def _sandbox(port: int, keys: Mapping[str, str]) -> AsyncIterator[str]:
    """The stand-in API in a process that ends with this one. Its keys travel by the environment."""
    # Bound and released, so that a taken port is reported like the gateway's own.
    bound_socket("127.0.0.1", port, "--sandbox-port").close()
    command = [sys.executable, "-m", "cbk_gateway", "sandbox", "--with-parent", "--port", str(port)]
    environment = dict(os.environ)
    for name, key in keys.items():
        command += ["--account", f"={name}"]
        environment[f"CBK_SANDBOX_KEY_{name.upper()}"] = key
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        # Ctrl-C reaches the gateway alone, which ends the sandbox when it has drained.
        start_new_session=True,
    )
    try:
        if process.stdout is None or process.stdin is None:
            raise OSError("the sandbox cannot be talked to")
        line = (await process.stdout.readline()).decode().strip()
        if not line.startswith("sandbox ready at "):
            raise OSError("the sandbox did not start; run `cbk-gateway sandbox` to see why")
        yield line.removeprefix("sandbox ready at ")
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

"""The processes that are measured, started side by side and ended with their block."""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
_TESTS = str(Path(__file__).parents[1])
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join((_TESTS, os.environ.get("PYTHONPATH", _TESTS)))}
_LUA_MODULE = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
_START_S = 15.0


@dataclass(frozen=True, slots=True)
class Contestant:
    """A running process: where it answers, and whose CPU time counts with that of its children.

    Attributes:
        url: Where it serves.
        pid: The process.
        tokens: By tenant, of a gateway.
        admin: Where a gateway's operators ask.
    """

    url: str
    pid: int
    tokens: dict[str, str] = field(default_factory=dict)
    admin: str = ""

    def bearer(self, tenant: str) -> str:
        """The header line of a tenant's requests."""
        return f"Authorization: Bearer {self.tokens[tenant]}"


def missing() -> list[str]:
    """What this machine lacks for a whole measurement, a line each, with where to get it."""
    lines = []
    if not shutil.which("wrk"):
        lines.append("wrk is missing: no load in a closed loop (Debian: apt install wrk)")
    if not has_nginx():
        packages = "nginx libnginx-mod-http-lua lua-resty-core lua-resty-lrucache lua-cjson"
        lines.append(f"nginx with Lua is missing: not compared with (Debian: apt install {packages})")
    if not shutil.which("npm"):
        lines.append("npm is missing: not compared with fastify (Debian: apt install npm)")
    if not has_exporter():
        lines.append("the exporter of traces is missing: tracing is not measured (pip install -e '.[otel]')")
    return lines


def has_nginx() -> bool:
    """Whether nginx and its Lua module are here."""
    return shutil.which("nginx") is not None and _LUA_MODULE.exists()


def has_exporter() -> bool:
    """Whether spans can be exported."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def upstream(port: int) -> Iterator[Contestant]:
    """The upstream of all."""
    with _process([sys.executable, str(PEERS / "upstream.py"), str(port)]) as running:
        _line(running)
        yield Contestant(f"http://127.0.0.1:{port}", running.pid)


@contextmanager
def bare(port: int) -> Iterator[Contestant]:
    """A server of aiohttp that answers the upstream's list by itself."""
    with _process([sys.executable, "-m", "benchmarks.peers.bare", str(port)]) as running:
        _line(running)
        yield Contestant(f"http://127.0.0.1:{port}", running.pid)


@contextmanager
def streaming(port: int, every_s: float, pieces: int) -> Iterator[Contestant]:
    """An upstream that streams."""
    script = str(PEERS / "streaming.py")
    with _process([sys.executable, script, str(port), str(every_s), str(pieces)]) as running:
        _line(running)
        yield Contestant(f"http://127.0.0.1:{port}", running.pid)


@contextmanager
def gateway(upstream_port: int, *changes: str) -> Iterator[Contestant]:
    """A gateway with settings changed as `gateway_process.py` says."""
    script = str(Path(__file__).parent / "gateway_process.py")
    command = [sys.executable, script, str(upstream_port), *changes]
    with _process(command) as running:
        yield Contestant(**json.loads(_line(running)))


@contextmanager
def nginx(upstream_port: int, folder: Path, workers: int = 1) -> Iterator[tuple[Contestant, Contestant]]:
    """nginx with Lua: where it caches, and where it forwards."""
    cached, forwarded = free_ports(2)
    folder.mkdir(exist_ok=True)
    text = (PEERS / "nginx.conf").read_text()
    user = getpass.getuser()
    values = {
        "USER": user,
        "FOLDER": folder,
        "UPSTREAM": upstream_port,
        "WORKERS": workers,
        "CACHED": cached,
        "FORWARDED": forwarded,
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    (folder / "nginx.conf").write_text(text)
    shutil.copy(PEERS / "token.lua", folder)
    with _process(["nginx", "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]) as running:
        _wait_for(cached)
        yield (
            Contestant(f"http://127.0.0.1:{cached}", running.pid),
            Contestant(f"http://127.0.0.1:{forwarded}", running.pid),
        )


@contextmanager
def fastify(upstream_port: int, folder: Path) -> Iterator[Contestant]:
    """Node with fastify. `folder` keeps its packages from one run to the next."""
    if not (folder / "node_modules").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(PEERS / "package.json", folder)
        install = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(install, cwd=folder, check=True)
    shutil.copy(PEERS / "fastify.mjs", folder)
    (port,) = free_ports(1)
    with _process(["node", str(folder / "fastify.mjs"), str(port), str(upstream_port)]) as running:
        _line(running)
        yield Contestant(f"http://127.0.0.1:{port}", running.pid)


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        if running.stdout is not None:
            running.stdout.close()


def _line(running: subprocess.Popen[str]) -> str:
    line = running.stdout.readline() if running.stdout is not None else ""
    if not line:
        message = f"{running.args!r} did not start"
        raise RuntimeError(message)
    return line


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    message = f"nothing listens on port {port}"
    raise RuntimeError(message)

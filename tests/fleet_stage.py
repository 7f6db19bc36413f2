"""`cbk-gateway serve` as real processes in front of a sandbox in the test's own, for the suites of workers.

What a test knows of the gateway it learns as an operator would: from its log, its operators' port, and the
process table.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cbk_gateway.assembly import minter
from cbk_gateway.sandbox import Sandbox
from cbk_gateway.settings.load import load
from harness import ADMIN_TOKEN, KEYS, SIGNING_KEY, settings_document

OPERATOR = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
PATIENCE_S = 60.0
ENVIRONMENT = {
    "TEST_SIGNING": SIGNING_KEY,
    "TEST_ADMIN": ADMIN_TOKEN,
    **{f"TEST_KEY_{name.upper()}": key for name, key in KEYS.items()},
}

_ACTIVATION = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "data", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Passes a socket on as systemd does: as descriptor 3, with the id of the process that becomes the program.

Its arguments are the descriptor and the program with its own."""


async def until(condition: Callable[[], Awaitable[Any]], patience_s: float = PATIENCE_S) -> Any:
    """Ask until the answer is true; the deadline is for a machine that is very busy."""
    async with asyncio.timeout(patience_s):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process lives; one that has ended and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


async def gone(*pids: int) -> None:
    """Wait until none of these processes lives."""

    async def all_gone() -> bool:
        return not any(is_alive(pid) for pid in pids)

    await until(all_gone)


@dataclass(slots=True)
class FleetStage:
    """A running `serve`."""

    process: asyncio.subprocess.Process
    folder: Path
    sandbox: Sandbox
    session: aiohttp.ClientSession
    events: list[dict[str, Any]] = field(default_factory=list)

    async def event(self, name: str, *, after: int = 0) -> dict[str, Any]:
        """The first log line of this name, from a place in the log on."""

        async def find() -> dict[str, Any] | None:
            found = next((one for one in self.events[after:] if one.get("event") == name), None)
            assert found or self.process.returncode is None, self.events
            return found

        found: dict[str, Any] = await until(find)
        return found

    @property
    def ready(self) -> dict[str, Any]:
        return next(one for one in self.events if one.get("event") == "fleet_ready")

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def admin_url(self) -> str:
        return str(self.ready["admin_url"])

    def bearer(self, name: str = "acme", ttl_s: int = 3600) -> dict[str, str]:
        made = minter(load(self.folder / "gateway.yaml", environ=ENVIRONMENT))
        assert made is not None
        return {"Authorization": f"Bearer {made.mint(name, 'tester', ('*',), ttl_s)}"}

    async def admin(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        async with self.session.request(method, self.admin_url + path, json=body, headers=OPERATOR) as answer:
            return answer.status, orjson.loads(await answer.read())

    async def workers(self) -> dict[str, int]:
        """Process ids of the workers that serve, by name."""
        _, document = await self.admin("GET", "/admin/workers")
        return {one["name"]: one["pid"] for one in document["items"] if one["state"] == "ready"}

    async def workers_other_than(self, old: Mapping[str, int], count: int) -> dict[str, int]:
        """The workers once `count` serve and none of these is among them."""

        async def look() -> dict[str, int] | None:
            now = await self.workers()
            is_new = not set(now.values()) & set(old.values())
            return now if len(now) == count and is_new else None

        found: dict[str, int] = await until(look)
        return found

    async def metric(self, name: str, **labels: str) -> float:
        """The sum over all series of a name with these labels."""
        async with self.session.get(self.admin_url + "/metrics") as answer:
            text = await answer.text()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def change(self, **sections: Mapping[str, object]) -> None:
        """Write other settings into the file, by one rename."""
        document = yaml.safe_load((self.folder / "gateway.yaml").read_text())
        for name, section in sections.items():
            document[name] = {**document.get(name, {}), **section}
        self.write("gateway.yaml", yaml.safe_dump(document))

    def write(self, name: str, text: str) -> None:
        part = self.folder / f"{name}.part"
        part.write_text(text)
        part.replace(self.folder / name)

    async def reload(self) -> str:
        """SIGHUP, and what came of it."""
        after = len(self.events)
        self.process.send_signal(signal.SIGHUP)

        async def find() -> str | None:
            for one in self.events[after:]:
                if one["event"] in {"reloaded", "reload_refused"}:
                    return str(one.get("result", "refused"))
            return None

        return str(await until(find))

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


def tenants_document(*names: str, **changes: Any) -> dict[str, Any]:
    """A tenants' file; everything is allowed, at rates no test reaches."""
    usual = {"scopes": ["*"], "limits": {"rate": {"per_second": 100_000, "burst": 100_000}}}
    own = [
        {"id": name, "account": f"{name}-account", "key": f"env:TEST_KEY_{name.upper()}"} for name in names
    ]
    return {"tenants": [one | usual | changes for one in own]}


@asynccontextmanager
async def serving(
    folder: Path,
    store_url: str = "embedded",
    *,
    workers: int = 2,
    environ: Mapping[str, str] | None = None,
    activated_by: int | None = None,
    **sections: Mapping[str, object],
) -> AsyncIterator[FleetStage]:
    """`serve` with several workers, ready. It is killed at the end if the test has not ended it.

    Args:
        environ: More variables of its environment.
        activated_by: Descriptor of a listening socket that it is passed as a service manager would.
    """
    accounts = {key: f"{name}-account" for name, key in KEYS.items()}
    async with Sandbox(accounts, {}) as sandbox, aiohttp.ClientSession() as session:
        logging = {"logging": {"access": False, "form": "json"}}
        document = settings_document(sandbox.url, store_url, **{**logging, **sections})
        (folder / "gateway.yaml").write_text(yaml.safe_dump(document))
        if not (folder / "tenants.yaml").exists():
            (folder / "tenants.yaml").write_text(orjson.dumps(tenants_document("acme", "globex")).decode())
        before = (sys.executable, "-c", _ACTIVATION, str(activated_by)) if activated_by is not None else ()
        process = await asyncio.create_subprocess_exec(
            *before,
            *(sys.executable, "-m", "cbk_gateway", "serve", "--config", "gateway.yaml"),
            *("--workers", str(workers)),
            cwd=folder,
            env=os.environ | ENVIRONMENT | {"TMPDIR": str(folder)} | dict(environ or {}),
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(activated_by,) if activated_by is not None else (),
        )
        stage = FleetStage(process, folder, sandbox, session)
        reading = asyncio.get_running_loop().create_task(_read(process, stage.events))
        try:
            await stage.event("fleet_ready")
            yield stage
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
            await reading
        # Only where the hot path verifies can there be any.
        assert not [one for one in stage.events if one.get("event") == "hot_path_differs"]


async def _read(process: asyncio.subprocess.Process, events: list[dict[str, Any]]) -> None:
    assert process.stderr is not None
    async for line in process.stderr:
        try:
            events.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            events.append({"event": "(text)", "text": line.decode(errors="replace")})

"""What the end-to-end suites ask of a stage: one call and its whole answer, an operator's, a command's."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml
from multidict import CIMultiDict, CIMultiDictProxy

from cbk_gateway.admin import AdminPort
from cbk_gateway.admin.openapi import description
from cbk_gateway.app import Gateway
from cbk_gateway.parties import Tenant
from cbk_gateway.sandbox import Sandbox
from cbk_gateway.sandbox.request_log import RequestRecord
from cbk_gateway.settings.load import load
from described import assert_described
from harness import (
    ADMIN_TOKEN,
    CHILDREN,
    KEYS,
    SIGNING_KEY,
    Stage,
    assert_alike,
    settings_document,
    usual_tenants,
)

TOKENS = {role: f"the-{role}s-token-for-tests" for role in ("viewer", "operator", "admin")}


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The error code, checked to stand in both places."""
        document = self.json
        assert document["error"] == {"message": document["message"], "code": document["code"]}
        return str(document["code"])

    @property
    def cache(self) -> str:
        """What the cache says of itself."""
        return self.headers.get("Cache-Status", "")

    @property
    def is_hit(self) -> bool:
        return "; hit" in self.cache


async def ask(
    method: str, url: str, headers: Mapping[str, str] | None = None, body: Any = None, data: Any = None
) -> Said:
    """One request on a connection of its own."""
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session,
        session.request(method, url, headers=headers, json=body, data=data) as answer,
    ):
        return Said(answer.status, CIMultiDictProxy(CIMultiDict(answer.headers)), await answer.read())


async def get(stage: Stage, path: str, who: str | dict[str, str] = "acme", **headers: str) -> Said:
    """A GET of the API; `who` is a tenant, or a bearer header; `_` in header names stands for a dash."""
    return await ask("GET", stage.url + path, _spelled(stage, who, headers))


async def post(
    stage: Stage, path: str, body: Any = None, who: str | dict[str, str] = "acme", **headers: str
) -> Said:
    """A POST of the API."""
    return await ask("POST", stage.url + path, _spelled(stage, who, headers), {} if body is None else body)


async def look(stage: Stage, path: str, token: str = ADMIN_TOKEN) -> Said:
    """What an operator sees; the answer is one that the port's description has."""
    return _described(stage, "GET", path, await ask("GET", stage.admin_url + path, bearer(token)))


async def change(stage: Stage, path: str, body: Any = None, token: str = ADMIN_TOKEN) -> Said:
    """What an operator does; the answer is one that the port's description has."""
    given = {} if body is None else body
    return _described(stage, "POST", path, await ask("POST", stage.admin_url + path, bearer(token), given))


def _described(stage: Stage, method: str, path: str, said: Said) -> Said:
    if path.startswith("/admin"):
        document = description(AdminPort(stage.gateway).routes())
        assert_described(document, method, path, said.status, said.json)
    return said


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _spelled(stage: Stage, who: str | dict[str, str], headers: Mapping[str, str]) -> dict[str, str]:
    who = stage.bearer(who) if isinstance(who, str) else who
    return {**who, **{name.replace("_", "-"): value for name, value in headers.items()}}


async def made(stage: Stage, kind: str, name: str, who: str | dict[str, str] = "acme") -> str:
    """The id of an object made through the gateway."""
    said = await post(stage, f"/api/v1/{kind}/create", {"name": name}, who)
    assert said.status == 200, said.body
    return str(said.json["id"])


async def names(stage: Stage, kind: str = "bot", who: str | dict[str, str] = "acme") -> set[str]:
    """The names in a list, as the gateway gives it."""
    said = await get(stage, f"/api/v1/{kind}/list", who)
    assert said.status == 200, said.body
    return {item["name"] for item in said.json["items"]}


def arrived(stage: Stage) -> list[RequestRecord]:
    """What reached the API for clients: the gateway's own probes are left out."""
    return [one for one in stage.sandbox.requests if one.method != "HEAD"]


def admin_records(stage: Stage) -> list[dict[str, Any]]:
    """What the journal holds of operators."""
    return [one for one in stage.journal() if one["kind"] == "admin"]


async def all_closed(stage: Stage) -> None:
    """Outcomes are written behind the answers: wait until no intent is open."""
    async with asyncio.timeout(10):
        while True:
            records = stage.journal()
            closed = {one["intent"] for one in records if one["kind"] == "outcome"}
            if closed >= {one["intent"] for one in records if one["kind"] == "intent"}:
                return
            await asyncio.sleep(0.02)


@contextmanager
def without_journal(stage: Stage) -> Iterator[None]:
    """The journal's directory is gone, and cannot be made again."""
    shutil.rmtree(stage.audit_directory)
    stage.audit_directory.write_text("in the way")
    try:
        yield
    finally:
        stage.audit_directory.unlink()


def roles(folder: Path) -> dict[str, Any]:
    """A settings section with one operator of each role, named after it."""
    for role, token in TOKENS.items():
        (folder / f"{role}.token").write_text(token)
        (folder / f"{role}.token").chmod(0o600)
    return {"tokens": [{"name": f"the-{one}", "role": one, "token": f"file:{one}.token"} for one in TOKENS]}


@asynccontextmanager
async def running_with(
    folder: Path,
    store_url: str,
    environ: Mapping[str, str],
    *,
    tenants: tuple[Tenant, ...] | None = None,
    keys: Mapping[str, str] | None = None,
    **sections: Mapping[str, object],
) -> AsyncIterator[Stage]:
    """A running stage with more in its environment, and more keys that the API accepts."""
    accounts = {key: name if name == "partner" else f"{name}-account" for name, key in KEYS.items()}
    async with Sandbox({**accounts, **(keys or {})}, CHILDREN) as sandbox:
        file = folder / "gateway.yaml"
        file.write_text(yaml.safe_dump(settings_document(sandbox.url, store_url, **sections)))
        loaded = load(file, environ={"TEST_SIGNING": SIGNING_KEY, "TEST_ADMIN": ADMIN_TOKEN, **environ})
        chosen = usual_tenants() if tenants is None else tenants
        async with Gateway(loaded, tenants=chosen) as gateway:
            yield Stage(gateway, sandbox, folder)
            assert_alike(gateway)


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)


async def command(stage: Stage, *arguments: str, stdin: str = "", **variables: str) -> Ran:
    """Run the command line against a stage, as an operator of it."""
    process = await started(stage, *arguments, **variables)
    out, err = await process.communicate(stdin.encode())
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def started(stage: Stage, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
    """A running command."""
    environment = {
        **os.environ,
        "COLUMNS": "200",
        "CBK_GATEWAY_ADMIN_URL": stage.admin_url,
        "CBK_GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN,
        "TEST_SIGNING": SIGNING_KEY,
        "TEST_ADMIN": ADMIN_TOKEN,
        **variables,
    }
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cbk_gateway", *arguments),
        cwd=stage.folder,
        env=environment,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )

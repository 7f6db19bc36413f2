"""A Vault on loopback that knows one secret and misbehaves on command, and who listens to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

from cbk_gateway.secret import Secret
from cbk_gateway.tenancy.observer import SilentObserver
from cbk_gateway.tenancy.options import VaultOptions

REFERENCE = "vault:secret/cbk/acme#key"
GOOD = {"data": {"data": {"key": " sk-from-vault\n"}, "metadata": {"version": 3}}}


class ScriptedVault:
    """A Vault that knows one secret, and misbehaves on command."""

    def __init__(self) -> None:
        self.tokens = {"root"}
        self.secret: object = GOOD
        self.status = 200
        self.lease_s = 3600
        self.paths: list[str] = []
        self.life: dict[str, object] = {"ttl": 3600, "renewable": True}
        self.renewals: list[str] = []
        self.renewal: tuple[int, dict[str, object]] = (200, {"lease_duration": 3600, "renewable": True})
        self.logins: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.elsewhere = ""
        self.url = ""

    async def read(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        self.paths.append(request.match_info["path"])
        if request.headers.get("X-Vault-Token") not in self.tokens:
            return web.json_response({"errors": ["permission denied"]}, status=403)
        if self.elsewhere:
            raise web.HTTPTemporaryRedirect(self.elsewhere)
        if request.match_info["path"] not in {"secret/data/cbk/acme", "team/kv/data/cbk/acme"}:
            return web.json_response({"errors": []}, status=404)
        return web.json_response(self.secret, status=self.status)

    async def lookup(self, request: web.Request) -> web.Response:
        if request.headers.get("X-Vault-Token") not in self.tokens:
            return web.json_response({"errors": ["permission denied"]}, status=403)
        return web.json_response({"data": self.life})

    async def renew(self, request: web.Request) -> web.Response:
        self.renewals.append(request.headers["X-Vault-Token"])
        status, grant = self.renewal
        return web.json_response({"auth": grant} if status == 200 else {"errors": ["no"]}, status=status)

    async def login(self, request: web.Request) -> web.Response:
        self.logins.append(await request.json())
        if self.logins[-1] != {"role": "gateway", "jwt": "pod-token"}:
            return web.json_response({"errors": ["permission denied"]}, status=403)
        token = f"login-{len(self.logins)}"
        self.tokens = {token}
        return web.json_response({"auth": {"client_token": token, "lease_duration": self.lease_s}})


class Heard(SilentObserver):
    """Writes down what happens to sources."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.ends: dict[tuple[str, str], float] = {}

    def source_failed(self, source: str) -> None:
        self.events.append(f"{source} failed")

    def source_recovered(self, source: str) -> None:
        self.events.append(f"{source} recovered")

    def key_expires(self, kind: str, name: str, at_epoch_s: float) -> None:
        self.ends[kind, name] = at_epoch_s


@asynccontextmanager
async def scripted_vault() -> AsyncIterator[ScriptedVault]:
    """One that answers, until the end of the block."""
    script = ScriptedVault()
    application = web.Application()
    application.router.add_post("/v1/auth/kubernetes/login", script.login)
    application.router.add_post("/v1/auth/team/pods/login", script.login)
    application.router.add_get("/v1/auth/token/lookup-self", script.lookup)
    application.router.add_post("/v1/auth/token/renew-self", script.renew)
    application.router.add_get("/v1/{path:.*}", script.read)
    async with TestServer(application) as server:
        script.url = str(server.make_url("/"))
        yield script


def by_token(script: ScriptedVault, token: str = "root") -> VaultOptions:
    return VaultOptions(address=script.url, token=Secret(token), namespace="team-a", timeout_s=5)


def by_pod(script: ScriptedVault, folder: Path) -> VaultOptions:
    (folder / "jwt").write_text("pod-token\n")
    return VaultOptions(address=script.url, kubernetes_role="gateway", service_account_file=folder / "jwt")

"""Keys from a scripted Vault over real HTTP: KV v2, token and Kubernetes login, and its bad days."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.settings import SettingsError
from cbk_gateway.tenancy.directory import Directory
from cbk_gateway.tenancy.key_source import KeySource
from cbk_gateway.tenancy.observer import SilentObserver
from cbk_gateway.tenancy.options import VaultOptions
from cbk_gateway.tenancy.registry import Registry
from cbk_gateway.tenancy.tenant_file import TenantFile
from cbk_gateway.tenancy.vault import Vault, VaultFault

REFERENCE = "vault:secret/cbk/acme#key"
GOOD = {"data": {"data": {"key": " sk-from-vault\n"}, "metadata": {"version": 3}}}


class ScriptedVault:
    """A Vault that knows one secret, and misbehaves on command."""

    def __init__(self) -> None:
        self.tokens = {"root"}
        self.secret: object = GOOD
        self.status = 200
        self.lease_s = 3600
        self.logins: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.elsewhere = ""
        self.url = ""

    async def read(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        if request.headers.get("X-Vault-Token") not in self.tokens:
            return web.json_response({"errors": ["permission denied"]}, status=403)
        if self.elsewhere:
            raise web.HTTPTemporaryRedirect(self.elsewhere)
        if request.match_info["path"] != "secret/data/cbk/acme":
            return web.json_response({"errors": []}, status=404)
        return web.json_response(self.secret, status=self.status)

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

    def source_failed(self, source: str) -> None:
        self.events.append(f"{source} failed")

    def source_recovered(self, source: str) -> None:
        self.events.append(f"{source} recovered")


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedVault]:
    script = ScriptedVault()
    application = web.Application()
    application.router.add_post("/v1/auth/kubernetes/login", script.login)
    application.router.add_get("/v1/{path:.*}", script.read)
    async with TestServer(application) as server:
        script.url = str(server.make_url("/"))
        yield script


def by_token(script: ScriptedVault, token: str = "root") -> VaultOptions:
    return VaultOptions(address=script.url, token=Secret(token), namespace="team-a", timeout_s=5)


def by_pod(script: ScriptedVault, folder: Path) -> VaultOptions:
    (folder / "jwt").write_text("pod-token\n")
    return VaultOptions(address=script.url, kubernetes_role="gateway", service_account_file=folder / "jwt")


async def test_a_secret_is_read_with_a_token(scripted: ScriptedVault) -> None:
    async with Vault(by_token(scripted)) as vault:
        assert (await vault.read(REFERENCE)).reveal() == "sk-from-vault"
    assert scripted.headers[0]["X-Vault-Namespace"] == "team-a"


async def test_a_token_file_is_read_at_login(scripted: ScriptedVault, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    options = VaultOptions(address=scripted.url, token_file=tmp_path / "token")
    async with Vault(options) as vault:
        with pytest.raises(VaultFault):
            await vault.read(REFERENCE)
        (tmp_path / "token").write_text("root")
        assert (await vault.read(REFERENCE)).reveal() == "sk-from-vault"


async def test_a_pod_logs_in_once_and_again_before_its_login_runs_out(
    scripted: ScriptedVault, tmp_path: Path
) -> None:
    now = [0.0]
    async with Vault(by_pod(scripted, tmp_path), clock=lambda: now[0]) as vault:
        await vault.read_all([REFERENCE, "vault:secret/cbk/other", "vault:secret/cbk/third"])
        await vault.read(REFERENCE)
        logins_before = len(scripted.logins)
        now[0] = 2401.0
        await vault.read(REFERENCE)
    assert (logins_before, len(scripted.logins)) == (1, 2)


async def test_a_revoked_login_is_made_anew(scripted: ScriptedVault, tmp_path: Path) -> None:
    async with Vault(by_pod(scripted, tmp_path)) as vault:
        await vault.read(REFERENCE)
        scripted.tokens = set()
        assert (await vault.read(REFERENCE)).reveal() == "sk-from-vault"
    assert len(scripted.logins) == 2


@pytest.mark.parametrize(
    ("secret", "status", "says"),
    [
        (GOOD, 404, "answered 404"),
        (GOOD, 503, "answered 503"),
        ({"data": {"data": None}}, 200, "no text in its field key"),
        ({"data": {"data": {"key": 7}}}, 200, "no text in its field key"),
        ({"data": {"data": {"key": "  "}}}, 200, "no text"),
        ([], 200, "no text"),
        ({"data": "x" * 2_000_000}, 200, "too large"),
    ],
)
async def test_an_answer_without_the_secret_is_a_fault(
    scripted: ScriptedVault, secret: object, status: int, says: str
) -> None:
    scripted.secret, scripted.status = secret, status
    async with Vault(by_token(scripted)) as vault:
        with pytest.raises(VaultFault, match=says):
            await vault.read(REFERENCE)


async def test_a_refused_token_shows_itself_nowhere(scripted: ScriptedVault) -> None:
    async with Vault(by_token(scripted, "hvs.private")) as vault:
        with pytest.raises(VaultFault) as caught:
            await vault.read(REFERENCE)
    assert caught.value.is_refusal
    assert "hvs.private" not in str(caught.value) + repr(vault.__dict__)


async def test_a_redirect_is_not_followed(scripted: ScriptedVault) -> None:
    scripted.elsewhere = scripted.url + "v1/secret/data/cbk/acme?again"
    async with Vault(by_token(scripted)) as vault:
        with pytest.raises(VaultFault, match="answered 307"):
            await vault.read(REFERENCE)
    assert len(scripted.headers) == 1


@pytest.mark.parametrize(
    ("address", "accepted"),
    [
        ("https://vault.example:8200", True),
        ("http://127.0.0.1:8200", True),
        ("http://[::1]:8200", True),
        ("http://localhost:8200", True),
        ("http://vault.example:8200", False),
        ("http://127.0.0.1.example", False),
        ("ftp://127.0.0.1", False),
        ("vault", False),
    ],
)
def test_tokens_cross_no_network_in_clear(address: str, accepted: bool) -> None:
    if accepted:
        Vault(VaultOptions(address=address))
    else:
        with pytest.raises(VaultFault, match="https"):
            Vault(VaultOptions(address=address))


async def test_the_last_good_value_stays_while_vault_is_away(scripted: ScriptedVault) -> None:
    heard = Heard()
    async with Vault(by_token(scripted)) as vault:
        keys = KeySource({}, vault=vault, observer=heard)
        first = await keys.following([REFERENCE], None)
        scripted.status = 500
        second = await keys.following([REFERENCE], None)
        assert first.secret(REFERENCE) == second.secret(REFERENCE) == Secret("sk-from-vault")
        assert heard.events == ["vault failed"]
        scripted.status, scripted.secret = 200, {"data": {"data": {"key": "sk-newer"}}}
        third = await keys.following([REFERENCE], None)
        assert third.secret(REFERENCE).reveal() == "sk-newer"
    assert not keys.vault_problems
    assert heard.events == ["vault failed", "vault recovered"]


async def test_nobody_listening_is_a_fault(unused_tcp_port: int) -> None:
    async with Vault(VaultOptions(address=f"http://127.0.0.1:{unused_tcp_port}", token=Secret("x"))) as vault:
        with pytest.raises(VaultFault, match="cannot be reached"):
            await vault.read(REFERENCE)


async def test_no_way_to_log_in_is_a_fault(scripted: ScriptedVault) -> None:
    async with Vault(VaultOptions(address=scripted.url)) as vault:
        with pytest.raises(VaultFault, match="no way to log in"):
            await vault.read(REFERENCE)


async def test_a_file_that_names_vault_is_read_again_when_its_secrets_are_due(
    scripted: ScriptedVault, tmp_path: Path
) -> None:
    (tmp_path / "tenants.yaml").write_text("tenants: [{id: a, key: 'vault:secret/cbk/acme', scopes: []}]\n")
    now, taken = [0.0], list[str]()

    async def accept(tenants: tuple[Tenant, ...]) -> None:
        taken.extend(tenant.key.reveal() for tenant in tenants)

    async with Vault(by_token(scripted)) as vault:
        keys = KeySource({}, vault=vault)
        file = TenantFile(tmp_path / "tenants.yaml", keys, accept, vault_refresh_s=60, clock=lambda: now[0])
        await file.load()
        scripted.secret = {"data": {"data": {"key": "sk-newer"}}}
        now[0] = 59.0
        await file.look()
        now[0] = 61.0
        await file.look()
    assert taken == ["sk-from-vault", "sk-newer"]


async def test_a_key_that_vault_never_gave_is_a_problem_of_the_file(
    scripted: ScriptedVault, tmp_path: Path
) -> None:
    (tmp_path / "tenants.yaml").write_text("tenants: [{id: a, key: 'vault:secret/none', scopes: []}]\n")
    directory = Directory(
        Registry(), KeySource({}, vault=Vault(by_token(scripted))), path=tmp_path / "tenants.yaml"
    )
    with pytest.raises(SettingsError, match="could not be read"):
        await directory.start()
    assert "secret/none" in directory.problems()[-1].message
    await directory.stop()

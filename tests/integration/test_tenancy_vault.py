"""Keys from a scripted Vault over real HTTP: KV v2, mounts, and its bad days; logins are `..._login.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.settings import SettingsError
from cbk_gateway.tenancy.directory import Directory
from cbk_gateway.tenancy.key_source import KeySource
from cbk_gateway.tenancy.options import VaultOptions
from cbk_gateway.tenancy.registry import Registry
from cbk_gateway.tenancy.tenant_file import TenantFile
from cbk_gateway.tenancy.vault import Vault, VaultFault
from integration.scripted_vault import GOOD, REFERENCE, Heard, ScriptedVault, by_token, scripted_vault


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedVault]:
    async with scripted_vault() as script:
        yield script


async def test_a_secret_is_read_with_a_token(scripted: ScriptedVault) -> None:
    async with Vault(by_token(scripted)) as vault:
        assert (await vault.read(REFERENCE)).reveal() == "sk-from-vault"
    assert scripted.headers[0]["X-Vault-Namespace"] == "team-a"


@pytest.mark.parametrize(
    ("mounts", "reference", "asked"),
    [
        ((), "vault:secret/cbk/acme", "secret/data/cbk/acme"),
        ((), "vault:team/kv/cbk/acme", "team/data/kv/cbk/acme"),
        (("team/kv",), "vault:team/kv/cbk/acme#key", "team/kv/data/cbk/acme"),
        (("team", "/team/kv/", "team/kv/cb"), "vault:team/kv/cbk/acme", "team/kv/data/cbk/acme"),
        (("team/kv",), "vault:team/kvs/acme", "team/data/kvs/acme"),
    ],
)
async def test_a_mount_may_have_several_segments(
    scripted: ScriptedVault, mounts: tuple[str, ...], reference: str, asked: str
) -> None:
    async with Vault(replace(by_token(scripted), mounts=mounts)) as vault:
        if asked.endswith("data/cbk/acme"):
            assert (await vault.read(reference)).reveal() == "sk-from-vault"
        else:
            with pytest.raises(VaultFault, match="answered 404"):
                await vault.read(reference)
    assert scripted.paths == [asked]


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

"""Logging in to a scripted Vault over real HTTP, by token and as a pod, and how a login is kept alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cbk_gateway.tenancy.directory import Directory
from cbk_gateway.tenancy.key_source import KeySource
from cbk_gateway.tenancy.options import TenancyOptions, VaultOptions
from cbk_gateway.tenancy.registry import Registry
from cbk_gateway.tenancy.vault import Vault, VaultFault
from integration.scripted_vault import REFERENCE, Heard, ScriptedVault, by_pod, by_token, scripted_vault


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedVault]:
    async with scripted_vault() as script:
        yield script


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
        await vault.look_at_login()
        logins_before = len(scripted.logins)
        now[0] = 1799.0
        await vault.look_at_login()
        assert (await vault.read(REFERENCE)).reveal() == "sk-from-vault"
    assert (logins_before, len(scripted.logins)) == (1, 2)
    assert scripted.headers[-1]["X-Vault-Token"] == "login-2"


async def test_a_pod_whose_login_ran_out_unseen_logs_in_again(
    scripted: ScriptedVault, tmp_path: Path
) -> None:
    now = [0.0]
    async with Vault(by_pod(scripted, tmp_path), clock=lambda: now[0]) as vault:
        await vault.read(REFERENCE)
        now[0] = 3601.0
        await vault.read(REFERENCE)
    assert len(scripted.logins) == 2
    # It did not try the old one first.
    assert [one["X-Vault-Token"] for one in scripted.headers] == ["login-1", "login-2"]


async def test_a_login_that_cannot_be_renewed_yet_goes_on_serving(
    scripted: ScriptedVault, tmp_path: Path
) -> None:
    now = [0.0]
    async with Vault(by_pod(scripted, tmp_path), clock=lambda: now[0]) as vault:
        await vault.read(REFERENCE)
        (tmp_path / "jwt").write_text("expired pod token")
        now[0] = 1799.0
        await vault.look_at_login()
        assert "Kubernetes login" in str(vault.trouble)
        assert (await vault.read(REFERENCE)).reveal() == "sk-from-vault"
        (tmp_path / "jwt").write_text("pod-token")
        now[0] = 1830.0
        await vault.look_at_login()
        assert vault.trouble is None
    assert scripted.headers[-1]["X-Vault-Token"] == "login-1"
    assert len(scripted.logins) == 3


async def test_a_static_token_is_renewed_before_half_of_its_life_is_over(scripted: ScriptedVault) -> None:
    now = [0.0]
    async with Vault(by_token(scripted), clock=lambda: now[0]) as vault:
        await vault.read(REFERENCE)
        now[0] = 1400.0
        await vault.look_at_login()
        assert scripted.renewals == []
        for moment in (1500.0, 1600.0, 3000.0):
            now[0] = moment
            await vault.look_at_login()
        assert scripted.renewals == ["root", "root"]
        assert vault.ends_in_s == 3600
        assert vault.trouble is None


@pytest.mark.parametrize(
    ("life", "renewal", "says"),
    [
        ({"ttl": 3600, "renewable": False}, (200, {}), "the token is not renewable"),
        ({"ttl": 3600, "renewable": True}, (403, {}), "Vault answered 403"),
        ({"ttl": 3600, "renewable": True}, (500, {}), "Vault answered 500"),
        (
            {"ttl": 3600, "renewable": True},
            (200, {"lease_duration": 60, "renewable": True}),
            "its longest life is nearly over",
        ),
    ],
)
async def test_a_token_that_cannot_be_renewed_is_told_and_used_until_it_ends(
    scripted: ScriptedVault, life: dict[str, object], renewal: tuple[int, dict[str, object]], says: str
) -> None:
    scripted.life, scripted.renewal = life, renewal
    heard, now = Heard(), [0.0]
    async with Vault(by_token(scripted), clock=lambda: now[0]) as vault:
        keys = KeySource({}, vault=vault, observer=heard)
        await keys.following([REFERENCE], None)
        await keys.look_at_login()
        assert heard.events == []
        assert heard.ends["vault", "login"] == pytest.approx(time.time() + 3600, abs=60)
        now[0] = 1500.0
        await keys.look_at_login()
        assert list(keys.vault_problems) == [f"the login cannot be renewed: {says}"]
        assert heard.events == ["vault failed"]
        assert (await keys.following([REFERENCE], None)).secret(REFERENCE).reveal() == "sk-from-vault"
        assert keys.vault_problems
        # It is tried again, and what works again is told too.
        scripted.life = {"ttl": 3600, "renewable": True}
        scripted.renewal = (200, {"lease_duration": 7200, "renewable": True})
        if life["renewable"]:
            now[0] = 1531.0
            await keys.look_at_login()
            assert not keys.vault_problems
            assert heard.events[-1] == "vault recovered"


@pytest.mark.parametrize(
    "life", [{"ttl": 0, "renewable": False}, {"ttl": "soon"}, {"ttl": True}, {}], ids=repr
)
async def test_a_token_without_a_known_end_is_left_alone(
    scripted: ScriptedVault, life: dict[str, object]
) -> None:
    scripted.life = life
    now = [0.0]
    async with Vault(by_token(scripted), clock=lambda: now[0]) as vault:
        await vault.read(REFERENCE)
        now[0] = 10.0**6
        await vault.look_at_login()
        await vault.read(REFERENCE)
        assert (vault.trouble, vault.ends_in_s, scripted.renewals) == (None, None, [])


async def test_a_token_file_written_anew_is_taken_instead_of_renewing(
    scripted: ScriptedVault, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("root")
    now = [0.0]
    options = VaultOptions(address=scripted.url, token_file=tmp_path / "token")
    async with Vault(options, clock=lambda: now[0]) as vault:
        await vault.read(REFERENCE)
        (tmp_path / "token").write_text("from-the-agent")
        scripted.tokens.add("from-the-agent")
        now[0] = 1500.0
        await vault.look_at_login()
        await vault.read(REFERENCE)
        assert scripted.renewals == []
        now[0] = 3000.0
        await vault.look_at_login()
    assert scripted.headers[-1]["X-Vault-Token"] == "from-the-agent"
    assert scripted.renewals == ["from-the-agent"]


async def test_the_kubernetes_method_may_be_mounted_anywhere(scripted: ScriptedVault, tmp_path: Path) -> None:
    async with Vault(replace(by_pod(scripted, tmp_path), kubernetes_mount="team/pods")) as vault:
        assert (await vault.read(REFERENCE)).reveal() == "sk-from-vault"


async def test_a_login_is_looked_at_while_tenants_are_kept(scripted: ScriptedVault, tmp_path: Path) -> None:
    """A life of seconds, the clock of the machine: the directory renews without anybody asking."""
    scripted.life = {"ttl": 1, "renewable": True}
    scripted.renewal = (200, {"lease_duration": 2, "renewable": True})
    (tmp_path / "tenants.yaml").write_text("tenants: [{id: a, key: 'vault:secret/cbk/acme', scopes: []}]\n")
    directory = Directory(
        Registry(),
        KeySource({}, vault=Vault(by_token(scripted))),
        path=tmp_path / "tenants.yaml",
        options=TenancyOptions(login_look_s=0.05),
    )
    await directory.start()
    async with asyncio.timeout(30):
        while not scripted.renewals:
            await asyncio.sleep(0.02)
        assert not directory.problems()
        scripted.renewal = (403, {})
        while not directory.problems():
            await asyncio.sleep(0.02)
    assert "cannot be renewed" in directory.problems()[0].message
    await directory.stop()


async def test_a_revoked_login_is_made_anew(scripted: ScriptedVault, tmp_path: Path) -> None:
    async with Vault(by_pod(scripted, tmp_path)) as vault:
        await vault.read(REFERENCE)
        scripted.tokens = set()
        assert (await vault.read(REFERENCE)).reveal() == "sk-from-vault"
    assert len(scripted.logins) == 2


async def test_no_way_to_log_in_is_a_fault(scripted: ScriptedVault) -> None:
    async with Vault(VaultOptions(address=scripted.url)) as vault:
        with pytest.raises(VaultFault, match="no way to log in"):
            await vault.read(REFERENCE)

"""The tenants' file and the secret files it names, changed while they are in use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cbk_gateway.settings import SettingsError
from cbk_gateway.tenancy.directory import Directory
from cbk_gateway.tenancy.key_source import KeySource
from cbk_gateway.tenancy.observer import SilentObserver
from cbk_gateway.tenancy.options import TenancyOptions
from cbk_gateway.tenancy.registry import Registry

ONE = "tenants: [{id: a, key: 'file:a.key', scopes: ['*:read']}]\n"
TWO = "tenants: [{id: a, key: 'file:a.key', scopes: ['*:read']}, {id: b, key: env:B, scopes: []}]\n"
BROKEN = "tenants: [{id: a, key: env:NONE, scops: []}]\n"


class Heard(SilentObserver):
    """Writes down what happens to the file."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def source_failed(self, source: str) -> None:
        self.events.append(f"{source} failed")

    def source_recovered(self, source: str) -> None:
        self.events.append(f"{source} recovered")

    def tenants_changed(self, count: int, version: int) -> None:
        self.events.append(f"{count} tenants, version {version}")


@asynccontextmanager
async def running(path: Path, heard: Heard) -> AsyncIterator[Directory]:
    directory = Directory(
        Registry(),
        KeySource({"B": "sk-b"}),
        path=path,
        options=TenancyOptions(file_poll_s=0.02),
        observer=heard,
    )
    await directory.start()
    try:
        yield directory
    finally:
        await directory.stop()


async def until(holds: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition, at most as long as a very busy machine takes."""
    async with asyncio.timeout(30):
        while True:
            answer = holds()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.01)


def key_of(directory: Directory, tenant_id: str) -> str | None:
    tenant = directory.registry.get(tenant_id)
    return tenant.key.reveal() if tenant is not None else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.key").write_text("sk-a1\n")
    (tmp_path / "tenants.yaml").write_text(ONE)
    return tmp_path


async def test_a_changed_file_is_taken(folder: Path) -> None:
    heard = Heard()
    async with running(folder / "tenants.yaml", heard) as directory:
        assert list(directory.registry.all()) == ["a"]
        (folder / "tenants.yaml").write_text(TWO)
        await until(lambda: directory.registry.get("b") is not None)
    assert heard.events == ["1 tenants, version 2", "2 tenants, version 3"]


async def test_a_broken_file_keeps_the_old_tenants_and_says_so_once(folder: Path) -> None:
    heard = Heard()
    with capture_logs() as logs:
        async with running(folder / "tenants.yaml", heard) as directory:
            (folder / "tenants.yaml").write_text(BROKEN)
            await until(lambda: bool(directory.problems()))
            assert list(directory.registry.all()) == ["a"]
            assert {one.key for one in directory.problems()} >= {"tenants[0] (a).scops"}
            assert not await directory.reload()
            (folder / "tenants.yaml").write_text(TWO)
            await until(lambda: directory.registry.get("b") is not None)
            assert directory.problems() == []
    assert [one["event"] for one in logs].count("tenants_file_broken") == 1
    assert heard.events[-2:] == ["2 tenants, version 3", "file recovered"]
    assert "file failed" in heard.events


async def test_a_removed_file_keeps_the_old_tenants(folder: Path) -> None:
    async with running(folder / "tenants.yaml", Heard()) as directory:
        (folder / "tenants.yaml").unlink()
        await until(lambda: bool(directory.problems()))
        assert list(directory.registry.all()) == ["a"]


async def test_a_file_broken_from_the_start_is_an_error(folder: Path) -> None:
    (folder / "tenants.yaml").write_text(BROKEN)
    with pytest.raises(SettingsError):
        async with running(folder / "tenants.yaml", Heard()):
            pass


async def test_a_changed_secret_file_is_taken(folder: Path) -> None:
    async with running(folder / "tenants.yaml", Heard()) as directory:
        (folder / "a.key").write_text("sk-a2\n")
        await until(lambda: key_of(directory, "a") == "sk-a2")


async def test_a_secret_file_that_became_empty_keeps_the_old_key(folder: Path) -> None:
    async with running(folder / "tenants.yaml", Heard()) as directory:
        (folder / "a.key").write_text("")
        await until(lambda: bool(directory.problems()))
        assert key_of(directory, "a") == "sk-a1"


async def test_a_kubernetes_mount_swap_is_taken(tmp_path: Path) -> None:
    """A mounted secret is a link to a link: `..data` is exchanged, the file's own link never changes."""
    for version, key in (("v1", "sk-a1"), ("v2", "sk-a2")):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "a.key").write_text(key)
        (tmp_path / f"..{version}" / "tenants.yaml").write_text(ONE)
    (tmp_path / "..data").symlink_to("..v1")
    for name in ("a.key", "tenants.yaml"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    async with running(tmp_path / "tenants.yaml", Heard()) as directory:
        assert key_of(directory, "a") == "sk-a1"
        (tmp_path / "..next").symlink_to("..v2")
        (tmp_path / "..next").rename(tmp_path / "..data")
        await until(lambda: key_of(directory, "a") == "sk-a2")


async def test_a_reload_takes_a_change_at_once(folder: Path) -> None:
    async with running(folder / "tenants.yaml", Heard()) as directory:
        (folder / "tenants.yaml").write_text(TWO)
        assert await directory.reload()
        assert key_of(directory, "b") == "sk-b"


async def test_an_untouched_file_is_no_change(folder: Path) -> None:
    async with running(folder / "tenants.yaml", Heard()) as directory:
        version = directory.registry.version
        for _ in range(3):
            assert await directory.reload()
        assert directory.registry.version == version


async def test_tenants_without_a_file_stand_in_for_it(folder: Path) -> None:
    async with running(folder / "tenants.yaml", Heard()) as directory:
        given = tuple(directory.registry.all().values())
    other = Directory(Registry(), KeySource({}), tenants=given)
    await other.start()
    assert other.origin("a") == "file"
    assert await other.reload()
    await other.stop()

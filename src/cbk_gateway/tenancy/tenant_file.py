"""The tenants' file, read again whenever it or a secret file it names has changed.

Content is compared, not time stamps: Kubernetes swaps a mount by one symbolic link, editors replace files,
and a copy may keep its date. A file that cannot be used changes nothing: the tenants that were read last
stay in force, and the problems are kept for the operators. What happens to the tenants is the caller's
business.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from cbk_gateway.parties import Tenant
from cbk_gateway.settings.faults import Problem, SettingsError
from cbk_gateway.settings.references import MAX_SECRET_BYTES, Scheme, located
from cbk_gateway.settings.tenants import secret_references, tenants_of, vault_references
from cbk_gateway.settings.yaml_file import MAX_FILE_BYTES, YamlDocument, read_yaml
from cbk_gateway.tenancy.key_source import KeySource
from cbk_gateway.tenancy.observer import SilentObserver, TenancyObserver

_LOG: Final = structlog.get_logger(__name__)


class TenantFile:
    """One file.

    Attributes:
        problems: Everything wrong with the file as it is now; empty while it is what is in force.
    """

    def __init__(
        self,
        path: Path,
        keys: KeySource,
        accept: Callable[[tuple[Tenant, ...]], Awaitable[None]],
        observer: TenancyObserver | None = None,
        *,
        vault_refresh_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._keys = keys
        self._accept = accept
        self._observer = observer if observer is not None else SilentObserver()
        self._vault_refresh_s = vault_refresh_s
        self._clock = clock
        self._watched: tuple[Path, ...] = ()
        self._uses_vault = False
        self._seen: bytes | None = None
        self._read_at = 0.0
        self._turn = asyncio.Lock()
        self.problems: tuple[Problem, ...] = ()

    async def load(self) -> None:
        """Read the file for the first time.

        Raises:
            SettingsError: It cannot be used.
        """
        async with self._turn:
            await self._read()

    async def reload(self) -> bool:
        """Read the file again, whether it changed or not; says whether it is usable. For SIGHUP."""
        async with self._turn:
            return await self._read_again()

    async def look(self) -> None:
        """Read the file again if its content, a secret file, or the time of Vault's secrets asks for it."""
        async with self._turn:
            is_due = self._uses_vault and self._clock() - self._read_at >= self._vault_refresh_s
            if is_due or await asyncio.to_thread(_content_digest, self._path, self._watched) != self._seen:
                await self._read_again()

    async def _read_again(self) -> bool:
        try:
            await self._read()
        except SettingsError as broken:
            if tuple(broken.problems) != self.problems:
                shown = [str(problem) for problem in broken.problems[:20]]
                _LOG.error("tenants_file_broken", count=len(broken.problems), problems=shown)
            self.problems = tuple(broken.problems)
            self._observer.source_failed("file")
            return False
        if self.problems:
            _LOG.info("tenants_file_usable", file=str(self._path))
            self._observer.source_recovered("file")
        self.problems = ()
        return True

    async def _read(self) -> None:
        self._read_at = self._clock()
        # Before anything is read, so that a change in the middle is seen at the next look.
        self._seen = await asyncio.to_thread(_content_digest, self._path, self._watched)
        document = await asyncio.to_thread(read_yaml, self._path)
        watched = _secret_files(document, self._path.parent)
        if watched != self._watched:
            self._watched = watched
            self._seen = await asyncio.to_thread(_content_digest, self._path, watched)
            # The file may have changed between reading it and taking this digest.
            document = await asyncio.to_thread(read_yaml, self._path)
        references = vault_references(document)
        self._uses_vault = bool(references)
        following = await self._keys.following(references, self._path.parent)
        await self._accept(await asyncio.to_thread(tenants_of, document, following))


def _secret_files(document: YamlDocument, folder: Path) -> tuple[Path, ...]:
    references = (one for one in secret_references(document) if one.scheme is Scheme.FILE)
    return tuple(sorted(located(one, folder) for one in references))


def _content_digest(path: Path, others: tuple[Path, ...]) -> bytes:
    """One digest over the content of all files; a file that cannot be read counts as one state more."""
    whole = hashlib.sha256()
    for one, bound in ((path, MAX_FILE_BYTES), *((other, MAX_SECRET_BYTES) for other in others)):
        try:
            with one.open("rb") as file:
                part = hashlib.sha256(file.read(bound + 1)).digest()
        except OSError as exc:
            part = hashlib.sha256(f"unreadable {exc.errno}".encode()).digest()
        whole.update(part)
    return whole.digest()

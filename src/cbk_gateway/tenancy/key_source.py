"""Where upstream keys come from: the environment, files, Vault, and sealed texts of the store.

One object knows all of them, so that tenants from a file and tenants from the store follow references by
the same rules. It keeps no keys but the last good ones of Vault, which `vault.py` holds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import structlog

from cbk_gateway.secret import Secret
from cbk_gateway.settings.tenants import Following
from cbk_gateway.tenancy.cipher import PREFIX, CipherFault, MasterKeys
from cbk_gateway.tenancy.observer import SilentObserver, TenancyObserver
from cbk_gateway.tenancy.vault import Vault

_LOG: Final = structlog.get_logger(__name__)


class KeySource:
    """Follows references and opens seals.

    Attributes:
        vault_problems: What is wrong with Vault, its login or the last reading, in words that name
            references only.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        allow_inline: bool = False,
        master: MasterKeys | None = None,
        vault: Vault | None = None,
        observer: TenancyObserver | None = None,
    ) -> None:
        self._environ = environ
        self._allow_inline = allow_inline
        self._master = master
        self._vault = vault
        self._observer = observer if observer is not None else SilentObserver()
        self._unread: tuple[str, ...] = ()
        self.vault_problems: tuple[str, ...] = ()

    @property
    def can_seal(self) -> bool:
        """Whether keys can be stored: whether a master key is configured."""
        return self._master is not None

    @property
    def has_vault(self) -> bool:
        """Whether a login at Vault has to be looked at."""
        return self._vault is not None

    @property
    def refresh_s(self) -> float:
        """How often what changes by itself should be read anew, in seconds."""
        return self._vault.refresh_s if self._vault is not None else 60.0

    async def close(self) -> None:
        """Close the connections to Vault; the next reading opens them again."""
        if self._vault is not None:
            await self._vault.close()

    async def following(self, vault_references: Iterable[str], folder: Path | None) -> Following:
        """A way to follow references, with those that lead to Vault read just now."""
        references = tuple(vault_references)
        found: Mapping[str, Secret] | None = None
        if self._vault is not None and references:
            found, problems = await self._vault.read_all(references)
            self._unread = tuple(problems)
            self._note(self._vault)
        return Following(self._environ, folder, found, self._allow_inline)

    async def look_at_login(self) -> None:
        """Renew the login at Vault if that is due, and say how it stands. Never raises."""
        if self._vault is not None:
            await self._vault.look_at_login()
            self._note(self._vault)

    def seal(self, secret: Secret, tenant: str, name: str) -> str:
        """A secret as text for the store.

        Raises:
            CipherFault: No master key is configured.
        """
        return self._keys().seal(secret, tenant=tenant, name=name)

    def unseal(self, text: str, tenant: str, name: str) -> Secret:
        """The secret in a sealed text.

        Raises:
            CipherFault: It does not open.
        """
        return self._keys().open(text, tenant=tenant, name=name)

    def resealed(self, row: Mapping[str, object], tenant: str) -> dict[str, object] | None:
        """A stored row with its keys under the master key that seals now, or None if they are already.

        Raises:
            CipherFault: A key does not open.
        """
        keys = self._keys()
        old = {
            name: text
            for name, text in row.items()
            if isinstance(text, str) and text.startswith(PREFIX) and not keys.is_current(text)
        }
        new = {name: self.seal(self.unseal(text, tenant, name), tenant, name) for name, text in old.items()}
        return {**row, **new} if new else None

    def _keys(self) -> MasterKeys:
        if self._master is None:
            message = "no master key is configured: set CBK_GATEWAY_MASTER_KEY"
            raise CipherFault(message)
        return self._master

    def _note(self, vault: Vault) -> None:
        problems = (*((vault.trouble,) if vault.trouble is not None else ()), *self._unread)
        if vault.ends_in_s is not None:
            self._observer.key_expires("vault", "login", time.time() + vault.ends_in_s)
        if problems:
            self._observer.source_failed("vault")
            if problems != self.vault_problems:
                _LOG.warning("vault_unreadable", problems=list(problems))
        elif self.vault_problems:
            self._observer.source_recovered("vault")
            _LOG.info("vault_readable")
        self.vault_problems = problems

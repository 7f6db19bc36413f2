"""Reading upstream keys from HashiCorp Vault: KV version 2 over HTTP, by token or Kubernetes login.

Its own client session, because nothing of a tenant's traffic may meet it. Redirects are not followed and
bodies are bounded. The last value read stays in force while Vault is away. A login is renewed before half of
its life is over: a token by `renew-self`, a token file by reading it again first, a Kubernetes login by
another one. Which references exist, and when to read them anew or to look at the login, is `tenant_file.py`'s
and `directory.py`'s business.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote, urlsplit

import aiohttp
import orjson
import structlog

from cbk_gateway.secret import Secret
from cbk_gateway.settings.references import ReferenceFault, read_secret_file, vault_parts
from cbk_gateway.tenancy.options import VaultOptions
from cbk_gateway.tenancy.vault_login import Login, granted, member

_LOG: Final = structlog.get_logger(__name__)


class VaultFault(Exception):  # noqa: N818 - named as the other packages' faults are
    """Vault is away, refuses, or answers what is not a KV v2 secret. Holds no secret.

    Attributes:
        is_refusal: Whether Vault answered and said no, rather than not answering.
    """

    def __init__(self, message: str, *, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal


class Vault:
    """A Vault server. Use as an async context manager, or call `close`.

    Attributes:
        refresh_s: How often its secrets should be read anew, in seconds.
        trouble: What is wrong with the login, as the end of a sentence; None while nothing is.
    """

    def __init__(self, options: VaultOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        _refuse_plain_text(options.address)
        self._options = options
        self.refresh_s = options.refresh_s
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self.trouble: str | None = None
        self._login: Login | None = None
        self._turn = asyncio.Lock()
        self._last_good: dict[str, Secret] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def read(self, reference: str) -> Secret:
        """The secret behind `vault:MOUNT/PATH#FIELD`, as Vault has it now.

        Raises:
            VaultFault: It cannot be read.
        """
        mount, path, field = self._place(reference)
        url = f"/v1/{quote(mount)}/data/{quote(path)}"
        used = await self._logged_in()
        status, document = await self._ask("GET", url, used)
        if status == 403:
            # The login may have been revoked or have run out early: one new one, then it is a refusal.
            status, document = await self._ask("GET", url, await self._logged_in(instead_of=used))
        if status != 200:
            # A deleted version answers 404 with its metadata (KV v2).
            message = f"Vault answered {status} for {mount}/{path}"
            raise VaultFault(message, is_refusal=True)
        value = member(member(member(document, "data"), "data"), field)
        if not isinstance(value, str) or not value.strip():
            message = f"the secret {mount}/{path} has no text in its field {field}"
            raise VaultFault(message, is_refusal=True)
        return Secret(value.strip())

    async def read_all(self, references: Iterable[str]) -> tuple[Mapping[str, Secret], list[str]]:
        """The secrets behind references, by reference, and what went wrong with some, in words.

        A secret that cannot be read now keeps the value it last had; one that never could is left out.
        """
        wanted = sorted(set(references))
        answers = await asyncio.gather(*(self.read(one) for one in wanted), return_exceptions=True)
        problems: list[str] = []
        for reference, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, Secret):
                self._last_good[reference] = answer
            elif isinstance(answer, (VaultFault, ReferenceFault)):
                problems.append(f"{reference}: {answer}")
            else:
                raise answer
        found = {one: self._last_good[one] for one in wanted if one in self._last_good}
        return found, problems

    @property
    def ends_in_s(self) -> float | None:
        """Seconds until the login ends; None for never, or where that is not known."""
        if self._login is None or self._login.ends_at is None:
            return None
        return self._login.ends_at - self._clock()

    async def look_at_login(self) -> None:
        """Renew the login if that is due; `trouble` says what came of it. Never raises."""
        async with self._turn:
            login = self._login
            if login is None or not login.is_due(self._clock()):
                return
            try:
                self._login = await self._renewed(login)
                self.trouble = None
            except (VaultFault, ReferenceFault) as fault:
                self._login = login.put_off(self._clock())
                trouble = f"the login cannot be renewed: {fault}"
                if trouble != self.trouble:
                    _LOG.warning("vault_login_not_renewed", fault=str(fault), ends_in_s=self.ends_in_s)
                self.trouble = trouble

    async def _renewed(self, login: Login) -> Login:
        options = self._options
        if options.token is None and options.token_file is None:
            return await self._new_login()
        if options.token_file is not None and await _file(options.token_file) != login.token:
            return await self._new_login()
        if not login.can_renew:
            message = "the token is not renewable"
            raise VaultFault(message, is_refusal=True)
        status, document = await self._ask("POST", "/v1/auth/token/renew-self", login.token, b"{}")
        grant = member(document, "auth")
        if status != 200:
            message = f"Vault answered {status}"
            raise VaultFault(message, is_refusal=True)
        now = self._clock()
        new = granted(
            login.token, member(grant, "lease_duration"), can_renew=member(grant, "renewable"), now=now
        )
        if login.ends_at is not None and new.ends_at is not None and new.ends_at <= login.ends_at:
            message = "its longest life is nearly over"
            raise VaultFault(message, is_refusal=True)
        _LOG.info("vault_login_renewed", life_s=member(grant, "lease_duration"))
        return new

    async def _logged_in(self, instead_of: Secret | None = None) -> Secret:
        """A token that should be accepted; a new one when the old one is over, or is `instead_of`."""
        async with self._turn:
            login = self._login
            if login is None or login.is_over(self._clock()) or login.token is instead_of:
                login = self._login = await self._new_login()
                self.trouble = None
            return login.token

    async def _new_login(self) -> Login:
        options = self._options
        if options.token is not None:
            return await self._known(Secret(options.token.reveal()))
        if options.token_file is not None:
            return await self._known(await _file(options.token_file))
        if options.kubernetes_role is None:
            message = "no way to log in to Vault is configured"
            raise VaultFault(message)
        proof = await _file(options.service_account_file)
        body = orjson.dumps({"role": options.kubernetes_role, "jwt": proof.reveal()})
        url = f"/v1/auth/{quote(options.kubernetes_mount)}/login"
        status, document = await self._ask("POST", url, None, body)
        grant = member(document, "auth")
        token, life_s = member(grant, "client_token"), member(grant, "lease_duration")
        if status != 200 or not isinstance(token, str) or not token:
            message = f"Vault answered {status} to the Kubernetes login"
            raise VaultFault(message, is_refusal=True)
        _LOG.info("vault_login", role=options.kubernetes_role, life_s=life_s)
        return granted(Secret(token), life_s, can_renew=False, now=self._clock())

    async def _known(self, token: Secret) -> Login:
        """A token that somebody else made, with what Vault says of its life; a policy may hide that."""
        status, document = await self._ask("GET", "/v1/auth/token/lookup-self", token)
        about = member(document, "data") if status == 200 else None
        return granted(token, member(about, "ttl"), can_renew=member(about, "renewable"), now=self._clock())

    def _place(self, reference: str) -> tuple[str, str, str]:
        mount, path, field = vault_parts(reference.removeprefix("vault:"))
        whole = f"{mount}/{path}"
        for known in sorted(self._options.mounts, key=len, reverse=True):
            if whole.startswith(f"{known.strip('/')}/"):
                mount = known.strip("/")
                path = whole.removeprefix(f"{mount}/")
                break
        return mount, path, field

    async def _ask(
        self, method: str, path: str, token: Secret | None, body: bytes | None = None
    ) -> tuple[int, object]:
        headers = {"X-Vault-Request": "true", "Accept": "application/json"}
        if token is not None:
            headers["X-Vault-Token"] = token.reveal()
        if self._options.namespace is not None:
            headers["X-Vault-Namespace"] = self._options.namespace
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            # Following a redirect would carry the token to another host.
            async with self._open().request(
                method,
                self._options.address.rstrip("/") + path,
                headers=headers,
                data=body,
                allow_redirects=False,
            ) as answer:
                octets = await _bounded(answer, self._options.max_bytes)
                return answer.status, _json(octets)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            message = f"Vault cannot be reached ({type(exc).__name__})"
            raise VaultFault(message) from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            ca_file = self._options.ca_file
            trust = ssl.create_default_context(cafile=ca_file) if ca_file is not None else True
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=8, ssl=trust),
                timeout=aiohttp.ClientTimeout(total=self._options.timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


def _refuse_plain_text(address: str) -> None:
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme == "https" and host:
        return
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if parts.scheme != "http" or not is_loopback:
        message = "Vault's address has to begin with https:// (http:// for loopback only)"
        raise VaultFault(message)


async def _file(path: Path) -> Secret:
    try:
        return await asyncio.to_thread(read_secret_file, path)
    except ReferenceFault as fault:
        raise VaultFault(str(fault)) from None


async def _bounded(answer: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    octets = b""
    async for chunk in answer.content.iter_any():
        octets += chunk
        if len(octets) > max_bytes:
            answer.close()
            message = "Vault's answer is too large"
            raise VaultFault(message)
    return octets


def _json(octets: bytes) -> object:
    try:
        document: object = orjson.loads(octets)
    except orjson.JSONDecodeError:
        return None
    return document

"""Fetching key sets over HTTP: one session, every bound, no rule about when.

When to fetch and what to do without an answer is `key_source`'s business; what the body means is `key_set`'s.
Anything that goes wrong leaves here as a `FetchFault`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp

from cbk_gateway.identity.addresses import discovery_address, redirect_target
from cbk_gateway.identity.key_set import (
    FetchFault,
    FetchReason,
    PublishedSet,
    fresh_for_s,
    read_discovery,
    read_key_set,
)
from cbk_gateway.identity.options import IssuerOptions, JwksOptions

_MAX_REDIRECTS: Final = 3
_HEADERS: Final = {
    "Accept": "application/jwk-set+json, application/json",
    # Unpacking could make a small answer a large one.
    "Accept-Encoding": "identity",
    "User-Agent": "cbk-gateway",
}


class KeyFetcher:
    """Fetches the key sets of all issuers of one `Identity`.

    Args:
        clock: Monotonic seconds, for how long a discovered address is trusted.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._discovered: dict[str, tuple[str, float]] = {}

    def open(self) -> None:
        """Make the session. Called on the event loop that will fetch."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                # Proxies and credentials of the environment are not meant for identity.
                trust_env=False,
                headers=_HEADERS,
                connector=aiohttp.TCPConnector(limit=8, force_close=True),
            )

    async def close(self) -> None:
        """Close the session and its connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def fetch(self, policy: IssuerOptions) -> PublishedSet:
        """The issuer's key set as published now.

        Raises:
            FetchFault: It could not be had within `timeout_s`, or must not be used.
        """
        try:
            async with asyncio.timeout(policy.jwks.timeout_s):
                address = policy.jwks_url or await self._discover(policy)
                body, answer = await self._get(address, policy.jwks)
                return read_key_set(body, answer.headers, policy)
        except TimeoutError:
            fault = FetchFault(FetchReason.TIMEOUT, f"no answer within {policy.jwks.timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            fault = FetchFault(FetchReason.UNREACHABLE, f"cannot be reached ({type(error).__name__})")
        except FetchFault as error:
            fault = error
        # The issuer may have moved its keys: ask for their address again next time.
        self._discovered.pop(policy.name, None)
        raise fault

    async def _discover(self, policy: IssuerOptions) -> str:
        known = self._discovered.get(policy.name)
        if known is not None and self._clock() < known[1]:
            return known[0]
        body, answer = await self._get(discovery_address(policy.issuer or ""), policy.jwks)
        address = read_discovery(body, policy)
        self._discovered[policy.name] = (address, self._clock() + fresh_for_s(answer.headers, policy.jwks))
        return address

    async def _get(self, address: str, bounds: JwksOptions) -> tuple[bytes, aiohttp.ClientResponse]:
        if self._session is None:
            raise FetchFault(FetchReason.UNREACHABLE, "this gateway is not started")
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._session.get(address, allow_redirects=False) as answer:
                if answer.status in {301, 302, 303, 307, 308}:
                    address = self._followed(address, answer)
                    continue
                if answer.status != 200:
                    raise FetchFault(FetchReason.STATUS, f"answered with status {answer.status}")
                if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise FetchFault(FetchReason.ENCODING, "answered with an encoding that was not asked for")
                return await self._bounded_body(answer, bounds.max_bytes), answer
        raise FetchFault(FetchReason.REDIRECT, f"redirected more than {_MAX_REDIRECTS} times")

    @staticmethod
    def _followed(address: str, answer: aiohttp.ClientResponse) -> str:
        target = redirect_target(address, answer.headers.get("Location", ""))
        if target is None or target == address:
            raise FetchFault(FetchReason.REDIRECT, "redirected to another host, or to itself")
        return target

    @staticmethod
    async def _bounded_body(answer: aiohttp.ClientResponse, max_bytes: int) -> bytes:
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > max_bytes:
                raise FetchFault(FetchReason.TOO_LARGE, f"the body is larger than {max_bytes} bytes")
        return bytes(body)

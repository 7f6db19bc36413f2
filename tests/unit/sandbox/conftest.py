"""A sandbox on a real socket, and a small client that speaks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
from yarl import URL

from cbk_gateway.sandbox import Sandbox

KEYS = {"sk-acme": "acme", "sk-acme-2": "acme", "sk-globex": "globex"}
CHILDREN = {"acme": {"user_kid": "kid@acme.example"}}


class Api:
    """Calls a sandbox as one account, and reads what it answers."""

    def __init__(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.http = http

    async def raw(
        self,
        method: str,
        path: str,
        *,
        key: str | None = "sk-acme",
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one call; redirects are not followed."""
        sent = {**({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
        options.setdefault("allow_redirects", False)
        url = URL(self.sandbox.url + path, encoded=True)
        async with self.http.request(method, url, headers=sent, **options) as response:
            return response.status, dict(response.headers), await response.read()

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        status, _, body = await self.raw("GET", path, **options)
        return status, orjson.loads(body) if body else None

    async def post(self, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Status and JSON of a POST with a JSON body."""
        status, _, answer = await self.raw("POST", path, json={} if body is None else body, **options)
        return status, orjson.loads(answer) if answer else None

    async def make(self, kind: str, body: Any = None, **options: Any) -> str:
        """The id of a new resource."""
        status, answer = await self.post(f"/v1/{kind}/create", body, **options)
        assert status == 200, answer
        return str(answer["id"])

    async def events(self, path: str, body: Any = None, **options: Any) -> list[dict[str, Any]]:
        """The events of a JSONL stream that ends."""
        headers = {"Accept": "application/jsonl", **options.pop("headers", {})}
        method = "GET" if body is None else "POST"
        extra = {} if body is None else {"json": body}
        status, _, answer = await self.raw(method, path, headers=headers, **extra, **options)
        assert status == 200, answer
        return [orjson.loads(line) for line in answer.splitlines()]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(KEYS, CHILDREN) as running:
        yield running


@pytest.fixture
async def api(sandbox: Sandbox) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as http:
        yield Api(sandbox, http)

"""Several whole gateways on one store, in front of one sandbox: what the cache's suites share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

from cbk_gateway.app import Gateway
from cbk_gateway.sandbox import Sandbox
from cbk_gateway.settings.load import load
from harness import ADMIN_TOKEN, KEYS, SIGNING_KEY, Stage, assert_alike, settings_document, tenant


@dataclass(frozen=True)
class Seen:
    """An answer, read to its end."""

    status: int
    said: str
    age: str | None
    body: bytes

    @property
    def is_hit(self) -> bool:
        return "; hit" in self.said

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Clients:
    """Clients of one tenant at several gateways in front of one sandbox."""

    urls: list[str]
    sandbox: Sandbox
    session: aiohttp.ClientSession
    headers: dict[str, str]

    async def get(self, number: int, path: str) -> Seen:
        url = f"{self.urls[number]}/api/v1/{path}"
        async with self.session.get(url, headers=self.headers) as answer:
            fields = answer.headers
            return Seen(answer.status, fields.get("Cache-Status", ""), fields.get("Age"), await answer.read())

    async def post(self, number: int, path: str, body: Mapping[str, object]) -> Seen:
        url = f"{self.urls[number]}/api/v1/{path}"
        async with self.session.post(url, json=body, headers=self.headers) as answer:
            return Seen(answer.status, "", None, await answer.read())

    async def bot(self, name: str) -> str:
        """The id of a bot made through the first gateway."""
        seen = await self.post(0, "bot/create", {"name": name})
        assert seen.status == 200, seen.body
        return str(seen.json["id"])

    def asked(self, path: str) -> int:
        """How often the sandbox was asked for a path."""
        return sum(one.path == f"/api/v1/{path}" for one in self.sandbox.requests)


@dataclass
class Fleet(Clients):
    """Gateways in this process."""

    stages: list[Stage]


@asynccontextmanager
async def fleet(
    folder: Path, store_url: str, count: int, **sections: Mapping[str, object]
) -> AsyncIterator[Fleet]:
    """So many gateways; `sections` change the settings of all."""
    tenants = (tenant("acme"),)
    async with contextlib.AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox({KEYS["acme"]: "acme-account"}))
        stages = []
        for number in range(count):
            place = folder / f"gateway-{number}"
            place.mkdir()
            file = place / "gateway.yaml"
            file.write_text(yaml.safe_dump(settings_document(sandbox.url, store_url, **sections)))
            loaded = load(file, environ={"TEST_SIGNING": SIGNING_KEY, "TEST_ADMIN": ADMIN_TOKEN})
            gateway = await stack.enter_async_context(Gateway(loaded, tenants=tenants))
            stages.append(Stage(gateway, sandbox, place))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0)
            )
        )
        urls = [one.url for one in stages]
        yield Fleet(urls, sandbox, session, stages[0].bearer(), stages)
        for one in stages:
            assert_alike(one.gateway)

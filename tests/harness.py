"""A whole gateway in front of a whole sandbox, in the test's own process, for suites that need both.

Real sockets, real store, real journal; tokens are minted as in production. Nothing is replaced.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from cbk_gateway.app import Gateway
from cbk_gateway.parties import Rate, RunAs, RunAsForm, Tenant, TenantLimits
from cbk_gateway.sandbox import Sandbox
from cbk_gateway.secret import Secret
from cbk_gateway.settings.load import load

SIGNING_KEY = "a-signing-key-for-tests-only-0123456789abcdef"
ADMIN_TOKEN = "an-operators-token-for-tests"
KEYS = {name: f"sk-{name}-" + "0123456789abcdef" * 3 for name in ("acme", "globex", "partner", "mallory")}
CHILDREN = {"partner": {"user_child1": "one@example.com", "user_child2": "two@example.com"}}
ISSUER = "cbk-gateway"
# The whole suite must pass with the hot path on, off, and verifying: TEST_HOT_PATH=off make test.
_FORCED = {"hot_path": os.environ["TEST_HOT_PATH"]} if "TEST_HOT_PATH" in os.environ else {}


def tenant(name: str, **changes: Any) -> Tenant:
    """A tenant of the harness: everything allowed, a rate no test reaches."""
    rates = TenantLimits(rates=(Rate("tenant", 100_000, 100_000),))
    made = Tenant(
        id=name, account=f"{name}-account", key=Secret(KEYS[name.split("-", maxsplit=1)[0]]), limits=rates
    )
    return dataclasses.replace(made, **changes)


def usual_tenants() -> tuple[Tenant, ...]:
    """acme may do everything; globex reads and completes, slowly; two tenants are children of partner."""
    slow = TenantLimits(rates=(Rate("tenant", 5, 10),))
    child1 = RunAs(RunAsForm.USER_ID, "user_child1")
    child2 = RunAs(RunAsForm.CHILD_EMAIL, "two@example.com")
    return (
        tenant("acme", may_bypass_cache=True),
        tenant("globex", scopes=("*:read", "conversation:complete"), limits=slow),
        tenant("partner", may_run_as=True),
        tenant("partner-one", account="partner-one", run_as=child1),
        tenant("partner-two", account="partner-two", run_as=child2),
    )


@dataclass(slots=True)
class Stage:
    """What a test talks to. `gateway` and `sandbox` are the running parts themselves."""

    gateway: Gateway
    sandbox: Sandbox
    folder: Path
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.gateway.url

    @property
    def admin_url(self) -> str:
        return self.gateway.admin_url

    def token(self, name: str = "acme", *scopes: str, subject: str = "tester", ttl_s: int = 3600) -> str:
        """A fresh token of a tenant, with everything the tenant may do unless scopes are given."""
        assert self.gateway.minter is not None
        made = self.gateway.minter.mint(name, subject, scopes or ("*",), ttl_s)
        self.tokens[f"{name}/{len(self.tokens)}"] = made
        return made

    def bearer(self, name: str = "acme", *scopes: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(name, *scopes)}"}

    @property
    def audit_directory(self) -> Path:
        return self.folder / "audit"

    def journal(self) -> list[dict[str, Any]]:
        """Every record on disk, in order."""
        files = sorted(self.audit_directory.rglob("*.jsonl"))
        return [orjson.loads(line) for file in files for line in file.read_bytes().splitlines() if line]


def settings_document(sandbox_url: str, store_url: str, **sections: Mapping[str, object]) -> dict[str, Any]:
    """A settings file's content for tests; `sections` are merged into it, one level deep."""
    document: dict[str, Any] = {
        "listen": {"port": 0, "drain_s": 2, **_FORCED},
        "admin": {"port": 0, "tokens": [{"name": "tester", "token": "env:TEST_ADMIN", "role": "admin"}]},
        "upstream": {"url": sandbox_url, "path_prefix": "/api/v1", "connect_timeout_s": 2},
        "store": {"url": store_url, "timeout_ms": 2000},
        "identity": {
            "mint": {
                "issuer": ISSUER,
                "audience": ISSUER,
                "keys": [{"kid": "k1", "alg": "HS256", "key": "env:TEST_SIGNING"}],
            }
        },
        "audit": {"directory": "audit", "reserve_bytes": 0},
        "logging": {"access": False},
    }
    for name, section in sections.items():
        document[name] = {**document.get(name, {}), **section}
    return document


@asynccontextmanager
async def running(
    folder: Path,
    store_url: str,
    *,
    tenants: tuple[Tenant, ...] | None = None,
    sandbox_url: str | None = None,
    **sections: Mapping[str, object],
) -> AsyncIterator[Stage]:
    """A running stage. `sections` change settings; `sandbox_url` puts another upstream behind the gateway."""
    accounts = {key: f"{name}-account" if name != "partner" else "partner" for name, key in KEYS.items()}
    async with Sandbox(accounts, CHILDREN) as sandbox:
        file = folder / "gateway.yaml"
        document = settings_document(sandbox_url or sandbox.url, store_url, **sections)
        file.write_text(yaml.safe_dump(document))
        loaded = load(file, environ={"TEST_SIGNING": SIGNING_KEY, "TEST_ADMIN": ADMIN_TOKEN})
        chosen = usual_tenants() if tenants is None else tenants
        async with Gateway(loaded, tenants=chosen) as gateway:
            yield Stage(gateway, sandbox, folder)
            assert_alike(gateway)


def assert_alike(gateway: Gateway) -> None:
    """Nothing was answered from its bytes otherwise than in full; known where the hot path verifies."""
    hot_path = gateway.parts.hot_path
    assert hot_path is None or hot_path.differences == 0


Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: Answering, *, limit: int = 65_536, backlog: int = 100) -> AsyncIterator[str]:
    """A server of a test's own, which answers each connection so; its URL."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=limit, backlog=backlog)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])

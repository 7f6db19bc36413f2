"""A gateway in a process of its own, with everything a production one has, for measuring from outside.

Prints one line of JSON when ready: url, pid, tokens, admin. Arguments: the upstream's port, and
`section.key=value` changes of the settings.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from cbk_gateway.app import Gateway
from cbk_gateway.cli.running import run, settle_memory, until_told
from cbk_gateway.parties import Rate, Tenant, TenantLimits
from cbk_gateway.secret import Secret
from cbk_gateway.settings.load import load
from cbk_gateway.telemetry import configure_logging

SIGNING_KEY = "x" * 32


def tenants() -> tuple[Tenant, ...]:
    """The narrow one is always stopped, the paced at times; the free has no rate, the others a wide one."""
    wide = TenantLimits(rates=(Rate("tenant", 1_000_000, 1_000_000),))
    narrow = TenantLimits(rates=(Rate("tenant", 20, 40),))
    key = Secret("sk-benchmark")
    return (
        Tenant("wide", "wide", key, limits=wide, may_bypass_cache=True),
        # An account of its own: its writes must not empty the cache of what is measured beside them.
        Tenant("writer", "writer", key, limits=wide),
        # Its reads are new each time, and must not fill the memory of the others.
        Tenant("reader", "reader", key, limits=wide, may_bypass_cache=True),
        # A rate as a customer has one: twice of what an open loop asks.
        Tenant("paced", "paced", key, limits=TenantLimits(rates=(Rate("tenant", 2000, 4000),))),
        Tenant("narrow", "narrow", key, limits=narrow),
        Tenant("free", "free", key, limits=TenantLimits(rates=()), may_bypass_cache=True),
    )


def settings(upstream_port: int, changes: list[str]) -> dict[str, Any]:
    """The settings document."""
    document: dict[str, Any] = {
        "listen": {"port": 0},
        "admin": {"port": 0},
        "upstream": {"url": f"http://127.0.0.1:{upstream_port}", "path_prefix": "/api/v1"},
        "store": {"url": "embedded"},
        "identity": {
            "mint": {
                "issuer": "bench",
                "audience": "bench",
                "keys": [{"kid": "b", "alg": "HS256", "key": "env:KEY"}],
            }
        },
        "audit": {"directory": "audit", "reserve_bytes": 0},
        "logging": {"access": False},
    }
    for change in changes:
        name, _, value = change.partition("=")
        section, _, key = name.partition(".")
        document.setdefault(section, {})[key] = yaml.safe_load(value)
    return document


def start_logs(changes: list[str]) -> None:
    """Show errors; or make a line per request, and write it where that costs no disk."""
    if "logging.access=true" in changes:
        configure_logging("info", "json", Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    else:
        configure_logging("error")


async def main(upstream_port: int, changes: list[str]) -> int:
    """Serve until told to stop."""
    with tempfile.TemporaryDirectory(prefix="cbkgw-bench-") as name:
        file = Path(name) / "gateway.yaml"
        file.write_text(yaml.safe_dump(settings(upstream_port, changes)))
        async with Gateway(load(file, environ={"KEY": SIGNING_KEY}), tenants=tenants()) as gateway:
            assert gateway.minter is not None
            tokens = {one.id: gateway.minter.mint(one.id, "bench", ("*",), 3600) for one in tenants()}
            settle_memory()
            told = {"url": gateway.url, "pid": os.getpid(), "tokens": tokens, "admin": gateway.admin_url}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            await until_told()
    return 0


if __name__ == "__main__":
    start_logs(sys.argv[2:])
    sys.exit(run(lambda: main(int(sys.argv[1]), sys.argv[2:])))

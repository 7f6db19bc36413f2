"""What tenancy costs a request, and how long a disabled tenant stays open elsewhere.

Run by hand: `python tests/benchmarks/bench_tenancy.py`. It starts a store of its own and one more process.
Figures depend on the machine; compare runs on one machine only.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from cbk_gateway.operation import understand
from cbk_gateway.parties import Principal, Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.settings.tenants import load_tenants
from cbk_gateway.store import EmbeddedServer, Store, StoreOptions, open_store
from cbk_gateway.tenancy.cipher import MasterKeys
from cbk_gateway.tenancy.credentials import Credentials
from cbk_gateway.tenancy.directory import Directory
from cbk_gateway.tenancy.key_source import KeySource
from cbk_gateway.tenancy.operations import TenantOperations
from cbk_gateway.tenancy.options import TenancyOptions
from cbk_gateway.tenancy.ownership import Ownership
from cbk_gateway.tenancy.policy import authorise
from cbk_gateway.tenancy.registry import Registry
from cbk_gateway.tenancy.scopes import ScopeSet

FETCH = understand("GET", "/v1/bot/bot_1/fetch")
PLAIN = Tenant(id="a", account="a", key=Secret("sk-1"), scopes=("*:read", "conversation/**:*", "!secret:*"))
BY_ID = Tenant(id="a", account="a", key=Secret("sk-1"), scopes=("bot[bot_*]:*", "!bot[bot_9]:*"))
ROTATING = Tenant(id="a", account="a", key=Secret("sk-1"), next_key=Secret("sk-2"))
TOKEN = Principal("a", "app", "t", "idp", ("bot:*", "dataset:read"), 0, 2**31, "f")
TOGGLES = 40


def microseconds(work: Callable[[], object], times: int = 100_000) -> float:
    """CPU of one call: the best of five rounds, since the machine is shared."""
    rounds = []
    for _ in range(5):
        begun = time.process_time()
        for _ in range(times):
            work()
        rounds.append((time.process_time() - begun) / times * 1e6)
    return min(rounds)


def show(what: str, value: float, unit: str) -> None:
    """One line of the report."""
    sys.stdout.write(f"{what:<58} {value:>10.2f} {unit}\n")


def say(line: str) -> None:
    """Tell the process that started this one."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def pure() -> None:
    """What a request pays without any I/O."""
    registry, credentials = Registry([PLAIN]), Credentials()
    keys = MasterKeys({"1": bytes(32)})
    sealed = keys.seal(Secret("sk-1"), tenant="a", name="key")
    show("registry.get", microseconds(lambda: registry.get("a")), "us")
    show("authorise, rules without ids", microseconds(lambda: authorise(TOKEN, PLAIN, FETCH)), "us")
    show("authorise, rules with ids", microseconds(lambda: authorise(TOKEN, BY_ID, FETCH)), "us")
    show(
        "scopes at first sight (3 rules)",
        microseconds(lambda: ScopeSet(PLAIN.scopes).allows(FETCH), 5000),
        "us",
    )
    show("credential_for, one key", microseconds(lambda: credentials.credential_for(PLAIN, FETCH)), "us")
    show("credential_for, rotating", microseconds(lambda: credentials.credential_for(ROTATING, FETCH)), "us")
    show("open a sealed key", microseconds(lambda: keys.open(sealed, tenant="a", name="key"), 5000), "us")


def loading(count: int = 1000) -> None:
    """Reading a large file."""
    limits = "{{rate: {{per_second: 5}}}}"
    line = "  - {{id: t{0}, account: a{0}, key: env:K{0}, scopes: ['*:read'], limits: " + limits + "}}\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tenants.yaml"
        path.write_text("tenants:\n" + "".join(line.format(number) for number in range(count)))
        environ = {f"K{number}": f"sk-{number}" for number in range(count)}
        begun = time.process_time()
        load_tenants(path, environ=environ)
        show(f"load a file of {count} tenants", (time.process_time() - begun) * 1000, "ms")


async def owning(store: Store) -> None:
    """What `isolation: objects` adds."""
    tenant = Tenant(id="a", account="a", key=Secret("sk-1"), isolation="objects")
    ownership = Ownership(store)
    await ownership.assign("a", "a", ["bot_1"])
    await ownership.check(tenant, FETCH)
    begun = time.process_time()
    for _ in range(20_000):
        await ownership.check(tenant, FETCH)
    show("ownership.check, owner remembered", (time.process_time() - begun) / 20_000 * 1e6, "us")


async def disabling(url: str) -> None:
    """From the operator's command in this process to the registry of another one."""
    async with await open_store(StoreOptions(url=url, call_timeout_s=5.0)) as store:
        await owning(store)
        tenants = (Tenant(id="a", account="a", key=Secret("sk-1")),)
        directory = Directory(Registry(), KeySource({}), tenants=tenants, store=store)
        await directory.start()
        other = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "watch", url, stdout=asyncio.subprocess.PIPE
        )
        if other.stdout is None:
            raise SystemExit(1)
        await other.stdout.readline()
        waits = []
        for turn in range(TOGGLES):
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            operations = TenantOperations(directory)
            await (operations.disable("a") if turn % 2 == 0 else operations.enable("a"))
            seen_at = float(await other.stdout.readline())
            waits.append((seen_at - begun) * 1000)
        other.kill()
        await other.communicate()
        await directory.stop()
        show(f"disable seen by another process, median of {TOGGLES}", statistics.median(waits), "ms")
        show(f"disable seen by another process, worst of {TOGGLES}", max(waits), "ms")


async def watch(url: str) -> None:
    """The other process: writes the moment (of the machine's one monotonic clock) of each change."""
    async with await open_store(StoreOptions(url=url, call_timeout_s=5.0)) as store:
        tenants = (Tenant(id="a", account="a", key=Secret("sk-1")),)
        directory = Directory(
            Registry(), KeySource({}), tenants=tenants, store=store, options=TenancyOptions()
        )
        await directory.start()
        directory.registry.subscribe(lambda _: say(str(time.monotonic())))
        say("ready")
        await asyncio.Event().wait()


def main() -> None:
    """Run all parts."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    if sys.argv[1:2] == ["watch"]:
        asyncio.run(watch(sys.argv[2]))
        return
    pure()
    loading()
    with EmbeddedServer() as server:
        asyncio.run(disabling(server.url))


if __name__ == "__main__":
    main()

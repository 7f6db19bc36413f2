"""After a life of keys and tokens: no secret with operators, in the store, in any object, in any crash."""

from __future__ import annotations

import base64
import gc
import io
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from cbk_gateway.settings import SettingsError
from cbk_gateway.settings.load import load, load_tenants_of
from cbk_gateway.store import Store
from cbk_gateway.telemetry import configure_logging, flush_logs
from fleet_stage import serving, until
from harness import ADMIN_TOKEN, KEYS, SIGNING_KEY, Stage, usual_tenants
from integration.commands_here import Command, commands
from integration.e2e_calls import bearer, get, look, post, running_with

SEALING = base64.b64encode(bytes(range(32))).decode()
FIRST = "sk-first-" + "0123456789abcdef" * 3
SECOND = "sk-second-" + "0123456789abcdef" * 3
THIRD = "sk-third-" + "0123456789abcdef" * 3
OURS = (*KEYS.values(), FIRST, SECOND, THIRD, SIGNING_KEY, ADMIN_TOKEN, SEALING)
LIST = "/api/v1/bot/list"

WAYS: dict[str, Callable[[object], str]] = {
    "repr": repr,
    "str": str,
    "JSON": lambda one: orjson.dumps(one, default=str, option=orjson.OPT_NON_STR_KEYS).decode(),
    "pickle": lambda one: pickle.dumps(one).decode("latin-1"),
}


def objects_of_the_gateway() -> Iterator[object]:
    """Everything that lives and is of a class of ours; the stand-in for the API has to know its keys."""
    for one in gc.get_objects():
        # Some classes of C have a descriptor in its place.
        home: object = type(one).__module__
        if isinstance(home, str) and home.startswith("cbk_gateway.") and ".sandbox" not in home:
            yield one


def telltales(secrets: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Classes whose objects show a secret, in which way, and its first letters."""
    found = []
    for one in objects_of_the_gateway():
        for way, show in WAYS.items():
            try:
                shown = show(one)
            except Exception:  # noqa: BLE001 - what cannot be shown in this way shows nothing
                continue
            found += [(type(one).__qualname__, way, secret[:6]) for secret in secrets if secret in shown]
    return found


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    return commands(monkeypatch, hides_log=False)


async def life_of_a_tenant(stage: Stage, command: Command) -> tuple[list[str], list[str]]:
    """What commands say and what operators are answered, and the tokens made on the way."""
    said, tokens = list[str](), list[str]()
    (stage.folder / "fresh.yaml").write_text("{id: fresh, account: fresh, scopes: ['*']}\n")

    async def run(*arguments: str, stdin: str = "") -> str:
        ran = await command(stage, *arguments, stdin=stdin)
        if arguments[:2] == ("token", "mint") and ran.code == 0:
            # The one place that shows a token: whoever asked for it has to get it.
            tokens.append(ran.out.strip())
            said.append(ran.err)
        else:
            said.append(ran.out + ran.err)
        return ran.out.strip()

    await run("tenant", "create", "fresh.yaml", "--key-from-stdin", stdin=FIRST)
    await run("tenant", "create", "fresh.yaml", "--key-from-stdin", stdin=FIRST)
    await run("token", "mint", "--tenant", "fresh", "--admin-url", stage.admin_url)
    for arguments, stdin in (
        (("tenant", "rotate", "fresh"), SECOND),
        (("tenant", "show", "fresh"), ""),
        (("tenant", "promote", "fresh"), ""),
        (("tenant", "rotate", "fresh"), THIRD),
        (("tenant", "reseal"), ""),
        (("tenant", "list"), ""),
        (("token", "inspect", "-", "-c", "gateway.yaml"), tokens[0]),
        (("token", "inspect", "-", "-c", "gateway.yaml"), SECOND),
        (("tenant", "create", FIRST), ""),
        (("tenant", "rotate", "nobody"), SECOND),
        (("token", "revoke", "--token-id", "x", "--tenant", "y"), ""),
    ):
        await run(*arguments, stdin=stdin)
        await get(stage, LIST, bearer(tokens[0]))
    await post(stage, "/api/v1/bot/create", {"name": "x"}, bearer(tokens[0]))
    for path in ("tenants", "tenants/fresh", "settings", "audit?limit=1000", "tokens/revocations"):
        said.append((await look(stage, f"/admin/{path}")).body.decode())
    for path in ("/metrics", "/readyz"):
        said.append((await look(stage, path)).body.decode())
    said += [orjson.dumps(record).decode() for record in stage.journal()]
    return said, tokens


async def in_the_store(store: Store) -> str:
    """Every key of the store with its value, as far as it has one that can be read."""
    client: Any = store.client
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"hash": client.hgetall,
        b"string": client.get,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }
    found = [repr([key, await read[await client.type(key)](key)]) for key in await client.keys("*")]
    return "\n".join(found)


async def test_no_secret_is_told_kept_or_shown(
    tmp_path: Path, valkey_url: str, store: Store, command: Command
) -> None:
    log = io.StringIO()
    configure_logging("debug", "json", log)
    environ = {"CBK_GATEWAY_MASTER_KEY": "m1:" + SEALING}
    keys = {FIRST: "fresh", SECOND: "fresh", THIRD: "fresh"}
    try:
        async with running_with(
            tmp_path, valkey_url, environ, tenants=usual_tenants(), keys=keys, tenancy={"canary_share": 1.0}
        ) as stage:
            said, tokens = await life_of_a_tenant(stage, command)
            kept = await in_the_store(store)
            # Every class, while it lives: parts, tenants, keys, remembered tokens, open connections.
            shown = telltales((*OURS, *tokens))
        flush_logs()
    finally:
        configure_logging("warning", "json", io.StringIO())
    assert shown == []
    assert "sealed:m1" in kept
    assert len(said) > 20
    everything = "\n".join([*said, kept, log.getvalue()])
    assert [secret[:6] for secret in (*OURS, *tokens) if secret in everything] == []
    # Its signature alone would make a token whole whose other parts somebody has seen.
    assert [token for token in tokens if token.rpartition(".")[2] in everything] == []


@pytest.mark.parametrize(
    "broken",
    [
        f"tenants: [{{id: a, key: {FIRST}, scopes: []}}]\n",
        f"tenants: [{{id: a, key: 'inline:{FIRST}', scopes: []}}]\n",
        f"tenants: [{{id: a, key: 'env:{FIRST}', scopes: []}}]\n",
        f"tenants: [{{id: a, keys: {FIRST}, scopes: []}}]\n",
        f"tenants: {{{FIRST}: }}\n",
    ],
    ids=["in clear", "inline", "as a name", "under another name", "as no list"],
)
def test_a_key_in_the_wrong_place_is_not_repeated(broken: str, tmp_path: Path) -> None:
    """An error with all its locals, as crash reporters write it: of what the file says, only its shape."""
    (tmp_path / "tenants.yaml").write_text(broken)
    (tmp_path / "gateway.yaml").write_text("tenants_file: tenants.yaml\n")
    with pytest.raises(SettingsError) as caught:
        load_tenants_of(load(tmp_path / "gateway.yaml", environ={"K": SECOND}))
    told = "".join(traceback.format_exception(caught.value))
    assert FIRST not in told
    assert SECOND not in told


async def test_a_crashed_worker_leaves_no_memory_and_no_secret_behind(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=1) as stage:
        ((_, pid),) = (await stage.workers()).items()
        for one in (stage.process.pid, pid):
            limits = Path(f"/proc/{one}/limits").read_text()
            (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
            assert core.split()[4] == "0"
        token = stage.bearer()["Authorization"].removeprefix("Bearer ")
        async with stage.session.get(stage.url + LIST, headers=bearer(token)) as answer:
            assert answer.status == 200
        os.kill(pid, signal.SIGABRT)

        async def is_replaced() -> bool:
            return pid not in (await stage.workers()).values() and bool(await stage.workers())

        await until(is_replaced)
        written = [repr(stage.events)]
    for file in tmp_path.rglob("*"):
        assert not file.name.startswith("core")
        if file.is_file():
            written.append(file.read_bytes().decode(errors="replace"))
    everything = "\n".join(written)
    assert len(written) > 3
    assert [secret[:6] for secret in (*OURS, token) if secret in everything] == []

"""A whole run of good, bad and broken requests; then everything written or answered is searched."""

import io
import logging
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from cbk_gateway.telemetry import configure_logging, flush_logs
from harness import ADMIN_TOKEN, KEYS, SIGNING_KEY, Stage


class _Pocket(io.StringIO):
    """A stream that is no terminal and keeps what is written."""

    def isatty(self) -> bool:
        return False


async def test_no_key_and_no_token_is_found_anywhere(
    stage: Stage, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    pocket = _Pocket()
    configure_logging("debug", "json", pocket)
    seen: list[str] = []
    tokens = [stage.token(), stage.token("globex"), stage.token("partner"), stage.token("partner-one")]
    admin = {"Authorization": f"Bearer {ADMIN_TOKEN}"}

    async def ask(method: str, url: str, token: str | None = None, **more: Any) -> None:
        if token is not None:
            more["headers"] = {"Authorization": f"Bearer {token}"}
        async with client.request(method, url, **more) as answer:
            seen.append(f"{answer.status} {dict(answer.headers)} {(await answer.read()).decode()}")

    api = f"{stage.url}/api/v1"
    for token in tokens:
        await ask("GET", f"{api}/bot/list", token)
        await ask("GET", f"{api}/bot/list?token={token}", token)
        await ask("POST", f"{api}/bot/create", token, json={"name": token})
        await ask("POST", f"{api}/secret/create", token, json={"name": "s", "value": KEYS["acme"]})
        await ask("GET", f"{api}/bot/{token}/fetch", token)
        await ask("GET", f"{api}/bot/list", token + "x")
        await ask("GET", f"{api}/bot/%00{token}/fetch", token)
    await ask("GET", f"{api}/bot/list", KEYS["acme"])
    for fault in ("drop_before", "drop_after_effect", "status", "slow_json_error"):
        stage.sandbox.add_fault("/api/v1/bot/*", fault, value=502 if fault == "status" else None, times=1)
        await ask("POST", f"{api}/bot/create", tokens[0], json={"name": "x"})
    for path in ("/metrics", "/readyz", "/healthz", "/.well-known/jwks.json", "/admin/nothing"):
        await ask("GET", stage.admin_url + path)
        await ask("GET", stage.admin_url + path, headers=admin)
    for path in ("/admin/tenants", "/admin/tenants/acme", "/admin/settings"):
        await ask("GET", stage.admin_url + path, headers=admin)
    journal_before = [orjson.dumps(record).decode() for record in stage.journal()]
    await stage.gateway.stop()
    flush_logs()
    configure_logging("warning", "json", io.StringIO())
    logging.getLogger().handlers.clear()

    files = [
        file.read_bytes().decode(errors="replace")
        for file in stage.audit_directory.rglob("*")
        if file.is_file()
    ]
    written = "\n".join([*seen, *journal_before, *files, pocket.getvalue(), repr(stage.gateway.parts)])
    assert len(journal_before) > 8
    assert "bot.create" in written
    # A name that the client itself put into an object comes back in answers; the rest must hold nothing.
    for secret in (*KEYS.values(), SIGNING_KEY, ADMIN_TOKEN):
        assert secret not in written
    own_words = "\n".join([*journal_before, *files, pocket.getvalue(), repr(stage.gateway.parts)])
    for token in tokens:
        assert token not in own_words
        assert token.rpartition(".")[2] not in own_words

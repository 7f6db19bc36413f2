"""`cbk-gateway sandbox`: run the stand-in API by itself."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cbk_gateway.cli.output import USAGE, CommandFault
from cbk_gateway.cli.running import run, until_told
from cbk_gateway.sandbox import Sandbox


def sandbox(
    *,
    host: str = "127.0.0.1",
    port: int = 8081,
    account: Annotated[list[str] | None, Parameter(negative="")] = None,
    data: Path | None = None,
    seed: bool = True,
    with_parent: Annotated[bool, Parameter(show=False)] = False,
) -> int:
    """Run a stand-in of the ChatBotKit API, for development without an account or a network.

    Example: `cbk-gateway sandbox --port 8081 --account sk-local=me --data chatbotkit.db`

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        account: A secret key and the account it opens, as KEY=NAME; may be repeated. By default
            `sk-sandbox` opens the account `sandbox`. Without KEY, the key is read from the variable
            CBK_SANDBOX_KEY_NAME.
        data: SQLite file that keeps the data; without it everything is forgotten at the end.
        seed: Give each empty account a few example resources.
        with_parent: End when standard input ends, for a parent process that must leave nothing behind.
    """
    accounts = dict(_account(text) for text in account or ["sk-sandbox=sandbox"])

    async def main() -> None:
        async with Sandbox(accounts, host=host, port=port, data=data, seed=seed) as running:
            sys.stdout.write(f"sandbox ready at {running.url}\n")
            sys.stdout.flush()
            await (_until_parent_is_gone() if with_parent else until_told())

    run(main)
    return 0


def _account(text: str) -> tuple[str, str]:
    key, _, name = text.rpartition("=")
    if not key:
        # A key on a command line can be read by every user of the machine; a variable cannot.
        key = os.environ.get(f"CBK_SANDBOX_KEY_{name.upper()}", "")
    if not key or not name:
        raise CommandFault("An account is given as KEY=NAME, such as sk-local=me.", USAGE)
    return key, name


async def _until_parent_is_gone() -> None:
    """A pipe ends when its writer does, however that died."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)

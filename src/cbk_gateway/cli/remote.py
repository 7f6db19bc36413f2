"""Talking to a running gateway's operators' port: what the commands with `--admin-url` have in common."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

import aiohttp
import orjson
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from cbk_gateway.cli.output import RUNTIME, USAGE, CommandFault
from cbk_gateway.cli.running import run

TOKEN_VARIABLE = "CBK_GATEWAY_ADMIN_TOKEN"  # noqa: S105 - the name of a variable
TIMEOUT_S = 30.0


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Remote:
    """Where the operators' port is.

    The token is read from CBK_GATEWAY_ADMIN_TOKEN, since arguments can be read by every user of a machine.
    """

    admin_url: Annotated[str, Parameter(env_var="CBK_GATEWAY_ADMIN_URL")] = "http://127.0.0.1:9090"
    """Base URL of the operators' port; CBK_GATEWAY_ADMIN_URL when not given."""


def get(remote: Remote, path: str, **query: str | None) -> Any:  # noqa: ANN401 - a JSON document
    """Ask for a document."""
    given = {name: value for name, value in query.items() if value is not None}
    return run(lambda: _asked(remote, "GET", path + (f"?{urlencode(given)}" if given else ""), None))


def post(remote: Remote, path: str, body: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401 - likewise
    """Make a change."""
    return run(lambda: _asked(remote, "POST", path, body or {}))


def show(document: object) -> int:
    """Print a document."""
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")
    return 0


def show_table(items: list[Mapping[str, object]], *columns: str) -> int:
    """Print documents as a table of some of their members."""
    table = Table(*columns)
    for item in items:
        table.add_row(*(_cell(item.get(column)) for column in columns))
    Console().print(table)
    return 0


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


async def _asked(remote: Remote, method: str, path: str, body: object) -> Any:  # noqa: ANN401 - as above
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise CommandFault(f"Set {TOKEN_VARIABLE} to a token of the operators' port.", USAGE)
    headers = {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.request(method, remote.admin_url.rstrip("/") + path, json=body) as answer,
        ):
            document = orjson.loads(await answer.read())
    except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError, ValueError) as fault:
        raise CommandFault(f"No gateway answers at {remote.admin_url} ({type(fault).__name__}).") from None
    if answer.status >= 400:
        raise CommandFault(f"{document.get('message')} ({answer.status} {document.get('code')})", RUNTIME)
    return document

"""`cbk-gateway explain`: what a request is, and what would happen to it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
from cyclopts import Parameter

from cbk_gateway.cli.output import USAGE, CommandFault
from cbk_gateway.explaining import EVERYBODY, explained
from cbk_gateway.settings.load import load, tenants_without_keys


def explain(
    method: str,
    path: str,
    *,
    tenant: str | None = None,
    scope: Annotated[list[str] | None, Parameter(negative="")] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Say what operation a request is, who may do it, which limits and cache rules apply, what it changes.

    Example: `cbk-gateway explain POST /api/v1/bot/bot_1/update --tenant acme --config config/gateway.yaml`

    Args:
        method: GET or POST.
        path: Path of the request, with its query if it has one.
        tenant: Whose rights and limits to look at; `*` tells of everybody whether they may.
        scope: What a token of theirs may do; may be repeated. Without it tokens are left out.
        config: The settings file; needed for a tenant.
    """
    loaded = load(config)
    tenants = tenants_without_keys(loaded) if tenant is not None else ()
    chosen = next((one for one in tenants if one.id == tenant), None)
    if chosen is None and tenant not in {None, EVERYBODY}:
        raise CommandFault(f"There is no tenant {tenant!r} in {loaded.settings.tenants_file}.", USAGE)
    everybody = tenants if tenant == EVERYBODY else ()
    document = explained(method, path, chosen, loaded.settings.cache, scopes=scope, everybody=everybody)
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    return 0

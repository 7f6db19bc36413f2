"""`cbk-gateway token`: make tokens and look into them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
from cyclopts import App, Parameter

from cbk_gateway import assembly
from cbk_gateway.cli.output import CONFIGURATION, USAGE, CommandFault
from cbk_gateway.identity import Identity
from cbk_gateway.settings.load import load, load_tenants_of

app = App(name="token", help="Mint and inspect tenants' tokens.")

Config = Annotated[Path | None, Parameter(name=["--config", "-c"])]


@app.command
def mint(
    *,
    tenant: str,
    subject: str = "app",
    scope: Annotated[list[str] | None, Parameter(negative="")] = None,
    ttl: int = 3600,
    config: Config = None,
) -> int:
    """Print a new token, signed with the first key of `identity.mint`.

    Example: `cbk-gateway token mint --tenant acme --subject web --scope "bot:*" --scope "*:read" --ttl 3600`

    Args:
        tenant: Id of the tenant the token speaks for.
        subject: The app or user it is for.
        scope: What it may do; may be repeated. Everything the tenant may, by default.
        ttl: Seconds until it expires.
        config: The settings file.
    """
    loaded = load(config)
    minter = assembly.minter(loaded)
    if minter is None:
        raise CommandFault(
            "The settings have no `identity.mint`, so this gateway signs no tokens.", CONFIGURATION
        )
    if tenant not in {one.id for one in load_tenants_of(loaded)}:
        raise CommandFault(f"There is no tenant {tenant!r} in {loaded.settings.tenants_file}.", USAGE)
    try:
        text = minter.mint(tenant, subject, scope or ["*"], ttl)
    except ValueError as fault:
        raise CommandFault(f"The token cannot be minted: {fault}.", USAGE) from None
    sys.stdout.write(text + "\n")
    return 0


@app.command
def inspect(token: str, *, config: Config = None) -> int:
    """Show what a token says and what each issuer would make of it. `-` reads it from standard input.

    Example: `cbk-gateway token inspect - --config config/gateway.yaml < token.txt`

    Args:
        token: The token, or `-`. Prefer `-`: arguments can be read by every user of the machine.
        config: The settings file.
    """
    loaded = load(config)
    text = sys.stdin.read() if token == "-" else token  # noqa: S105 - the conventional name of standard input
    identity = Identity(assembly.identity_options(loaded, assembly.minter(loaded)), None)
    facts = identity.inspect(text.strip())
    sys.stdout.write(orjson.dumps(asdict(facts), option=orjson.OPT_INDENT_2, default=str).decode() + "\n")
    return 0

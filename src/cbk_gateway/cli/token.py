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
from cbk_gateway.cli.remote import Remote, get, post, show
from cbk_gateway.identity import Identity
from cbk_gateway.settings.load import load, tenants_without_keys

app = App(name="token", help="Mint, inspect and revoke tenants' tokens.")

HERE = Remote()

Config = Annotated[Path | None, Parameter(name=["--config", "-c"])]


@app.command
def mint(
    *,
    tenant: str,
    subject: str = "app",
    scope: Annotated[list[str] | None, Parameter(negative="")] = None,
    ttl: int = 3600,
    admin_url: str | None = None,
    config: Config = None,
) -> int:
    """Print a new token, signed here with the first key of `identity.mint`, or by a running gateway.

    A token that is signed here stands in no journal. With `--admin-url` the gateway there signs it, journals
    who asked, and knows the tenants created at run time. The token's id is told on stderr, to revoke it by.

    Example: `cbk-gateway token mint --tenant acme --subject web --scope "bot:*" --scope "*:read" --ttl 3600`

    Args:
        tenant: Id of the tenant the token speaks for.
        subject: The app or user it is for.
        scope: What it may do; may be repeated. Everything the tenant may, by default.
        ttl: Seconds until it expires.
        admin_url: Base URL of the operators' port of the gateway that is to sign it.
        config: The settings file, to sign it here.
    """
    if admin_url is not None:
        asked = {"tenant": tenant, "subject": subject, "scopes": scope or ["*"], "ttl_s": ttl}
        made = post(Remote(admin_url), "/admin/tokens/mint", asked)
        sys.stderr.write(f"Token {made['token_id']}, in the gateway's journal.\n")
        sys.stdout.write(made["token"] + "\n")
        return 0
    loaded = load(config)
    minter = assembly.minter(loaded)
    if minter is None:
        raise CommandFault(
            "The settings have no `identity.mint`, so this gateway signs no tokens.", CONFIGURATION
        )
    if tenant not in {one.id for one in tenants_without_keys(loaded)}:
        message = f"There is no tenant {tenant!r} in {loaded.settings.tenants_file}."
        raise CommandFault(f"{message} One created at run time needs --admin-url.", USAGE)
    try:
        minted = minter.issue(tenant, subject, scope or ["*"], ttl)
    except ValueError as fault:
        raise CommandFault(f"The token cannot be minted: {fault}.", USAGE) from None
    sys.stderr.write(f"Token {minted.token_id}, signed here: it is in no journal.\n")
    sys.stdout.write(minted.token.reveal() + "\n")
    return 0


@app.command
def revoke(
    *,
    token_id: str | None = None,
    tenant: str | None = None,
    subject: str | None = None,
    issued_before: int | None = None,
    note: str = "",
    remote: Remote = HERE,
) -> int:
    """Revoke tokens of a running gateway: one, a subject's, a tenant's, or all issued before a time.

    Example: `cbk-gateway token revoke --tenant acme --subject web --note "lost laptop"`

    Args:
        token_id: The token's `jti`.
        tenant: All tokens of this tenant, or with `--subject` of that subject only.
        subject: All tokens of this subject of the tenant.
        issued_before: Only tokens issued before this epoch second.
        note: Why, for whoever reads the list.
    """
    asked = {"token_id": token_id, "tenant": tenant, "subject": subject, "issued_before": issued_before}
    return show(post(remote, "/admin/tokens/revoke", {**asked, "note": note}))


@app.command
def revocations(*, remote: Remote = HERE) -> int:
    """List the revocations in force.

    Example: `cbk-gateway token revocations`
    """
    return show(get(remote, "/admin/tokens/revocations"))


@app.command
def lift(revocation: str, *, remote: Remote = HERE) -> int:
    """Take a revocation back.

    Example: `cbk-gateway token lift tenant-0123456789abcdef`

    Args:
        revocation: Its id, from the list.
    """
    return show(post(remote, "/admin/tokens/lift", {"id": revocation}))


@app.command
def inspect(token: Annotated[str, Parameter(allow_leading_hyphen=True)], *, config: Config = None) -> int:
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

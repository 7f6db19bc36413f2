"""`cbk-gateway tenant`: the tenants of a running gateway, and their upstream keys."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from cyclopts import App

from cbk_gateway.cli.output import USAGE, CommandFault
from cbk_gateway.cli.remote import Remote, get, post, show, show_table

app = App(name="tenant", help="List, create, disable and delete tenants; rotate their upstream keys.")

HERE = Remote()


@app.command(name="list")
def list_tenants(*, remote: Remote = HERE) -> int:
    """List the tenants.

    Example: `cbk-gateway tenant list`
    """
    return show_table(get(remote, "/admin/tenants")["items"], "id", "account", "scopes", "disabled")


@app.command
def create(definition: Path, *, key_from_stdin: bool = False, remote: Remote = HERE) -> int:
    """Create a tenant in the store, from a YAML file with one tenant as in `tenants.yaml`.

    Example: `cbk-gateway tenant create acme.yaml --key-from-stdin < acme.key`

    Args:
        definition: The file.
        key_from_stdin: Read the upstream secret key from standard input, to be sealed under the master key.
    """
    try:
        document = yaml.safe_load(definition.read_text())
    except yaml.YAMLError as fault:
        raise CommandFault(f"{definition} is not YAML: {' '.join(str(fault).split())}.", USAGE) from None
    key = sys.stdin.read().strip() if key_from_stdin else None
    return show(post(remote, "/admin/tenants", {"definition": document, "key": key}))


@app.command
def rotate(tenant: str, *, expires_at: int | None = None, remote: Remote = HERE) -> int:
    """Begin a rotation: read the next upstream key from standard input. A share of safe GETs tries it first.

    Example: `cbk-gateway tenant rotate acme < acme.next.key`

    Args:
        tenant: Its id.
        expires_at: When that key stops working, in epoch seconds, to be warned in time.
    """
    key = {"key": sys.stdin.read().strip(), "expires_at": expires_at}
    return show(post(remote, f"/admin/tenants/{quote(tenant, safe='')}/key/rotate", key))


@app.command
def reseal(*, remote: Remote = HERE) -> int:
    """Seal stored keys again under the first master key, so that older ones can be taken out.

    Example: `cbk-gateway tenant reseal`
    """
    return show(post(remote, "/admin/keys/reseal"))


def _on_tenant(name: str, says: str, ask: Callable[[Remote, str], Any], path: str = "") -> None:
    """Make a command that asks one thing about one tenant; `path` stands below the tenant's own."""

    def command(tenant: str, *, remote: Remote = HERE) -> int:
        return show(ask(remote, f"/admin/tenants/{quote(tenant, safe='')}{path}"))

    example = f"Example: `cbk-gateway tenant {name} acme`"
    command.__doc__ = f"{says}\n\n{example}\n\nArgs:\n    tenant: Its id."
    app.command(command, name=name)


_on_tenant("show", "Show one tenant, without its keys.", get)
_on_tenant("disable", "Refuse everything a tenant asks, in every process within a second.", post, "/disable")
_on_tenant("enable", "Take a disabling back.", post, "/enable")
_on_tenant("delete", "Remove a tenant that was created at run time.", post, "/delete")
_on_tenant("promote", "End a rotation: the next key becomes the current one.", post, "/key/promote")
_on_tenant("drop", "Give a rotation up: the next key is forgotten.", post, "/key/drop")

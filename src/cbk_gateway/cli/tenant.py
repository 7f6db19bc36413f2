"""`cbk-gateway tenant`: the tenants of a running gateway, and their upstream keys."""

from __future__ import annotations

import sys
from pathlib import Path

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


@app.command(name="show")
def show_tenant(tenant: str, *, remote: Remote = HERE) -> int:
    """Show one tenant, without its keys.

    Example: `cbk-gateway tenant show acme`

    Args:
        tenant: Its id.
    """
    return show(get(remote, f"/admin/tenants/{tenant}"))


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
def disable(tenant: str, *, remote: Remote = HERE) -> int:
    """Refuse everything a tenant asks, in every process within a second.

    Example: `cbk-gateway tenant disable acme`

    Args:
        tenant: Its id.
    """
    return show(post(remote, f"/admin/tenants/{tenant}/disable"))


@app.command
def enable(tenant: str, *, remote: Remote = HERE) -> int:
    """Take a disabling back.

    Example: `cbk-gateway tenant enable acme`

    Args:
        tenant: Its id.
    """
    return show(post(remote, f"/admin/tenants/{tenant}/enable"))


@app.command
def delete(tenant: str, *, remote: Remote = HERE) -> int:
    """Remove a tenant that was created at run time.

    Example: `cbk-gateway tenant delete acme`

    Args:
        tenant: Its id.
    """
    return show(post(remote, f"/admin/tenants/{tenant}/delete"))


@app.command
def rotate(tenant: str, *, remote: Remote = HERE) -> int:
    """Begin a rotation: read the next upstream key from standard input. A share of safe GETs tries it first.

    Example: `cbk-gateway tenant rotate acme < acme.next.key`

    Args:
        tenant: Its id.
    """
    return show(post(remote, f"/admin/tenants/{tenant}/key/rotate", {"key": sys.stdin.read().strip()}))


@app.command
def promote(tenant: str, *, remote: Remote = HERE) -> int:
    """End a rotation: the next key becomes the current one.

    Example: `cbk-gateway tenant promote acme`

    Args:
        tenant: Its id.
    """
    return show(post(remote, f"/admin/tenants/{tenant}/key/promote"))


@app.command
def drop(tenant: str, *, remote: Remote = HERE) -> int:
    """Give a rotation up: the next key is forgotten.

    Example: `cbk-gateway tenant drop acme`

    Args:
        tenant: Its id.
    """
    return show(post(remote, f"/admin/tenants/{tenant}/key/drop"))

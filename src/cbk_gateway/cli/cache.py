"""`cbk-gateway cache`: what a running gateway remembers."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from cbk_gateway.cli.remote import Remote, get, post, show

app = App(name="cache", help="Show and purge remembered answers of a running gateway.")

HERE = Remote()


@app.command(name="show")
def show_cache(
    account: str,
    *,
    type_: Annotated[str | None, Parameter(name="--type")] = None,
    id_: Annotated[str | None, Parameter(name="--id")] = None,
    remote: Remote = HERE,
) -> int:
    """Show what is remembered of an upstream account.

    Example: `cbk-gateway cache show acme --type bot`

    Args:
        account: The account.
        type_: Only this resource type.
        id_: Only answers that name this id, in their path, query or body.
    """
    return show(get(remote, "/admin/cache", account=account, type=type_, id=id_))


@app.command
def purge(
    account: str,
    *,
    type_: Annotated[list[str] | None, Parameter(name="--type", negative="")] = None,
    id_: Annotated[str | None, Parameter(name="--id")] = None,
    remote: Remote = HERE,
) -> int:
    """Forget an account's answers, in every worker and in the store.

    Example: `cbk-gateway cache purge acme --type bot --id bot_1`

    Args:
        account: The account.
        type_: Only answers that depend on these resource types; everything by default.
        id_: Only answers of these types that name this id, in their path, query or body; all others stay.
    """
    return show(post(remote, "/admin/cache/purge", {"account": account, "types": type_ or [], "id": id_}))

"""`cbk-gateway limit` and `cbk-gateway quota`: what tenants have left, and giving them more."""

from __future__ import annotations

from cyclopts import App

from cbk_gateway.cli.remote import Remote, get, post, show, show_table

limit = App(name="limit", help="Show and reset rates of a running gateway.")
quota = App(name="quota", help="Show, grant and reset quotas of a running gateway.")

HERE = Remote()


@limit.command(name="show")
def show_limit(tenant: str, *, remote: Remote = HERE) -> int:
    """Show a tenant's rates, quotas and open requests as they stand.

    Example: `cbk-gateway limit show acme`

    Args:
        tenant: Its id.
    """
    return show(get(remote, f"/admin/limits/{tenant}"))


@limit.command(name="reset")
def reset_limit(
    tenant: str,
    *,
    policy: str | None = None,
    subject: str | None = None,
    account: bool = False,
    overall: bool = False,
    remote: Remote = HERE,
) -> int:
    """Fill a tenant's buckets.

    Example: `cbk-gateway limit reset acme --policy tenant --subject alice`

    Args:
        tenant: Its id.
        policy: One rate; all of them by default.
        subject: Fill also the bucket of this token subject.
        account: Fill also the bucket that all tenants of its upstream account share.
        overall: Fill also the bucket over everybody.
    """
    which = {"policy": policy, "subject": subject, "account": account, "overall": overall}
    return show(post(remote, f"/admin/limits/{tenant}/reset", which))


@quota.command(name="show")
def show_quota(tenant: str, *, remote: Remote = HERE) -> int:
    """Show what a tenant has used of its quotas.

    Example: `cbk-gateway quota show acme`

    Args:
        tenant: Its id.
    """
    quotas = get(remote, f"/admin/limits/{tenant}")["quotas"]
    return show_table(quotas, "policy", "measure", "period", "used", "limit", "resets_at")


@quota.command
def grant(tenant: str, quota_name: str, amount: int, *, remote: Remote = HERE) -> int:
    """Let a tenant use more of a quota in its present period.

    Example: `cbk-gateway quota grant acme tokens-month 50000`

    Args:
        tenant: Its id.
        quota_name: The quota.
        amount: How much more.
    """
    return show(post(remote, f"/admin/quotas/{tenant}/grant", {"quota": quota_name, "amount": amount}))


@quota.command(name="reset")
def reset_quota(tenant: str, quota_name: str, *, remote: Remote = HERE) -> int:
    """Forget what a tenant has used of a quota in its present period.

    Example: `cbk-gateway quota reset acme tokens-month`

    Args:
        tenant: Its id.
        quota_name: The quota.
    """
    return show(post(remote, f"/admin/quotas/{tenant}/reset", {"quota": quota_name}))

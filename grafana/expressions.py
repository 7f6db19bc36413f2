"""The PromQL that several dashboards have in common: selectors by their variables, rates and sums."""

from __future__ import annotations

from typing import Final

I: Final = '{instance=~"$instance"}'  # noqa: E741 - short, for it stands in every expression
IT: Final = '{instance=~"$instance", tenant=~"$tenant"}'
RT: Final = '{instance=~"$instance", tenant=~"$tenant", resource=~"$resource"}'


def narrowed(selector: str, condition: str) -> str:
    """A selector with one condition more."""
    return f"{selector[:-1]}, {condition}}}"


def rate(metric: str, by: str, selector: str = I) -> str:
    """How fast a counter grows, by these labels."""
    return f"sum by ({by}) ({_growth(metric, selector)})"


def total(metric: str, selector: str = I) -> str:
    """How fast a counter grows, over all its series."""
    return f"sum({_growth(metric, selector)})"


def _growth(metric: str, selector: str) -> str:
    return f"rate({metric}{selector}[$__rate_interval])"

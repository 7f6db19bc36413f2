"""`cbk-gateway config diff`: what a reload would change, before it is asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cbk_gateway.assembly import validate
from cbk_gateway.cli.output import CHECK_FAILED, CONFIGURATION, complain
from cbk_gateway.cli.remote import Remote, get
from cbk_gateway.settings.load import load
from cbk_gateway.supervisor.changes import Change, differences, document_of, hidden


def diff(
    against: Annotated[Path | None, Parameter(show_default=False)] = None,
    *,
    config: Annotated[Path, Parameter(name=["--config", "-c"])],
    remote: Remote | None = None,
) -> int:
    """Print which settings differ, without secrets: exit code 0 when none does, 1 otherwise.

    Example: `cbk-gateway config diff --config new.yaml --admin-url http://127.0.0.1:9090`

    Example: `cbk-gateway config diff old.yaml --config new.yaml`

    Args:
        against: The settings file to compare with; a running gateway when not given.
        config: The new settings file. It is checked whole first.
    """
    problems = validate(config).problems
    for problem in problems:
        complain(str(problem))
    if problems:
        return CONFIGURATION
    after = hidden(document_of(load(config).settings))
    before = (
        hidden(document_of(load(against).settings))
        if against is not None
        else get(remote or Remote(), "/admin/settings")
    )
    return told(differences(before, after))


def told(changes: list[Change]) -> int:
    """Print the changes, one line each; the exit code."""
    for change in changes:
        sys.stdout.write(f"{change}\n")
    return CHECK_FAILED if changes else 0

"""`cbk-gateway config`: settings without a running gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
from cyclopts import App, Parameter
from rich.console import Console

from cbk_gateway.assembly import validate
from cbk_gateway.cli.config_diff import diff
from cbk_gateway.cli.output import CONFIGURATION
from cbk_gateway.settings.gateway import schema

app = App(name="config", help="Check settings, compare them, and show what they may hold.")
app.command(diff)


@app.command
def check(config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None) -> int:
    """Validate settings and tenants without starting anything; list every problem and every risk.

    Example: `cbk-gateway config check --config config/gateway.yaml`

    Args:
        config: The settings file; without one the defaults and `CBK_GATEWAY_*` variables stand.
    """
    report = validate(config)
    errors, console = Console(stderr=True, soft_wrap=True), Console(soft_wrap=True)
    for problem in report.problems:
        errors.print(f"[red]problem[/red] {_escaped(str(problem))}", highlight=False)
    for warning in report.warnings:
        errors.print(f"[yellow]warning[/yellow] {_escaped(str(warning))}", highlight=False)
    if report.problems:
        return CONFIGURATION
    console.print(
        f"{config or 'environment'} is valid, with {len(report.warnings)} warnings.", highlight=False
    )
    return 0


@app.command(name="schema")
def show_schema() -> int:
    """Print the JSON schema of the settings file, for editors.

    Example: `cbk-gateway config schema > gateway.schema.json`
    """
    Console(soft_wrap=True).print(
        orjson.dumps(schema(), option=orjson.OPT_INDENT_2).decode(), highlight=False, markup=False
    )
    return 0


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")

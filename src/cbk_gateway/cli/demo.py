"""`cbk-gateway demo`: everything on one machine, with no account and nothing to install."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from cbk_gateway.cli.output import CHECK_FAILED
from cbk_gateway.cli.running import run, settle_memory, until_told
from cbk_gateway.demo.poster import show_stage, show_step
from cbk_gateway.demo.stage import Ports, Stage, remove_environment, set_up, write_environment
from cbk_gateway.demo.tour import Tour
from cbk_gateway.telemetry import configure_logging, flush_logs


def demo(
    *,
    check: Annotated[bool, Parameter(negative="")] = False,
    env_file: Path | None = None,
    unlimited: Annotated[bool, Parameter(negative="")] = False,
    port: int = 8080,
    admin_port: int = 9090,
    sandbox_port: int = 8081,
) -> int:
    """Run a gateway in front of a stand-in of the ChatBotKit API until Ctrl-C.

    Example: `cbk-gateway demo --port 8080`

    Args:
        check: Take a tour through the gateway, print each step, and exit 0 only if all held.
        env_file: Write URLs, tokens and the journal's folder as shell variables here once ready; the file
            is removed at the end.
        unlimited: Lift the tenants' rates, for measuring.
        port: Port of the API; 0 takes a free one.
        admin_port: Port of health, metrics and administration.
        sandbox_port: Port of the stand-in API.
    """
    configure_logging("warning")
    ports = Ports(port, admin_port, sandbox_port)

    async def main() -> int:
        async with set_up(ports, unlimited=unlimited) as stage:
            if env_file is not None:
                write_environment(stage, env_file)
            try:
                return await (_tour(stage) if check else _hold(stage))
            finally:
                if env_file is not None:
                    remove_environment(env_file)

    try:
        return run(main)
    finally:
        flush_logs()


async def _hold(stage: Stage) -> int:
    show_stage(stage, Console())
    settle_memory()
    await until_told()
    return 0


async def _tour(stage: Stage) -> int:
    console = Console()
    all_held = True
    async for step in Tour(stage).steps():
        show_step(step, console)
        all_held = all_held and step.held
    console.print("all held" if all_held else "not all held")
    return 0 if all_held else CHECK_FAILED

"""`cbk-gateway serve`: run a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cbk_gateway.app import Gateway
from cbk_gateway.cli.running import run, until_told
from cbk_gateway.settings.load import load
from cbk_gateway.telemetry import configure_logging, flush_logs


def serve(config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None) -> int:
    """Run a gateway until SIGINT or SIGTERM, then let open requests finish.

    Example: `cbk-gateway serve --config config/gateway.yaml`

    Args:
        config: The settings file; without one the defaults and `CBK_GATEWAY_*` variables stand.
    """
    loaded = load(config)
    configure_logging(loaded.settings.logging.level, loaded.settings.logging.form)

    async def main() -> None:
        async with Gateway(loaded):
            await until_told()

    try:
        run(main)
    finally:
        flush_logs()
    return 0

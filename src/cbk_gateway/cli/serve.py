"""`cbk-gateway serve`: run a gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from cbk_gateway.running import forbid_core_dumps, run
from cbk_gateway.settings.load import load
from cbk_gateway.supervisor.notify import ServiceManager
from cbk_gateway.supervisor.supervisor import Supervisor
from cbk_gateway.telemetry import configure_logging, flush_logs


def serve(
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    *,
    workers: Annotated[int | None, Parameter(validator=Number(gte=1, lte=256))] = None,
) -> int:
    """Run a gateway until SIGINT or SIGTERM, then let open requests finish.

    SIGHUP reads settings and tenants again: what cannot be used changes nothing, changed tenants apply at
    once, changed settings roll through the workers one by one. SIGUSR2 rolls the workers onto newly installed
    code.

    Example: `cbk-gateway serve --config config/gateway.yaml --workers 4`

    Args:
        config: The settings file; without one the defaults and `CBK_GATEWAY_*` variables stand.
        workers: How many worker processes; `workers` of the settings when not given.
    """
    forbid_core_dumps()
    loaded = load(config)
    configure_logging(loaded.settings.logging.level, loaded.settings.logging.form)
    try:
        run(lambda: _supervised(config, workers))
    finally:
        flush_logs()
    return 0


async def _supervised(config: Path | None, workers: int | None) -> None:
    await Supervisor(config, workers, ServiceManager(os.environ)).run()

"""Logging belongs to the process: every test leaves it as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from cbk_gateway.telemetry import logs


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    configured = logs._Loggings.current
    if configured is not None:
        configured.drain.close()
    logs._Loggings.current = None
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()

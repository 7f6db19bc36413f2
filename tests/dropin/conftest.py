"""Fixtures of the drop-in suites: the SDK's packages, and the two doors to the API."""

from __future__ import annotations

import os

import pytest

from dropin import scripts
from dropin.doors import Door, Way
from harness import Stage


@pytest.fixture(scope="session")
def sdk() -> None:
    """The official SDK, installed. Without Node.js: skipped with a reason, but never silently in CI."""
    reason = scripts.missing_program()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    if reason is not None:
        pytest.skip(reason)
    scripts.install()


@pytest.fixture(params=list(Way), ids=str)
def door(request: pytest.FixtureRequest, stage: Stage) -> Door:
    """Each test runs at the API itself first, which proves that it asks for nothing special."""
    return Door(request.param, stage)


@pytest.fixture
def gateway(stage: Stage) -> Door:
    """The gateway's door only."""
    return Door(Way.GATEWAY, stage)

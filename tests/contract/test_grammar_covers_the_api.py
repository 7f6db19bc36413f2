"""The table against the paths and parameter names of the API's public description."""

import re
from pathlib import Path

import pytest

from cbk_gateway.operation import OTHER, TYPE_NAMES, Effect, canonical, routes, understand

PATHS = [
    tuple(line.split())
    for line in (Path(__file__).parent / "openapi_paths.txt").read_text().splitlines()
    if line
]


@pytest.mark.parametrize(("method", "template"), PATHS, ids=[f"{m}{p}" for m, p in PATHS])
def test_every_described_path_is_known_with_its_parameters(method: str, template: str) -> None:
    names = re.findall(r"\{(\w+)\}", template)
    target = "/api/v1" + re.sub(r"\{(\w+)\}", r"the-\1", template)

    operation = understand(method.upper(), target)

    assert operation.action != OTHER
    assert operation.ids == tuple(f"the-{name}" for name in names)
    assert operation.route.params == tuple(names)
    assert operation.path == target.removeprefix("/api/v1")


def test_the_description_is_not_empty() -> None:
    assert len(PATHS) > 300


def test_every_invalidated_and_read_type_exists() -> None:
    names = {canonical(name) for name in TYPE_NAMES} | {"*", OTHER}
    for route in routes():
        assert route.invalidates <= names, route
        assert route.reads <= names, route


def test_only_reads_leave_everything_as_it_is() -> None:
    for route in routes():
        if route.effect is not Effect.WRITE:
            assert not route.invalidates, route
        elif route.resource != "space/storage":
            assert route.invalidates, route

"""The settings as a whole: documented, complete in the example file, and none of them a dead letter."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import orjson
import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cbk_gateway.settings.gateway import GatewaySettings, schema

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src" / "cbk_gateway"
EXAMPLE = ROOT / "config" / "gateway.yaml"


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections an annotation holds, seen through options, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None or isinstance(annotation, UnionType) or annotation is Union:
        for argument in get_args(annotation):
            yield from models_in(argument)


def fields_of(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of a section and of those below it, with its dotted path."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}", field
        for below in models_in(field.annotation):
            yield from fields_of(below, f"{path}{name}.")


FIELDS = dict(fields_of(GatewaySettings))


def attributes_read() -> set[str]:
    """Names of all attributes that code outside the settings reads."""
    found: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        if "settings" in file.relative_to(SOURCE).parts or "sandbox" in file.parts:
            continue
        tree = ast.parse(file.read_text())
        found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return found


@pytest.mark.parametrize("path", FIELDS)
def test_every_key_says_what_it_does(path: str) -> None:
    description = FIELDS[path].description or ""
    assert description.endswith("."), path


def test_every_key_is_read_by_the_gateway() -> None:
    read = attributes_read()
    assert not [path for path in FIELDS if path.rpartition(".")[2] not in read]


OPTIONAL_BLOCKS = (
    # Each is shown by one line of the file, whatever keys it has.
    *("listen.tls.", "admin.tls.", "tenancy.vault.", "audit.sinks.", "upstream.timeouts."),
    *("limits.overall.", "limits.accounts."),
    # Other ways to say what the file says already.
    *("admin.tls", "identity.issuers.discovery", "identity.issuers.keys"),
)


@pytest.mark.parametrize("path", [path for path in FIELDS if not path.startswith(OPTIONAL_BLOCKS)])
def test_every_key_stands_in_the_example(path: str) -> None:
    name = path.rpartition(".")[2]
    assert f"{name}:" in EXAMPLE.read_text(), path


def test_what_the_example_calls_a_default_is_the_default() -> None:
    written = yaml.safe_load(EXAMPLE.read_text())
    defaults = GatewaySettings().model_dump(mode="json")
    chosen = {"admin": {"tokens"}, "identity": {"issuers", "mint"}}
    for section, keys in written.items():
        if not isinstance(keys, dict):
            assert defaults[section] == keys, section
            continue
        for key, value in keys.items():
            if key in chosen.get(section, set()) or (section, key) == ("audit", "sinks"):
                continue
            expected = defaults[section][key]
            if isinstance(value, dict):
                assert {name: expected[name] for name in value} == value, (section, key)
            else:
                assert expected == value, (section, key)


def test_every_section_stands_in_the_example() -> None:
    assert set(yaml.safe_load(EXAMPLE.read_text())) == set(GatewaySettings.model_fields)


def test_the_shipped_schema_is_that_of_the_settings() -> None:
    shipped = orjson.loads((ROOT / "config" / "gateway.schema.json").read_bytes())
    assert shipped == schema(), "run: cbk-gateway config schema > config/gateway.schema.json"


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CBK_GATEWAY_UPSTREAM__RETRY__MAX_ATTEMPTS", "7")
    assert GatewaySettings.model_validate({"upstream": {"retry": {"max_attempts": 2}}}).upstream.retry == (
        GatewaySettings().upstream.retry.model_copy(update={"max_attempts": 7})
    )

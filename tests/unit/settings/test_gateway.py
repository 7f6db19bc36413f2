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


def holders_of() -> dict[str, set[str]]:
    """By class of settings, the names of the keys that hold one, a list or a mapping of them."""
    found: dict[str, set[str]] = {}

    def enter(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            for below in models_in(field.annotation):
                found.setdefault(below.__name__, set()).add(name)
                enter(below)

    enter(GatewaySettings)
    return found


HOLDERS = holders_of()


def words_of(node: ast.AST) -> set[str]:
    """All names in an expression."""
    inside = list(ast.walk(node))
    names = {one.id for one in inside if isinstance(one, ast.Name)}
    return names | {one.attr for one in inside if isinstance(one, ast.Attribute)}


def last_word(node: ast.AST) -> str:
    """What an expression is called: its last attribute, its name, or what is called or indexed."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Subscript(value=inner) | ast.Call(func=inner) | ast.Starred(value=inner):
            return last_word(inner)
        case _:
            return ""


def made_in(tree: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """What is given a value, and the value: assignments, loops, matches."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                yield from zip(targets, values, strict=False)
            case ast.Assign(targets=[target], value=value):
                yield target, value
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                # Of `enumerate(x)` and `x.items()` it is what they go through.
                for one in ast.walk(target):
                    yield one, value.args[0] if isinstance(value, ast.Call) and value.args else value
                    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
                        yield one, value.func.value
            case ast.Match(subject=value, cases=cases):
                for case in cases:
                    if isinstance(case.pattern, ast.MatchAs) and case.pattern.name:
                        yield ast.Name(case.pattern.name), value
            case _:
                pass


def reads_of(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Class of settings and key of each attribute that a module reads of something that holds such settings.

    Something holds them that is called like the key they stand under, that is annotated with their class, or
    that is given a value of either: names within one function, attributes within the file.
    """
    functions = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    kept: dict[str, set[str]] = {name: set(holders) for name, holders in HOLDERS.items()}
    kept["GatewaySettings"] = {"settings"}
    for function in functions:
        for model in words_of(function.returns) & kept.keys() if function.returns else ():
            kept[model].add(function.name)
    for function in functions:
        arguments = [one for one in ast.walk(function) if isinstance(one, ast.arg) and one.annotation]
        local = {
            model: names
            | {one.arg for one in arguments if one.annotation and model in words_of(one.annotation)}
            for model, names in kept.items()
        }
        made = list(made_in(function))
        # A local name means what it was made of, not the key that is called alike.
        for target, source in made:
            if isinstance(target, ast.Name):
                for names in local.values():
                    names.discard(target.id)
                for names in local.values():
                    if last_word(source) in names:
                        names.add(target.id)
        for target, source in made:
            for model, names in local.items():
                if isinstance(target, ast.Attribute) and last_word(source) in names:
                    kept[model].add(target.attr)
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute):
                yield from (
                    (model, node.attr) for model, names in local.items() if last_word(node.value) in names
                )


def keys_read() -> set[tuple[str, str]]:
    """Every key that code outside the settings reads, with the class it belongs to."""
    found: set[tuple[str, str]] = set()
    for file in SOURCE.rglob("*.py"):
        if {"settings", "sandbox"} & set(file.relative_to(SOURCE).parts):
            continue
        text = file.read_text()
        # What reads settings says so somewhere.
        if "ettings" in text:
            found |= set(reads_of(ast.parse(text)))
    return found


@pytest.mark.parametrize("path", FIELDS)
def test_every_key_says_what_it_does(path: str) -> None:
    description = FIELDS[path].description or ""
    assert description.endswith("."), path


def keys_of(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Every key with a value of its own, of a class of settings and of those below it, with its class."""
    for name, field in model.model_fields.items():
        sections = list(models_in(field.annotation))
        if not sections:
            yield model.__name__, name
        for below in sections:
            yield from keys_of(below)


def test_every_key_is_read_by_the_gateway_from_its_own_section() -> None:
    """A key of another section that happens to be called alike does not count."""
    assert sorted(set(keys_of(GatewaySettings)) - keys_read()) == []


def test_a_key_that_is_read_of_something_else_is_a_dead_letter() -> None:
    read = set(
        reads_of(ast.parse("def f(listen: ListenSettings, other: Other): return other.port, listen.host"))
    )
    assert ("ListenSettings", "host") in read
    assert ("ListenSettings", "port") not in read


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

"""Every command describes itself: what it does, an example that parses, every parameter, exit codes."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator

import pytest
from cyclopts import App

from cbk_gateway.cli import HELP, app
from cbk_gateway.cli import output as exits


def commands(of: App = app, *path: str) -> Iterator[tuple[tuple[str, ...], App]]:
    """All commands that do something, with the words that lead to them."""
    for name in of:
        if not name.startswith("-"):
            inner = of[name]
            if inner.default_command is not None:
                yield (*path, name), inner
            yield from commands(inner, *path, name)


COMMANDS = dict(commands())
each_command = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


def text_of(words: tuple[str, ...]) -> str:
    function = COMMANDS[words].default_command
    assert function is not None
    return inspect.getdoc(function) or ""


def test_there_are_commands() -> None:
    assert {("serve",), ("token", "mint"), ("audit", "verify"), ("completion",)} <= set(COMMANDS)


@each_command
def test_a_command_says_what_it_does(words: tuple[str, ...]) -> None:
    summary = text_of(words).partition("\n\n")[0].partition("\nArgs:")[0]
    assert re.search(r"[.:)]$", summary.strip()), summary
    assert summary[0].isupper()


@each_command
def test_every_parameter_is_described(words: tuple[str, ...]) -> None:
    for argument in COMMANDS[words].assemble_argument_collection(parse_docstring=True):
        if argument.parse and not argument.children:
            assert argument.parameter.help, argument.name


@each_command
def test_a_command_has_an_example_that_parses(words: tuple[str, ...]) -> None:
    (example,) = re.findall(r"Example: `([^`]+)`", text_of(words).replace("\n", " "))[:1]
    called = re.search(r"cbk-gateway ([^|)<>]+)", example)
    assert called is not None
    given = shlex.split(called[1])
    assert tuple(given[: len(words)]) == words
    app.parse_args(given, exit_on_error=False, print_error=False)


def test_the_whole_command_tells_files_variables_signals_and_exit_codes() -> None:
    for word in ("CBK_GATEWAY_ADMIN_TOKEN", "CBK_GATEWAY_LISTEN__PORT", "HUP", "USR2", "TERM", "--config"):
        assert word in HELP
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    told = {int(code) for code in re.findall(r"(\d) [a-z]", HELP.partition("Exit codes:")[2])}
    assert codes <= told
    assert told == {0, 1, 2, 3, 4}

"""The command line in the test's own process, on a thread: as `e2e_calls.command`, in a tenth of the time."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from cbk_gateway.cli import main
from harness import ADMIN_TOKEN, SIGNING_KEY, Stage
from integration.e2e_calls import Ran

Command = Callable[..., Awaitable[Ran]]


def commands(monkeypatch: pytest.MonkeyPatch, *, hides_log: bool = True) -> Command:
    """What runs `command(stage, "tenant", "list", stdin="")`: one at a time, since streams are shared.

    With `hides_log` the log of the gateway in this process, which would stand between, is dropped.
    """

    async def command(stage: Stage, *arguments: str, stdin: str = "") -> Ran:
        monkeypatch.chdir(stage.folder)
        monkeypatch.setenv("CBK_GATEWAY_ADMIN_URL", stage.admin_url)
        monkeypatch.setenv("CBK_GATEWAY_ADMIN_TOKEN", ADMIN_TOKEN)
        monkeypatch.setenv("TEST_SIGNING", SIGNING_KEY)
        monkeypatch.setenv("TEST_ADMIN", ADMIN_TOKEN)
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        out, err = io.StringIO(), io.StringIO()
        silence = capture_logs() if hides_log else contextlib.nullcontext()
        with silence, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = await asyncio.to_thread(_code_of, list(arguments))
        return Ran(code, out.getvalue(), err.getvalue())

    return command


def _code_of(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0

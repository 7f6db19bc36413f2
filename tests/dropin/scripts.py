"""Running the Node.js scripts of this suite: their packages, their environment, their checks.

Owns how a script is started, bounded in time and read. What a script does is its own business, and what
reached the sandbox is the test's.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

FOLDER: Final = Path(__file__).parent
OLDEST_NODE: Final = 20
_INSTALL_S: Final = 110
_STAMP: Final = FOLDER / "node_modules" / ".installed-from"


def missing_program() -> str | None:
    """What these scripts lack on this machine, in one sentence; None when they can run."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            return f"`{program}` is not on PATH: the official SDK is NOT tested here. Install Node.js 20."
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"v(\d+)\.", told)
    if found is None or int(found[1]) < OLDEST_NODE:
        return f"node is {told.strip()}: the official SDK is NOT tested here. It needs Node.js {OLDEST_NODE}."
    return None


def install() -> None:
    """Install the packages that the lock file names, once, whoever of the test processes comes first."""
    wanted = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    with _alone():
        if _STAMP.is_file() and _STAMP.read_text() == wanted:
            return
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(
            command, cwd=FOLDER, capture_output=True, text=True, timeout=_INSTALL_S, check=False
        )
        if done.returncode != 0:
            pytest.fail(f"`{' '.join(command)}` failed in {FOLDER}:\n{done.stdout}{done.stderr}", False)
        _STAMP.write_text(wanted)


@contextmanager
def _alone() -> Iterator[None]:
    """Keep the other test processes out. The lock is on the folder itself, so nothing is left behind."""
    folder = os.open(FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


async def run(
    script: str, url: str, secret: str, given: Mapping[str, object] | None = None, *, within_s: float = 90
) -> dict[str, Any]:
    """Run a script to its end; what each of its checks saw, by name, in order.

    Fails the test when a check failed, the script failed otherwise, or it took too long.
    """
    process = await asyncio.create_subprocess_exec(
        "node",
        str(FOLDER / "node" / f"{script}.mjs"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "CBK_BASE_URL": url,
            "CBK_SECRET": secret,
            "CBK_GIVEN": orjson.dumps(given or {}).decode(),
        },
    )
    try:
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        raise
    lines = [orjson.loads(line) for line in out.splitlines()]
    broken = [f"{line['check']}:\n{line['error']}" for line in lines if not line["ok"]]
    assert not broken, "\n\n".join(broken)
    assert process.returncode == 0, f"{script}.mjs ended with {process.returncode}:\n{err.decode()}"
    assert lines, f"{script}.mjs checked nothing"
    return {line["check"]: line["seen"] for line in lines}


async def calls(url: str, secret: str, *wanted: Mapping[str, object]) -> list[Any]:
    """Make calls with the SDK, one after another: `{value}` or `{error: {name, message, code}}` of each.

    A call is `{"call": "bot.fetch", "args": [...], "options": {...}, "stream": bool}`; the options are of
    the client, which does not retry unless they say so.
    """
    named: Sequence[Mapping[str, object]] = [
        {"name": f"{index} {one['call']}", **one} for index, one in enumerate(wanted)
    ]
    return list((await run("calls", url, secret, {"calls": named})).values())


async def value(url: str, secret: str, call: str, *args: object) -> Any:
    """What one call gives, which must succeed."""
    (outcome,) = await calls(url, secret, {"call": call, "args": args})
    assert "value" in outcome, outcome
    return outcome["value"]

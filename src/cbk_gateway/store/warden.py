"""A tiny process between the gateway and its embedded server, so that neither can outlive the gateway.

It is started as a program, never imported, and uses the standard library alone. It owns the server
process and the server's directory. Its standard input is a pipe from the gateway: the line `start` starts
the server and is answered with `pid N` on standard output; end of file, which the kernel delivers however
the gateway died, ends the server, removes the directory if it is a temporary one, and ends the warden.
On Linux the server also asks the kernel to kill it when the warden dies.

A server that ends by itself stays away until the next `start`; with `always` the warden starts it again, at
once at first, and after longer and longer pauses while it keeps ending.

    python warden.py DIRECTORY remove|keep once|always PROGRAM ARGUMENT...
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import shutil
import signal
import sys
import time
from types import FrameType
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_GRACE_S: Final = 3.0
_EXEC_FAILED: Final = 127
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_LIVED_S: Final = 10.0  # who lived that long is no longer one that keeps ending


def start(directory: str, command: list[str]) -> int:
    """Start the server in its directory with its output in `server.log`; returns its process id."""
    warden = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    # The child of a process with one thread: everything is allowed here until the program is replaced.
    with contextlib.suppress(OSError):
        log = os.open(f"{directory}/server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(directory)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != warden:
                os._exit(_EXEC_FAILED)
        os.execv(command[0], command)  # noqa: S606 - the program is our own dependency's, by absolute path
    os._exit(_EXEC_FAILED)


def has_ended(pid: int) -> bool:
    """Whether the server is gone; reaps it if so."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def end(pid: int) -> None:
    """End the server: politely for a few seconds, then not."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + _GRACE_S
    while time.monotonic() < deadline:
        if has_ended(pid):
            return
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def serve(directory: str, command: list[str], *, restarts: bool) -> None:
    """Obey the pipe until it closes."""
    pid, started_at, due_at, pause_s = 0, 0.0, math.inf, _FIRST_PAUSE_S
    while True:
        # Wakes now and then to reap a server that died, so that nobody sees a zombie and thinks it alive.
        readable, _, _ = select.select([0], [], [], 0.2 if pid else _FIRST_PAUSE_S)
        if pid and has_ended(pid):
            pid, now = 0, time.monotonic()
            if restarts:
                pause_s = (
                    _FIRST_PAUSE_S if now - started_at > _LIVED_S else min(2 * pause_s, _LONGEST_PAUSE_S)
                )
                due_at = now + pause_s
        if readable:
            if not os.read(0, 1024):
                break
            if pid == 0:
                pid, started_at, due_at = start(directory, command), time.monotonic(), math.inf
                os.write(1, f"pid {pid}\n".encode())
        elif pid == 0 and time.monotonic() >= due_at:
            pid, started_at, due_at = start(directory, command), time.monotonic(), math.inf
    if pid:
        end(pid)


def _stop(_number: int, _frame: FrameType | None) -> None:
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)


def main() -> None:
    """Run as a program."""
    directory, fate, zeal, *command = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The end of the pipe is the only way out; a polite signal takes it.
    signal.signal(signal.SIGTERM, _stop)
    try:
        serve(directory, command, restarts=zeal == "always")
    finally:
        if fate == "remove":
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()

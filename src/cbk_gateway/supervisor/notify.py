"""What a service manager is told and gives: sd_notify and socket activation, as systemd documents them.

See sd_notify(3) and sd_listen_fds(3). Without a service manager every call does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

FIRST_DESCRIPTOR: Final = 3


class ServiceManager:
    """The service manager of this process, if there is one.

    Takes its variables out of the environment, so that no child believes they are meant for it.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._address = environ.pop("NOTIFY_SOCKET", "")
        is_ours = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period_us = environ.pop("WATCHDOG_USEC", "0")
        self.watchdog_s = int(period_us) / 1e6 if is_ours and period_us.isdigit() else 0.0
        self._sockets = _named_descriptors(environ)

    def tell(self, *lines: str) -> None:
        """Send assignments such as `READY=1`. A manager that does not listen is no trouble of ours."""
        if not self._address:
            return
        # A leading @ stands for the NUL byte of Linux's abstract addresses.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
                peer.connect(address)
                peer.send("\n".join(lines).encode())
        except OSError:
            return

    def ready(self, workers: int) -> None:
        """Everything serves."""
        self.tell("READY=1", f"STATUS=serving with {workers} workers")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self) -> None:
        """The end has begun."""
        self.tell("STOPPING=1", "STATUS=finishing open requests")

    def alive(self) -> None:
        """The watchdog need not bark."""
        self.tell("WATCHDOG=1")

    def sockets(self, name: str) -> list[socket.socket]:
        """The listening sockets passed under a name (`FileDescriptorName=`), taken over by the caller."""
        return [socket.socket(fileno=number) for number in self._sockets.pop(name, [])]


def _named_descriptors(environ: MutableMapping[str, str]) -> dict[str, list[int]]:
    count, pid = environ.pop("LISTEN_FDS", "0"), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    if pid != str(os.getpid()) or not count.isdigit():
        return found
    for place in range(int(count)):
        # A socket without a name of its own is the data port: it is the one that has to be activated.
        name = names[place] if place < len(names) and names[place] in {"data", "admin"} else "data"
        descriptor = FIRST_DESCRIPTOR + place
        os.set_inheritable(descriptor, False)
        found.setdefault(name, []).append(descriptor)
    return found

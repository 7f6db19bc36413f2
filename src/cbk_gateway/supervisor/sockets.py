"""The data port's sockets, bound once by the supervisor or passed in by the service manager.

They stay open as long as a worker could be given them: closing a socket of a group would reset the
connections that wait in its queue.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from cbk_gateway.server import BACKLOG, bound_socket
from cbk_gateway.settings.gateway import ListenSettings


class DataSockets:
    """Groups of sockets by address.

    Args:
        given: The service manager's sockets, which serve whatever address the settings name.
    """

    def __init__(self, given: Sequence[socket.socket] = ()) -> None:
        self._given = tuple(given)
        self._groups: dict[tuple[str, int], tuple[socket.socket, ...]] = {}

    def group(self, settings: ListenSettings, count: int) -> tuple[socket.socket, ...]:
        """The sockets of an address, at least one; bound when it is new, up to `count`.

        Raises:
            PortTaken: Something else listens there.
            OSError: The address cannot be bound.
        """
        if self._given:
            return self._given
        address = (settings.host, settings.port)
        if address not in self._groups:
            self._groups[address] = _bound_group(settings.host, settings.port, count)
        return self._groups[address]

    def forget_others(self, kept: Sequence[socket.socket]) -> None:
        """Close every group but this one."""
        for address, group in list(self._groups.items()):
            if group != tuple(kept):
                del self._groups[address]
                _close(group)

    def close(self) -> None:
        """Close all."""
        self.forget_others(())
        _close(self._given)


def _bound_group(host: str, port: int, count: int) -> tuple[socket.socket, ...]:
    # Another process of this user could join the group: alone, the address must be free.
    bound_socket(host, port, "listen.port").close()
    group: list[socket.socket] = []
    try:
        for _ in range(count):
            one = bound_socket(host, port, "listen.port", shared=True)
            group.append(one)
            port = one.getsockname()[1]
            # Connections may wait from now on, before the first worker is up.
            one.listen(BACKLOG)
    except OSError:
        _close(group)
        raise
    return tuple(group)


def _close(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()

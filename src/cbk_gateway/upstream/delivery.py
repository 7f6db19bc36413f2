"""What the kernel knows of bytes on their way: whether a peer has closed, whether it got any of ours.

The evidence behind `not_sent`. Linux counts in `struct tcp_info` the bytes a peer has acknowledged, and a
peer's FIN acknowledges all it had received by then. So when a FIN came, then a reset, and none of the
request is acknowledged, the upstream had closed its socket before the request came, and its kernel threw
the request away. Each sign alone proves nothing: a reset may stand in for an acknowledgement that was
still to come, and a FIN may be half a close by a peer that goes on reading. Where the kernel does not
tell, the outcome stays `unknown`.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from enum import Enum
from typing import Final

_INFO_SIZE: Final = 128
# Offset of tcpi_bytes_acked in struct tcp_info of linux/tcp.h; there since Linux 4.1.
_ACKED_OFFSET: Final = 120
_COUNTER: Final = struct.Struct("=Q")
_QUEUED: Final = struct.Struct("=i")
_TCP_CLOSE: Final = 7  # tcpi_state, the first octet: the connection was reset
# As plain numbers: combining the enumeration's members costs more than the system call.
_LOOK: Final = int(getattr(socket, "MSG_PEEK", 0)) | int(getattr(socket, "MSG_DONTWAIT", 0))
_TAKE: Final = int(getattr(socket, "MSG_DONTWAIT", 0))
_CAN_ASK: Final = hasattr(socket, "TCP_INFO") and hasattr(socket, "MSG_DONTWAIT")


def acknowledged_bytes(sock: socket.socket) -> int | None:
    """Bytes of ours that the peer's kernel has acknowledged since the connection began, or None.

    The one that stands for the connection's own SYN is taken off.
    """
    if not _CAN_ASK:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    except OSError:
        return None
    if len(info) < _INFO_SIZE:
        return None
    counted: int = _COUNTER.unpack_from(info, _ACKED_OFFSET)[0]
    return max(0, counted - 1)


class Fate(Enum):
    """What became of the bytes behind a mark on a connection whose peer has sent its FIN."""

    DELIVERED = "delivered"  # or not to be known
    REFUSED = "refused"
    OPEN = "open"  # neither acknowledged nor refused yet


def fate_behind(sock: socket.socket, mark: int | None) -> Fate:
    """Ask what became of the bytes sent after the first `mark` ones. The peer's FIN must have come.

    A mark of None means that it is not known which bytes were sent before.
    """
    acknowledged = acknowledged_bytes(sock)
    if mark is None or acknowledged is None or acknowledged > mark:
        return Fate.DELIVERED
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return Fate.DELIVERED
    return Fate.REFUSED if state == _TCP_CLOSE else Fate.OPEN


def delivered_or_queued_bytes(sock: socket.socket) -> int | None:
    """Bytes ever handed to the kernel: those acknowledged and those still in its send queue.

    For connections whose bytes we do not count ourselves, because TLS makes them.
    """
    acknowledged = acknowledged_bytes(sock)
    if acknowledged is None:
        return None
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return None
    queued: int = _QUEUED.unpack(answer)[0]
    return acknowledged + queued


def has_news(sock: socket.socket) -> bool:
    """Whether an idle connection has something to read: an end, an error, or bytes nobody asked for.

    One non-blocking look, so that a peer's close which has already arrived is never overlooked because
    the event loop was busy.
    """
    if not _CAN_ASK:
        return False
    try:
        sock.recv(1, _LOOK)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
    return True


def rest_of_answer(sock: socket.socket, most: int) -> bytes:
    """Read what an upstream sent before it reset the connection, up to `most` bytes.

    A server that refuses an upload early answers, closes, and its kernel resets us while we still write;
    the answer is then in our receive queue and would be lost with the socket.
    """
    if not _CAN_ASK:
        return b""
    pieces = []
    left = most
    while left > 0:
        try:
            piece = sock.recv(min(left, 65_536), _TAKE)
        except OSError:
            break
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)

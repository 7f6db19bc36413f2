"""A client's first steps on a connection, as a test wants them: a PROXY header, a TLS handshake."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Peer:
    """A blocking client, for a thread of its own."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext | None) -> None:
        self._socket = connection
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            self._tls = context.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")

    @property
    def serial(self) -> int:
        """Serial number of the server's certificate."""
        assert self._tls is not None
        certificate = self._tls.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)

    def begin(self, before: tuple[bytes, ...]) -> None:
        """Send what comes before; its last piece in one segment with the first message of the handshake."""
        *pieces, last = before or (b"",)
        for piece in pieces:
            self._socket.sendall(piece)
        if self._tls is None:
            self._socket.sendall(last)
            return
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._socket.sendall(last + self._out.read())
                last = b""
                self._fill()
            else:
                self._socket.sendall(self._out.read())
                return

    def ask(self, request: bytes) -> None:
        if self._tls is None:
            self._socket.sendall(request)
            return
        self._tls.write(request)
        self._socket.sendall(self._out.read())

    def read(self) -> bytes:
        """What comes next; nothing at the end, however it comes."""
        with suppress(ConnectionError):
            if self._tls is None:
                return self._socket.recv(65_536)
            while True:
                try:
                    return self._tls.read(65_536)
                except ssl.SSLWantReadError:
                    if not self._fill():
                        return b""
        return b""

    def rest(self) -> bytes:
        heard = b""
        while piece := self.read():
            heard += piece
        return heard

    def _fill(self) -> bool:
        piece = self._socket.recv(65_536)
        if piece:
            self._in.write(piece)
        else:
            self._in.write_eof()
        return bool(piece)


@contextmanager
def connected(url: str, context: ssl.SSLContext | None, *before: bytes) -> Iterator[Peer]:
    """A connection that has begun.

    Raises:
        OSError: It was closed or refused on the way (ssl.SSLError is an OSError).
    """
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(connection, context)
        peer.begin(before)
        yield peer


def asked(url: str, context: ssl.SSLContext | None, request: bytes, *before: bytes) -> bytes:
    """All that comes back on a connection of its own; nothing when it was not let in."""
    with suppress(OSError), connected(url, context, *before) as peer:
        peer.ask(request)
        return peer.rest()
    return b""

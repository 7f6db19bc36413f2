"""TLS of a listening port: the files it is made of, and the context that the next connection gets.

Renewed files are taken up without closing anything: connections keep the context they began with. Files that
cannot be used change nothing. Who accepts is `acceptor.py`.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

LOOK_EVERY_S: Final = 2.0

_log = structlog.get_logger(__name__)

Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files, by absolute path.

    Attributes:
        certificate: The certificate and those that lead to its authority.
        key: Its private key.
        client_ca: The only authorities whose client certificates count; None asks for none.
        needs_client: Whether a client without a certificate is refused, rather than only one with a bad one.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None
    needs_client: bool = True

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path is not None)

    def stamp(self) -> Stamp:
        """What changes when a file does, wherever its links lead; a missing file has a stamp as well."""
        return tuple(_stamp_of(path) for path in self.paths)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A server's TLS. TLS 1.2 is the floor (RFC 8996), HTTP/1.1 the only protocol offered (RFC 7301).

    Raises:
        OSError: A file cannot be read or is not what it should be (ssl.SSLError is an OSError).
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(files.certificate, files.key, password=_no_password)
    if files.client_ca is not None:
        context.load_verify_locations(files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if files.needs_client else ssl.CERT_OPTIONAL
    return context


class ServingTls:
    """What a port shows to the next connection.

    Args:
        files: What it is made of.

    Attributes:
        context: For the next connection.

    Raises:
        OSError: A file cannot be used.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = files.stamp()
        self.context = server_context(files)

    def renew(self) -> None:
        """Read the files again. Blocks for some milliseconds.

        Raises:
            OSError: One cannot be used; the context stays what it was.
        """
        stamp = self._files.stamp()
        self.context = server_context(self._files)
        self._stamp = stamp

    async def watch(self, interval_s: float = LOOK_EVERY_S) -> None:
        """Renew, for ever, whenever a file has changed. Cancel it to stop.

        A certificate and its key are seldom replaced in one step: what does not fit together yet is tried
        again, and complained of once.
        """
        complained_of: Stamp | None = None
        while True:
            await asyncio.sleep(interval_s)
            stamp = await asyncio.to_thread(self._files.stamp)
            if stamp == self._stamp:
                continue
            try:
                await asyncio.to_thread(self.renew)
            except OSError as fault:
                if stamp != complained_of:
                    _log.error("certificate_unusable", file=str(self._files.certificate), reason=str(fault))
                complained_of = stamp
            else:
                _log.info("certificate_renewed", file=str(self._files.certificate))


def _no_password() -> bytes:
    """Without it OpenSSL would ask on the terminal, and wait there."""
    raise OSError("the private key is encrypted")


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)

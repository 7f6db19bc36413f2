"""The PROXY protocol, versions 1 and 2: what a balancer says of a connection before the client's first byte.

Pure: bytes in, a header or None for more. Whether a connection begins with one is never guessed from its
bytes, since a client could then name any address it likes: see `acceptor.py`. Source: "The PROXY protocol",
HAProxy Technologies, 2020, sections 2.1 to 2.5.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

Address = tuple[str, int]

MAX_V1_BYTES: Final = 107
MAX_BYTES: Final = 4096
"""The largest header that is read; the addresses take at most 232, the rest are notes of the balancer."""

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = 16
_LOCAL, _PROXY = 0x20, 0x21
# Family and transport of a stream, by the bytes its two addresses and ports take.
_STREAMS: Final = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}


class ProxyHeaderInvalid(ValueError):  # noqa: N818 - it is what a connection began with, not a malfunction
    """The connection does not begin with a header of either version."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole header.

    Attributes:
        source: Who opened the connection, or None when the balancer speaks for itself or does not know.
        size: Bytes of the header; what follows is the client's.
    """

    source: Address | None
    size: int


def parse(octets: bytes) -> ProxyHeader | None:
    """Read the header that `octets` begin with; None when there must be more of it.

    Raises:
        ProxyHeaderInvalid: No header begins so.
    """
    if octets.startswith(_V2[: len(octets)]):
        return _parse_v2(octets) if len(octets) >= _V2_FIXED else None
    if octets.startswith(_V1[: len(octets)]):
        return _parse_v1(octets)
    raise ProxyHeaderInvalid("neither version's first bytes")


def _parse_v1(octets: bytes) -> ProxyHeader | None:
    end = octets.find(b"\r\n", 0, MAX_V1_BYTES)
    if end < 0:
        if len(octets) >= MAX_V1_BYTES:
            raise ProxyHeaderInvalid("a line without an end")
        return None
    size = end + 2
    match octets[:end].split(b" "):
        case [_, b"UNKNOWN", *_]:
            return ProxyHeader(None, size)
        case [_, b"TCP4" | b"TCP6" as family, source, destination, source_port, destination_port]:
            version = 4 if family == b"TCP4" else 6
            _address(destination, version)
            _port(destination_port)
            return ProxyHeader((_address(source, version), _port(source_port)), size)
        case _:
            raise ProxyHeaderInvalid("not the words of version 1")


def _address(text: bytes, version: int) -> str:
    try:
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        raise ProxyHeaderInvalid("not an address") from None
    if address.version != version or b"%" in text:
        raise ProxyHeaderInvalid("not an address of its family")
    return str(address)


def _port(text: bytes) -> int:
    if not text.isdigit() or (text[:1] == b"0" and text != b"0") or len(text) > 5 or int(text) > 65_535:
        raise ProxyHeaderInvalid("not a port")
    return int(text)


def _parse_v2(octets: bytes) -> ProxyHeader | None:
    command, family, length = struct.unpack_from("!BBH", octets, len(_V2))
    size = _V2_FIXED + length
    if command not in {_LOCAL, _PROXY}:
        raise ProxyHeaderInvalid("another version or command")
    if size > MAX_BYTES:
        raise ProxyHeaderInvalid("too large")
    if len(octets) < size:
        return None
    if command == _LOCAL:
        # The balancer's own connection, such as a health check: whatever else it says is skipped.
        return ProxyHeader(None, size)
    needed = _STREAMS.get(family)
    if needed is None or length < needed:
        raise ProxyHeaderInvalid("not the addresses of a stream")
    _check_notes(octets[_V2_FIXED + needed : size])
    return ProxyHeader(_source(octets[_V2_FIXED : _V2_FIXED + needed]), size)


def _source(addresses: bytes) -> Address | None:
    match len(addresses):
        case 12:
            return str(ipaddress.IPv4Address(addresses[:4])), int.from_bytes(addresses[8:10])
        case 36:
            return str(ipaddress.IPv6Address(addresses[:16])), int.from_bytes(addresses[32:34])
        case _:
            return None


def _check_notes(notes: bytes) -> None:
    """Type, length and value after one another (section 2.2.1); what they say is not asked."""
    place = 0
    while place < len(notes):
        if place + 3 > len(notes):
            raise ProxyHeaderInvalid("half a note")
        place += 3 + int.from_bytes(notes[place + 1 : place + 3])
    if place != len(notes):
        raise ProxyHeaderInvalid("half a note")

"""The PROXY protocol's two forms: what is read, what must be waited for, what is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.proxy_protocol import MAX_BYTES, ProxyHeader, ProxyHeaderInvalid, parse

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
FOUR = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 51_234, 443)
SIX = bytes.fromhex("20010db8000000000000000000000001" + "20010db8000000000000000000000002")
SIX += struct.pack("!HH", 51_234, 443)


def second(command: int, family: int, rest: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest


def note(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


READ = {
    "version 1, IPv4": (b"PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n", ("192.0.2.1", 51_234)),
    "version 1, IPv6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 51234 443\r\n", ("2001:db8::1", 51_234)),
    "version 1, the longest": (
        b"PROXY TCP6 " + (b":".join([b"ffff"] * 8) + b" ") * 2 + b"65535 65535\r\n",
        ("ffff:" * 7 + "ffff", 65_535),
    ),
    "version 1, unknown": (b"PROXY UNKNOWN\r\n", None),
    "version 1, unknown with more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    "version 1, port nought": (b"PROXY TCP4 192.0.2.1 198.51.100.2 0 443\r\n", ("192.0.2.1", 0)),
    "version 2, IPv4": (second(0x21, 0x11, FOUR), ("192.0.2.1", 51_234)),
    "version 2, IPv6": (second(0x21, 0x21, SIX), ("2001:db8::1", 51_234)),
    "version 2, a unix socket": (second(0x21, 0x31, b"/run/x".ljust(216, b"\0")), None),
    "version 2, unspecified": (second(0x21, 0x00, b""), None),
    "version 2, with notes": (
        second(0x21, 0x11, FOUR + note(0x01, b"http/1.1") + note(0x04, b"") + note(0x20, b"\1\0\0\0\0")),
        ("192.0.2.1", 51_234),
    ),
    "version 2, the balancer itself": (second(0x20, 0x00, b""), None),
    "version 2, the balancer with addresses": (second(0x20, 0x11, FOUR), None),
    "version 2, the balancer with anything": (second(0x20, 0xFF, b"anything"), None),
    "version 2, as large as can be": (
        second(0x21, 0x11, FOUR + note(0x04, b"x" * (MAX_BYTES - 16 - 12 - 3))),
        ("192.0.2.1", 51_234),
    ),
}

REFUSED = {
    "HTTP": b"GET / HTTP/1.1\r\n",
    "TLS": b"\x16\x03\x01\x02\x00",
    "one wrong byte": b"X",
    "small letters": b"proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
    "version 1, no end": b"PROXY UNKNOWN " + b"x" * 200,
    "version 1, an end too far": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "version 1, another family": b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
    "version 1, no family": b"PROXY \r\n",
    "version 1, too few words": b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
    "version 1, too many words": b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
    "version 1, two blanks": b"PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
    "version 1, a tab": b"PROXY TCP4\t192.0.2.1 198.51.100.2 1 2\r\n",
    "version 1, the wrong family": b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
    "version 1, the other wrong family": b"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
    "version 1, a name": b"PROXY TCP4 localhost 198.51.100.2 1 2\r\n",
    "version 1, leading noughts": b"PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
    "version 1, a zone": b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
    "version 1, a bad destination": b"PROXY TCP4 192.0.2.1 x 1 2\r\n",
    "version 1, a port beyond": b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n",
    "version 1, a signed port": b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
    "version 1, a padded port": b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
    "version 1, a bad second port": b"PROXY TCP4 192.0.2.1 198.51.100.2 1 x\r\n",
    "version 1, an octet of no script": b"PROXY TCP4 192.0.2.\xff 198.51.100.2 1 2\r\n",
    "version 2, another version": second(0x11, 0x11, FOUR),
    "version 2, another command": second(0x22, 0x11, FOUR),
    "version 2, datagrams": second(0x21, 0x12, FOUR),
    "version 2, another family": second(0x21, 0x41, FOUR),
    "version 2, another transport": second(0x21, 0x13, FOUR),
    "version 2, half an address": second(0x21, 0x11, FOUR[:8]),
    "version 2, half an IPv6 address": second(0x21, 0x21, FOUR),
    "version 2, half a note": second(0x21, 0x11, FOUR + b"\x04\x00"),
    "version 2, a note that is too long": second(0x21, 0x11, FOUR + b"\x04\x00\x09x"),
    "version 2, too large": second(0x21, 0x11, b"", length=MAX_BYTES),
    "version 2, far too large": second(0x20, 0x00, b"", length=65_535),
}


@pytest.mark.parametrize("name", READ)
def test_a_whole_header_is_read_to_its_last_byte_and_no_further(name: str) -> None:
    octets, source = READ[name]
    assert parse(octets) == parse(octets + b"GET / HTTP/1.1\r\n") == ProxyHeader(source, len(octets))


@pytest.mark.parametrize("name", READ)
def test_every_beginning_of_a_header_asks_for_more(name: str) -> None:
    octets, _ = READ[name]
    assert all(parse(octets[:size]) is None for size in range(len(octets)))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_header_is_refused(name: str) -> None:
    with pytest.raises(ProxyHeaderInvalid):
        parse(REFUSED[name])


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00"])
)
def test_anything_is_read_or_refused_or_waited_for(octets: bytes, beginning: bytes) -> None:
    """Never anything else, and never for more than the largest header."""
    try:
        header = parse(beginning + octets)
    except ProxyHeaderInvalid:
        return
    if header is not None:
        assert 0 < header.size <= min(MAX_BYTES, len(beginning + octets))

"""Where a request comes from, as far as those who say so are believed."""

from __future__ import annotations

import pytest

from cbk_gateway.addresses import address_of, is_within, parse_networks

INSIDE = parse_networks(["10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        (("10.0.0.1", 1), (), "10.0.0.1"),
        (("10.0.0.1", 1), ("203.0.113.9",), "203.0.113.9"),
        (("203.0.113.1", 1), ("198.51.100.7",), "203.0.113.1"),
        (("10.0.0.1", 1), ("198.51.100.7, 203.0.113.9",), "203.0.113.9"),
        (("10.0.0.1", 1), ("198.51.100.7", "203.0.113.9"), "203.0.113.9"),
        (("10.0.0.1", 1), ("203.0.113.9, 10.0.0.2",), "203.0.113.9"),
        (("10.0.0.1", 1), ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        (("10.0.0.1", 1), (" , ",), "10.0.0.1"),
        (("10.0.0.1", 1), ("unknown",), "unknown"),
        (("2001:db8::1", 1, 0, 0), ("203.0.113.9",), "203.0.113.9"),
        (("::ffff:10.0.0.1", 1, 0, 0), ("203.0.113.9",), "203.0.113.9"),
        (None, ("203.0.113.9",), "unix"),
    ],
)
def test_a_hop_is_believed_as_far_as_the_one_before_is_trusted(
    peer: object, forwarded_for: tuple[str, ...], address: str
) -> None:
    assert address_of(peer, forwarded_for, INSIDE) == address


def test_nobody_is_believed_where_nobody_is_named() -> None:
    assert address_of(("127.0.0.1", 1), ("203.0.113.9",), ()) == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "inside"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("11.0.0.1", False), ("2001:db8::9", True), ("x", False)],
)
def test_an_address_is_within_a_network_however_it_is_dressed(address: str, *, inside: bool) -> None:
    assert is_within(address, INSIDE) is inside

"""Networks and the addresses in them: whose word on where a request comes from is believed.

Pure. Who is asked is the caller's business: a PROXY header (`proxy_protocol.py`) or a header field.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

_MAX_REMEMBERED: Final = 128

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def address_of(peer: object, forwarded_for: Iterable[str], trusted: Sequence[Network]) -> str:
    """A client's address, looking through trusted proxies (RFC 7239 section 7.4 on trust).

    Args:
        peer: The other end of the connection, as a transport names it.
        forwarded_for: All `X-Forwarded-For` values; read from their right end, as far as each hop is trusted.
        trusted: Networks whose word is believed.
    """
    address = str(peer[0]) if isinstance(peer, tuple) and peer else "unix"
    if not trusted:
        return address
    told = tuple(forwarded_for)
    # A client may send fields of any length; those are not worth remembering.
    see = _remembered if sum(map(len, told)) <= _MAX_REMEMBERED else _seen_through
    return see(address, told, tuple(trusted))


def _seen_through(address: str, forwarded_for: tuple[str, ...], trusted: tuple[Network, ...]) -> str:
    hops = [hop.strip() for hop in ",".join(forwarded_for).split(",")]
    while hops and is_within(address, trusted):
        address = hops.pop() or address
    return address


# Asked for every line of the log, of the same clients behind the same proxies.
_remembered = lru_cache(maxsize=4096)(_seen_through)


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks in CIDR form.

    Raises:
        ValueError: One of them is none.
    """
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def is_within(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of the networks. An IPv4 address may come dressed as an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return any(parsed in network or (mapped is not None and mapped in network) for network in networks)

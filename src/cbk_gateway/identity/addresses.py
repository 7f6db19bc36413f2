"""Which addresses keys may be fetched from, and which redirects may be followed. Pure decisions.

A key set fetched over plain http could be replaced on the way, and with it everybody's identity; so https
it is, except on loopback, where tests and side-cars live. No request is made here.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urljoin, urlsplit


def fault_of_key_address(address: str) -> str | None:
    """What is wrong with a configured or discovered URL, as the end of a sentence; None if nothing."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is no URL"
    if not host:
        return "is no URL"
    if parts.username is not None or parts.password is not None:
        return "must not carry credentials"
    if parts.fragment:
        return "must not have a fragment"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return None
    return "must be https (http is accepted for loopback only)"


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine (RFC 6761 section 6.3 for the name)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def redirect_target(origin: str, location: str) -> str | None:
    """Where a redirect leads if it stays on the same scheme, host and port; None: it must not be followed."""
    try:
        target = urljoin(origin, location)
        before, after = urlsplit(origin), urlsplit(target)
        stays = (before.scheme, before.hostname, before.port) == (after.scheme, after.hostname, after.port)
    except ValueError:
        return None
    return target if stays and fault_of_key_address(target) is None else None


def discovery_address(issuer: str) -> str:
    """The well-known address of an issuer (OpenID Connect Discovery 1.0 section 4)."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"

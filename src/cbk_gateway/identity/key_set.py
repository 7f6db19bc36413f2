"""A published key set as it arrives: how long it stays fresh, and which of its keys may be used. Pure.

RFC 7517 section 5 for the set, RFC 9111 section 5.2.2 for freshness. Fetching it is `key_fetch`'s business,
and keeping it `key_source`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cbk_gateway.identity.addresses import fault_of_key_address
from cbk_gateway.identity.jws import parse_json
from cbk_gateway.identity.options import IssuerOptions, JwksOptions
from cbk_gateway.identity.signatures import KeyFault, SignatureKey, from_published


class FetchReason(StrEnum):
    """Why no key set came of a fetch; a bounded set, fit for a metric label."""

    ADDRESS = "address"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    STATUS = "status"
    REDIRECT = "redirect"
    ENCODING = "encoding"
    TOO_LARGE = "too_large"
    TOO_MANY_KEYS = "too_many_keys"
    MALFORMED = "malformed"
    NO_USABLE_KEY = "no_usable_key"


class FetchFault(Exception):  # noqa: N818 - "fault" is the word the whole house uses
    """A fetch gave no usable key set. The text is for operators."""

    def __init__(self, reason: FetchReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PublishedSet:
    """A key set that arrived.

    Attributes:
        keys: Its usable keys.
        skipped: Why others were left out, one text each.
        fresh_s: How long to use it before asking again.
    """

    keys: tuple[SignatureKey, ...]
    skipped: tuple[str, ...]
    fresh_s: float


def read_key_set(body: bytes, headers: Mapping[str, str], policy: IssuerOptions) -> PublishedSet:
    """Read the body of a key set's address.

    Raises:
        FetchFault: It is no key set, is too long, or holds no key this issuer may use. A set with *some*
            unusable keys is fine: issuers publish encryption keys beside the others.
    """
    members = _object(body).get("keys")
    if not isinstance(members, list):
        raise FetchFault(FetchReason.MALFORMED, "the body is no key set: keys is not a list")
    if len(members) > policy.jwks.max_keys:
        raise FetchFault(
            FetchReason.TOO_MANY_KEYS, f"the set has {len(members)} keys, above {policy.jwks.max_keys}"
        )
    keys: list[SignatureKey] = []
    skipped: list[str] = []
    for position, member in enumerate(members):
        try:
            keys += from_published(member, policy.algorithms)
        except KeyFault as fault:
            skipped.append(f"key {position}: {fault}")
    if not keys:
        why = "; ".join(skipped[:3]) or "it is empty"
        raise FetchFault(FetchReason.NO_USABLE_KEY, f"the set holds no usable key ({why})")
    return PublishedSet(tuple(keys), tuple(skipped), fresh_for_s(headers, policy.jwks))


def read_discovery(body: bytes, policy: IssuerOptions) -> str:
    """The key set's address in an OpenID configuration document.

    Raises:
        FetchFault: The document is another issuer's (OpenID Connect Discovery 1.0 section 4.3), or the
            address in it may not be used.
    """
    document = _object(body)
    if document.get("issuer") != policy.issuer:
        raise FetchFault(FetchReason.MALFORMED, "the discovery document is another issuer's")
    address = document.get("jwks_uri")
    if not isinstance(address, str):
        raise FetchFault(FetchReason.MALFORMED, "the discovery document names no jwks_uri")
    fault = fault_of_key_address(address)
    if fault is None and policy.issuer is not None and policy.issuer.startswith("https:"):
        # A public issuer must not lead us to plain http, not even on this machine.
        fault = None if address.startswith("https:") else "must be https like its issuer"
    if fault is not None:
        raise FetchFault(FetchReason.ADDRESS, f"jwks_uri {fault}")
    return address


def fresh_for_s(headers: Mapping[str, str], bounds: JwksOptions) -> float:
    """How long an answer is to be used before asking again, within the operator's bounds.

    Args:
        headers: The answer's, looked up without regard to case by the caller's mapping.
        bounds: `refresh_s` for an answer that says nothing, and the least and most for one that does.
    """
    wanted_s = bounds.refresh_s
    for directive in headers.get("Cache-Control", "").split(","):
        name, _, value = directive.strip().lower().partition("=")
        if name in {"no-store", "no-cache"}:
            wanted_s = 0.0
            break
        if name == "max-age" and (seconds := _seconds(value.strip('"'))) is not None:
            wanted_s = seconds - (_seconds(headers.get("Age", "")) or 0)
    # Asked for again well before the last good set would be too old to be used.
    return min(max(wanted_s, bounds.min_refresh_s), bounds.max_refresh_s, bounds.max_age_s / 2)


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = parse_json(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise FetchFault(FetchReason.MALFORMED, "the body is not acceptable JSON") from None
    if not isinstance(document, dict):
        raise FetchFault(FetchReason.MALFORMED, "the body is not a JSON object")
    return document

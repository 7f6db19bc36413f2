"""What operators change about a tenant at run time, on top of its definition. Pure.

An override lives in the store beside the tenants created there, and applies to those and to tenants from
files alike. Keys in it are sealed. Promotions and drops name a key by its digest, so that they lapse by
themselves when the definition's keys change: whoever edits the file has the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Final

import orjson

from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret

_DIGEST_KEY: Final = b"cbk-gateway key digest"
KEY: Final = "key"
NEXT_KEY: Final = "next_key"

Opener = Callable[[str, str, str], Secret]
"""Opens a sealed text, given it, the tenant's id and the secret's name."""


@dataclass(frozen=True, slots=True)
class Override:
    """Changes to one tenant.

    Attributes:
        disabled: Refuse everything, whatever the definition says.
        token_not_before: Refuse tokens issued before, in epoch seconds; the later of this and the
            definition's counts.
        key: Sealed key in place of the definition's, while that one's digest is `replaces`; or None.
        replaces: Digest of the definition's key that `key` stands in for, or None.
        key_expires: When `key` stops working, in epoch seconds, or None where that is not known.
        next_key: Sealed next key in place of the definition's, or None.
        next_key_expires: When `next_key` stops working, likewise.
        promoted: Digest of a next key that is to be the current one, or None.
        dropped: Digest of a next key that is not to be used, or None.
    """

    disabled: bool = False
    token_not_before: int = 0
    key: str | None = None
    replaces: str | None = None
    next_key: str | None = None
    promoted: str | None = None
    dropped: str | None = None
    key_expires: int | None = None
    next_key_expires: int | None = None

    def encoded(self) -> bytes:
        """As it is stored."""
        return orjson.dumps({field.name: getattr(self, field.name) for field in fields(self)})


NO_OVERRIDE: Final = Override()


def decode(octets: bytes) -> Override:
    """An override as stored; members of later versions are ignored.

    Raises:
        ValueError: It is not one.
    """
    document = orjson.loads(octets)
    moment = document.get("token_not_before", 0) if isinstance(document, dict) else None
    if moment is None or type(moment) is not int:
        message = "this is not an override"
        raise ValueError(message)
    texts = {
        name: document[name]
        for name in ("key", "replaces", "next_key", "promoted", "dropped")
        if isinstance(document.get(name), str)
    }
    ends = {
        name: document[name]
        for name in ("key_expires", "next_key_expires")
        if type(document.get(name)) is int
    }
    return Override(disabled=document.get("disabled") is True, token_not_before=moment, **texts, **ends)


def digest(key: Secret) -> str:
    """A name for a key that all processes share; it cannot be turned back into the key."""
    return key.stable_fingerprint(_DIGEST_KEY)


def applied(tenant: Tenant, override: Override, unseal: Opener) -> Tenant:
    """The tenant as the override leaves it. `unseal` may raise; its error is the caller's."""
    if override == NO_OVERRIDE:
        return tenant
    key, key_expires = tenant.key, tenant.key_expires
    next_key, next_expires = tenant.next_key, tenant.next_key_expires
    if override.key is not None and override.replaces == digest(key):
        key, key_expires = unseal(override.key, tenant.id, KEY), override.key_expires
    if override.next_key is not None:
        next_key, next_expires = unseal(override.next_key, tenant.id, NEXT_KEY), override.next_key_expires
    if next_key is not None:
        named = digest(next_key)
        if named == override.promoted:
            key, key_expires, next_key = next_key, next_expires, None
        elif named == override.dropped or next_key == key:
            next_key = None
    return replace(
        tenant,
        key=key,
        key_expires=key_expires,
        next_key=next_key,
        next_key_expires=next_expires if next_key is not None else None,
        disabled=tenant.disabled or override.disabled,
        token_not_before=max(tenant.token_not_before, override.token_not_before),
    )


def promotion(tenant: Tenant, override: Override) -> Override:
    """The override after the next key became the current one. `tenant` is as in force.

    Raises:
        ValueError: There is no next key.
    """
    if tenant.next_key is None:
        message = f"the tenant {tenant.id} has no next key"
        raise ValueError(message)
    return replace(override, promoted=digest(tenant.next_key), dropped=None)


def dropping(tenant: Tenant, override: Override) -> Override:
    """The override after the next key was given up.

    Raises:
        ValueError: There is no next key.
    """
    if tenant.next_key is None:
        message = f"the tenant {tenant.id} has no next key"
        raise ValueError(message)
    return replace(override, dropped=digest(tenant.next_key), promoted=None)


def rotation_to(
    defined: Tenant,
    in_force: Tenant,
    override: Override,
    sealed_key: str,
    sealed_next: str,
    *,
    next_expires: int | None = None,
) -> Override:
    """The override that begins a rotation.

    Args:
        defined: The tenant as its definition has it.
        in_force: The tenant as it is used now, perhaps after earlier rotations.
        override: What applies now.
        sealed_key: The key in force, sealed; kept only where the definition has another.
        sealed_next: The new key, sealed.
        next_expires: When it stops working, in epoch seconds, or None where that is not known.
    """
    stands_in = in_force.key != defined.key
    return replace(
        override,
        key=sealed_key if stands_in else None,
        key_expires=in_force.key_expires if stands_in else None,
        replaces=digest(defined.key) if stands_in else None,
        next_key=sealed_next,
        next_key_expires=next_expires,
        promoted=None,
        dropped=None,
    )

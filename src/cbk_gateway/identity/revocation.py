"""Revocations: what one says, which tokens it hits, and the list of those in force in this process.

Pure values and lookups. Keeping them in the store and hearing of others' is `revocation_feed`'s business.

A revocation hits a token by its id, or every token of a subject, of a tenant or of everybody that was issued
before a moment. Moments are whole seconds, as `iat` usually is, and a token without `iat` counts as issued at
the beginning of time. A revocation "now" therefore hits the tokens of the running second as well: the ones
issued in the rest of it are lost, which is the safe side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from cbk_gateway.parties import Principal


class RevocationKind(StrEnum):
    """What a revocation is about."""

    TOKEN = "token"  # noqa: S105 - a kind, not a credential
    SUBJECT = "subject"
    TENANT = "tenant"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Revocation:
    """One revocation.

    Attributes:
        kind: What it is about; says which of the next three are set.
        token_id: The `jti` of the token.
        tenant: The tenant.
        subject: The subject within the tenant.
        issued_before: Tokens with `iat` below this epoch second are hit; 0 for a single token, hit anyway.
        revoked_at: Epoch second at which it was decided.
        expires_at: Epoch second from which no token it hits can be alive; None if that is not known.
        note: Why, in the operator's words.
    """

    kind: RevocationKind
    token_id: str | None = None
    tenant: str | None = None
    subject: str | None = None
    issued_before: int = 0
    revoked_at: int = 0
    expires_at: int | None = None
    note: str = ""

    @property
    def id(self) -> str:
        """Its name for listing and lifting: the same for the same target, so repeating one renews it."""
        target = orjson.dumps([self.kind, self.token_id, self.tenant, self.subject])
        return f"{self.kind}-{hashlib.sha256(target).hexdigest()[:16]}"

    def matches(self, principal: Principal) -> bool:
        """Whether it hits the token behind `principal`."""
        if self.kind is RevocationKind.TOKEN:
            return principal.token_id == self.token_id
        if principal.issued_at >= self.issued_before:
            return False
        if self.kind is RevocationKind.EVERYTHING:
            return True
        if principal.tenant != self.tenant:
            return False
        return self.kind is RevocationKind.TENANT or principal.subject == self.subject

    def has_expired(self, now: float) -> bool:
        """Whether every token it hits has expired by itself at `now` (epoch seconds)."""
        return self.expires_at is not None and now >= self.expires_at

    def as_record(self) -> bytes:
        """Its JSON form in the store."""
        return orjson.dumps(
            {
                "kind": self.kind,
                "token_id": self.token_id,
                "tenant": self.tenant,
                "subject": self.subject,
                "issued_before": self.issued_before,
                "revoked_at": self.revoked_at,
                "expires_at": self.expires_at,
                "note": self.note,
            }
        )

    @classmethod
    def from_record(cls, record: bytes) -> Revocation:
        """Read the JSON form back.

        Raises:
            ValueError: It is not one of ours.
            TypeError: It is not even an object.
        """
        document = orjson.loads(record)
        if not isinstance(document, dict):
            raise TypeError("a revocation record is an object")
        members: Mapping[str, Any] = document
        expires_at = members.get("expires_at")
        return cls(
            kind=RevocationKind(str(members.get("kind"))),
            token_id=_text(members.get("token_id")),
            tenant=_text(members.get("tenant")),
            subject=_text(members.get("subject")),
            issued_before=int(members.get("issued_before") or 0),
            revoked_at=int(members.get("revoked_at") or 0),
            expires_at=int(expires_at) if isinstance(expires_at, int | float) else None,
            note=str(members.get("note") or ""),
        )


def revocation_of(
    *,
    now: float,
    keep_s: float | None,
    token_id: str | None = None,
    subject: tuple[str, str] | None = None,
    tenant: str | None = None,
    issued_before: int | None = None,
    expires_at: int | None = None,
    note: str = "",
) -> Revocation:
    """The revocation an operator means.

    Args:
        now: Epoch seconds.
        keep_s: The longest life of any accepted token, leeway included; None if there is no bound.
        token_id: This token.
        subject: Tenant and subject; may be combined with `issued_before`.
        tenant: The tenant; may be combined with `issued_before`.
        issued_before: Epoch second; alone, it hits everybody's tokens. Absent: now, the running second
            included.
        expires_at: When the token expires, if the operator knows it.
        note: Why.

    Raises:
        ValueError: None or more than one of `token_id`, `subject` and `tenant`, or nothing at all.
    """
    if sum(target is not None for target in (token_id, subject, tenant)) > 1:
        raise ValueError("name one of token id, subject and tenant")
    if token_id is not None and issued_before is not None:
        raise ValueError("a token id needs no time")
    if token_id is None and subject is None and tenant is None and issued_before is None:
        raise ValueError("say what to revoke: a token id, a subject, a tenant, or everything before a time")
    moment = int(now) + 1 if issued_before is None else issued_before
    if expires_at is None and keep_s is not None:
        expires_at = int(max(now, moment) + keep_s) + 1
    if token_id is not None:
        kind, named_tenant, named_subject, moment = RevocationKind.TOKEN, None, None, 0
    elif subject is not None:
        kind, named_tenant, named_subject = RevocationKind.SUBJECT, subject[0], subject[1]
    elif tenant is not None:
        kind, named_tenant, named_subject = RevocationKind.TENANT, tenant, None
    else:
        kind, named_tenant, named_subject = RevocationKind.EVERYTHING, None, None
    return Revocation(
        kind=kind,
        token_id=token_id,
        tenant=named_tenant,
        subject=named_subject,
        issued_before=moment,
        revoked_at=int(now),
        expires_at=expires_at,
        note=note,
    )


class RevocationList:
    """The revocations in force in this process; finding one costs four dictionary lookups."""

    __slots__ = ("_by_id", "_by_target")

    def __init__(self) -> None:
        self._by_id: dict[str, Revocation] = {}
        self._by_target: dict[tuple[str | None, ...], Revocation] = {}

    def find(self, principal: Principal) -> Revocation | None:
        """The revocation that hits this principal's token, if any."""
        if not self._by_id:
            return None
        for target in (
            (RevocationKind.TOKEN, principal.token_id, None, None),
            (RevocationKind.SUBJECT, None, principal.tenant, principal.subject),
            (RevocationKind.TENANT, None, principal.tenant, None),
            (RevocationKind.EVERYTHING, None, None, None),
        ):
            revocation = self._by_target.get(target)
            if revocation is not None and revocation.matches(principal):
                return revocation
        return None

    def put(self, revocation: Revocation) -> bool:
        """Add or renew one; False if it was there exactly like that."""
        if self._by_id.get(revocation.id) == revocation:
            return False
        self._by_id[revocation.id] = revocation
        self._by_target[_target(revocation)] = revocation
        return True

    def drop(self, revocation_id: str) -> Revocation | None:
        """Take one out; None if it was not there."""
        revocation = self._by_id.pop(revocation_id, None)
        if revocation is not None:
            del self._by_target[_target(revocation)]
        return revocation

    def prune(self, now: float) -> None:
        """Take out those that no living token can meet any more."""
        for revocation in [one for one in self._by_id.values() if one.has_expired(now)]:
            self.drop(revocation.id)

    def replace(self, revocations: Iterable[Revocation]) -> tuple[Revocation, ...]:
        """Take over a complete list; gives those that were not there before."""
        wanted = {one.id: one for one in revocations}
        for revocation_id in [known for known in self._by_id if known not in wanted]:
            self.drop(revocation_id)
        return tuple(one for one in wanted.values() if self.put(one))

    def entries(self) -> tuple[Revocation, ...]:
        """All of them, newest first."""
        return tuple(sorted(self._by_id.values(), key=lambda one: (-one.revoked_at, one.id)))

    def __contains__(self, revocation_id: str) -> bool:
        return revocation_id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)


def _target(revocation: Revocation) -> tuple[str | None, ...]:
    return (revocation.kind, revocation.token_id, revocation.tenant, revocation.subject)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

"""Answers kept for replay, sealed: AES-256-GCM, bound to the place where they are kept.

Pure bytes. The store never sees an answer's content, and an answer copied to another key does not open.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_VERSION: Final = b"\x01"
NOT_KEPT: Final = b"\x00"
"""Stands for an answer that was given but cannot be given again: too large, or a stream."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer that may be given again."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def seal(key: bytes, place: str, answer: StoredAnswer) -> bytes:
    """Encrypt an answer for one place."""
    head = orjson.dumps([answer.status, answer.headers])
    plain = len(head).to_bytes(4, "big") + head + answer.body
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _VERSION + nonce + AESGCM(key).encrypt(nonce, plain, place.encode())


def unseal(key: bytes, place: str, sealed: bytes) -> StoredAnswer | None:
    """Decrypt an answer; None when it was not kept, or is not one of ours for this place."""
    if sealed[:1] != _VERSION:
        return None
    nonce, locked = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        plain = AESGCM(key).decrypt(nonce, locked, place.encode())
    except InvalidTag:
        return None
    size = int.from_bytes(plain[:4], "big")
    status, headers = orjson.loads(plain[4 : 4 + size])
    return StoredAnswer(status, tuple((name, value) for name, value in headers), plain[4 + size :])

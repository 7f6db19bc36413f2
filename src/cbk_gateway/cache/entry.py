"""One remembered answer: its value, its form at rest, and its encryption.

Nothing here knows where entries are kept or how long they are good.

At rest an entry is one byte for its form, then a JSON line with what is not body, then the body. Form 1 is
the same under AES-256-GCM with a random nonce of 96 bits; account and digest are authenticated along with it,
so that an entry moved to another key does not open. A key is good for 2^32 entries (NIST SP 800-38D section
8.3); rotate it long before, which costs no more than a cold cache.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_CLEAR: Final = b"\x00"
_SEALED: Final = b"\x01"
_NONCE_BYTES: Final = 12
_OVERHEAD_BYTES: Final = 900


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer as it is kept.

    Attributes:
        status: 200, or 404 of a fetch.
        content_type: The upstream's `Content-Type`, parameters included.
        language: Its `Content-Language`, "" for none.
        etag: The gateway's own strong validator of `body`.
        body: The body, with content codings removed.
        stored_at_ms: When it was kept, by the store's clock.
        fresh_until_ms: When its lifetime ends, by the store's clock.
        initial_age_s: How old it was on arrival.
    """

    status: int
    content_type: str
    language: str
    etag: str
    body: bytes
    stored_at_ms: int
    fresh_until_ms: int
    initial_age_s: int = 0

    def age_s(self, now_ms: float) -> int:
        """Seconds since the upstream made it (RFC 9111 section 4.2.3)."""
        return self.initial_age_s + max(0, int(now_ms - self.stored_at_ms) // 1000)

    @property
    def size_bytes(self) -> int:
        """Memory it takes, its place in the tables of a worker included."""
        return len(self.body) + _OVERHEAD_BYTES


class EntryCodec:
    """Turns entries into bytes and back, sealing them when it has a key."""

    __slots__ = ("_cipher",)

    def __init__(self, encryption_key: bytes | None) -> None:
        self._cipher = AESGCM(encryption_key) if encryption_key is not None else None

    def encode(self, entry: Entry, name: str) -> bytes:
        """The bytes at rest, without the times, which the store itself puts in front."""
        facts = [entry.status, entry.content_type, entry.language, entry.etag, entry.initial_age_s]
        plain = orjson.dumps(facts) + b"\n" + entry.body
        return self.seal(plain, name)

    def seal(self, plain: bytes, name: str) -> bytes:
        """Bytes at rest of anything that belongs to `name`."""
        if self._cipher is None:
            return _CLEAR + plain
        nonce = os.urandom(_NONCE_BYTES)
        return _SEALED + nonce + self._cipher.encrypt(nonce, plain, name.encode(errors="surrogatepass"))

    def open(self, at_rest: bytes, name: str) -> bytes | None:
        """The plain bytes; None when they are not of this form or were not sealed for `name`."""
        if self._cipher is None:
            return at_rest[1:] if at_rest[:1] == _CLEAR else None
        if at_rest[:1] != _SEALED:
            return None
        nonce, text = at_rest[1 : 1 + _NONCE_BYTES], at_rest[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, text, name.encode(errors="surrogatepass"))
        except (InvalidTag, ValueError):
            return None

    def decode(self, at_rest: bytes, name: str, stored_at_ms: int, fresh_until_ms: int) -> Entry | None:
        """The entry; None when the bytes are of another key, another name or another version."""
        plain = self.open(at_rest, name)
        if plain is None:
            return None
        line, _, body = plain.partition(b"\n")
        try:
            facts: Any = orjson.loads(line)
            status, content_type, language, etag, age_s = facts
        except (orjson.JSONDecodeError, ValueError, TypeError):
            return None
        return Entry(
            status=int(status),
            content_type=str(content_type),
            language=str(language),
            etag=str(etag),
            body=body,
            stored_at_ms=stored_at_ms,
            fresh_until_ms=fresh_until_ms,
            initial_age_s=int(age_s),
        )
